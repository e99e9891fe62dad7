/** What was downloaded by hub id and kept: in the user's cache folder, in a browser in its Cache API. To be listed, and deleted. */

import { folderKey, type HubFileName, parseKey } from './checkpoint/cache-keys.ts'
import { platform } from '#platform'

/** A file of a model that was kept when it was downloaded. */
export interface CachedFile extends HubFileName {
  /** With what belongs to it. */
  readonly byteLength: number
  /** Otherwise a download that ended early, to be gone on with. */
  readonly isComplete: boolean
}

/** Which of them: all that have what is given here. */
export interface CachedFilesOptions extends Partial<HubFileName> {
  /** As given to load: a folder, in a browser the name of a cache. By default the user's. */
  readonly cacheFolder?: string | undefined
}

interface Found {
  readonly file: CachedFile
  readonly keys: readonly string[]
}

/** Files being downloaded at this moment are not among them. None where nothing can be kept, as on edge functions. */
export async function listCachedFiles(options: CachedFilesOptions = {}): Promise<CachedFile[]> {
  return (await find(options)).map(({ file }) => file)
}

/** Returns those that were deleted: all, or those of a model: `deleteCachedFiles({ model: 'owner/name' })`. Models in use that read from them may fail. */
export async function deleteCachedFiles(options: CachedFilesOptions = {}): Promise<CachedFile[]> {
  const cache = await platform.downloadCache(options.cacheFolder)
  const found = await find(options)
  for (const { keys } of found) for (const key of keys) await cache?.remove(key)
  return found.map(({ file }) => file)
}

async function find({ cacheFolder, ...wanted }: CachedFilesOptions): Promise<readonly Found[]> {
  const byFolder = new Map<string, Found>()
  for (const { key, byteLength } of (await (await platform.downloadCache(cacheFolder))?.list()) ?? []) {
    const parsed = parseKey(key)
    if (parsed === undefined || !isWanted(parsed.name, wanted)) continue
    const folder = folderKey(parsed.name)
    const { file, keys } = byFolder.get(folder) ?? { file: { ...parsed.name, byteLength: 0, isComplete: false }, keys: [] }
    byFolder.set(folder, {
      file: { ...file, byteLength: file.byteLength + byteLength, isComplete: file.isComplete || parsed.isComplete },
      keys: [...keys, key]
    })
  }
  return [...byFolder.values()].sort((a, b) => (folderKey(a.file) < folderKey(b.file) ? -1 : 1))
}

function isWanted(name: HubFileName, wanted: Partial<HubFileName>): boolean {
  return (['host', 'model', 'revision', 'file'] as const).every((part) => wanted[part] === undefined || wanted[part] === name[part])
}
