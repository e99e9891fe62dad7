/**
 * Files and folders on a disk, by node:fs (Node, Deno and Bun have it).
 */
import { open, readFile, stat, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { checkRange, type ByteSource, type FileSet } from '../checkpoint/byte-source.ts'
import { checkFileName } from '../checkpoint/file-set.ts'
import { CheckpointError } from '../errors.ts'

export { readFile, stat }

/** The file at `path`, open until closed. Throws a CheckpointError where there is none, or it cannot be read. */
export async function fileSource(path: string): Promise<ByteSource> {
  const source = await openIfThere(path)
  if (source === undefined) throw new CheckpointError({ place: path, expected: 'a file', got: 'none' })
  return source
}

/** The files directly in the folder at `path`; a folder that is not there has none. */
export function folderFiles(path: string): FileSet {
  return {
    name: path,
    async open(fileName, signal) {
      signal?.throwIfAborted()
      checkFileName(fileName, path)
      return openIfThere(join(path, fileName))
    }
  }
}

/** undefined where there is no file. */
export async function openIfThere(path: string): Promise<ByteSource | undefined> {
  try {
    // Before opening: to open a pipe would wait for its writer.
    const { size, isFile } = await stat(path).then((stats) => ({ size: stats.size, isFile: stats.isFile() }))
    if (!isFile) throw new CheckpointError({ place: path, expected: 'a file', got: 'something else, e.g. a folder' })
    return handleSource(await open(path, 'r'), { path, byteLength: size })
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return undefined
    if (error instanceof CheckpointError) throw error
    throw new CheckpointError({ place: path, expected: 'a readable file', got: codeOf(error) ?? String(error) }, { cause: error })
  }
}

function handleSource(handle: FileHandle, { path, byteLength }: { path: string; byteLength: number }): ByteSource {
  return {
    name: path,
    byteLength,
    async read(start, end, signal, memory) {
      checkRange({ name: path, byteLength }, start, end)
      const bytes = memory?.subarray(0, end - start) ?? new Uint8Array(end - start)
      for (let filled = 0; filled < bytes.byteLength; ) {
        signal?.throwIfAborted()
        const { bytesRead } = await handle.read(bytes, filled, bytes.byteLength - filled, start + filled)
        if (bytesRead === 0) {
          throw new CheckpointError({ place: path, expected: `${byteLength} bytes, as when it was opened`, got: `${start + filled} bytes` })
        }
        filled += bytesRead
      }
      return bytes
    },
    close: () => handle.close()
  }
}

/** Whether an error of the file system has one of these codes. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return codes.includes(codeOf(error) ?? '')
}

export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}
