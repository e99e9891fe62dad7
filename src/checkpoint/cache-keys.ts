/**
 * Names in the cache of downloads: a folder for each file of a hub, `HOST/OWNER--NAME/REVISION/FILE`, each part encoded as in an address. In it are
 * `record.json`, the bytes under a digest of their tag, and what writers leave or have not finished yet.
 */

/** A file of a hub, as a cache has it. */
export interface HubFileName {
  /** The hub's address, without `https://` where that is its scheme: `huggingface.co`. */
  readonly host: string
  /** Its id there: `owner/name`, or `name`. */
  readonly model: string
  readonly revision: string
  readonly file: string
}

/** The folder of a file, which all its keys begin with. */
export function folderKey({ host, model, revision, file }: HubFileName): string {
  return [host, model.replace('/', '--'), revision, file].map(encodeURIComponent).join('/')
}

/** What is in a file's folder, and nothing else that somebody may have there. */
const CONTENTS = /^(?:record\.json|[0-9a-f]{64}(?:\.validator)?)(?:\.\d+\.[\w-]+\.(?:part|tmp))?$/
const BYTES = /^[0-9a-f]{64}$/

export interface ParsedKey {
  readonly name: HubFileName
  /** Whether it is the complete file. */
  readonly isComplete: boolean
}

/** Undefined for what is none of the hub's. */
export function parseKey(key: string): ParsedKey | undefined {
  const parts = key.split('/')
  const content = parts.at(-1) ?? ''
  if (parts.length !== 5 || !CONTENTS.test(content)) return undefined
  try {
    const [host, id, revision, file] = parts.map(decodeURIComponent)
    return { name: { host, model: id.replace('--', '/'), revision, file }, isComplete: BYTES.test(content) }
  } catch {
    return undefined
  }
}
