/**
 * Folders that are not on a disk: files given one by one, and files below a web address.
 */
import { describe, messageOf } from '../errors.ts'
import { blobSource, bytesSource, type ByteSource, type FileSet } from './byte-source.ts'
import type { HttpOptions } from './http.ts'
import { parseHttpUrl, publicName } from './http-address.ts'

/** What stands for a file: its bytes, its address (http or https), or a source of one's own. */
export type FileLike = Uint8Array | ArrayBuffer | Blob | URL | string | ByteSource

/**
 * A name that stays inside its folder on every system: no separators, no drive, not `.` or `..`, not empty.
 * Names that a checkpoint gives are checked with this before any file is opened.
 */
export function isPlainFileName(name: string): boolean {
  // oxlint-disable-next-line no-control-regex -- control characters are what it looks for
  return name.length <= 255 && name !== '.' && name !== '..' && /^[^/\\:\u0000-\u001f]+$/.test(name)
}

/** For file sets: a RangeError when `fileName` is not plain. */
export function checkFileName(fileName: string, place: string): void {
  if (!isPlainFileName(fileName)) {
    throw new RangeError(messageOf({ place, expected: 'a plain file name, without a folder', got: describe(fileName) }))
  }
}

/** Files given by name, e.g. what a file picker returned. `options` are for those given by address. */
export function recordFiles(files: Readonly<Record<string, FileLike>>, options: HttpOptions = {}): FileSet {
  const byName = new Map(Object.entries(files))
  for (const [fileName, file] of byName) checkFileLike(fileName, file)
  return {
    name: 'files',
    async open(fileName, signal) {
      checkFileName(fileName, 'files')
      const file = byName.get(fileName)
      return file === undefined ? undefined : openFileLike(fileName, file, { ...options, signal })
    }
  }
}

/** The files directly below an address: `https://host/models/tiny` has `https://host/models/tiny/config.json`. */
export function urlFiles(baseUrl: URL | string, options: HttpOptions = {}): FileSet {
  const base = parseHttpUrl(baseUrl)
  if (!base.pathname.endsWith('/')) base.pathname += '/'
  return {
    name: publicName(base),
    async open(fileName, signal) {
      checkFileName(fileName, publicName(base))
      const { openUrl } = await import('./http-source.ts')
      return openUrl(new URL(encodeURIComponent(fileName), base), { ...options, signal })
    }
  }
}

/** The endings of checkpoint files, and the names by which their containers are looked for. */
const CHECKPOINT_NAMES: readonly (readonly [ending: string, name: string])[] = [
  ['.safetensors', 'model.safetensors'],
  ['.safetensors.index.json', 'model.safetensors.index.json'],
  ['.bin', 'pytorch_model.bin'],
  ['.pt', 'pytorch_model.bin'],
  ['.pth', 'pytorch_model.bin'],
  ['.bin.index.json', 'pytorch_model.bin.index.json'],
  ['.gguf', 'model.gguf']
]

/** The same folder, where the checkpoint file `own` is the only one, whatever its name, and the rest stands beside it. */
export function checkpointFile(files: FileSet, own: string): FileSet {
  const name = checkpointName(own) ?? 'model.safetensors'
  return {
    name: files.name,
    async open(fileName, signal) {
      if (fileName === name) return files.open(own, signal)
      return CHECKPOINT_NAMES.some(([, other]) => other === fileName) ? undefined : files.open(fileName, signal)
    }
  }
}

/** The name by which a container's file is looked for, from the ending of its own name; undefined where it does not end like one. */
export function checkpointName(fileName: string): string | undefined {
  return CHECKPOINT_NAMES.find(([ending]) => fileName.endsWith(ending))?.[1]
}

function checkFileLike(fileName: string, file: FileLike): void {
  checkFileName(fileName, 'files')
  const isSource = typeof file === 'object' && file !== null && 'read' in file && typeof file.read === 'function'
  if (file instanceof Uint8Array || file instanceof ArrayBuffer || file instanceof Blob || isSource) return
  if (file instanceof URL || typeof file === 'string') {
    parseHttpUrl(file)
    return
  }
  throw new TypeError(messageOf({ place: fileName, expected: 'bytes, a Blob, an address or a ByteSource', got: describe(file) }))
}

async function openFileLike(fileName: string, file: FileLike, options: HttpOptions): Promise<ByteSource> {
  if (file instanceof Uint8Array || file instanceof ArrayBuffer) return bytesSource(file, fileName)
  if (file instanceof Blob) return blobSource(file, fileName)
  if (file instanceof URL || typeof file === 'string') return (await import('./http-source.ts')).httpSource(file, options)
  return file
}
