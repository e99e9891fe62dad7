/** Texts that a command reads: a file's, or that of standard input. */

import { readFile } from 'node:fs/promises'
import { buffer } from 'node:stream/consumers'
import { decodeText } from '../checkpoint/byte-source.ts'
import { messageOf } from '../errors.ts'

/** The whole of standard input, as it is. Throws a CheckpointError where it is not UTF-8. */
export async function readStandardInput(): Promise<string> {
  return decodeText(await buffer(process.stdin), 'standard input')
}

/** A file's whole text. Throws a CheckpointError where it is not UTF-8, and the signal's reason when aborted. */
export async function readTextFile(path: string, signal: AbortSignal): Promise<string> {
  const bytes = await readFile(path, { signal }).catch((error: unknown) => {
    signal.throwIfAborted()
    throw new Error(messageOf({ place: path, expected: 'a readable file', got: reasonOf(error) }), { cause: error })
  })
  return decodeText(bytes, path)
}

const REASONS: Readonly<Record<string, string>> = { ENOENT: 'none of that name', EISDIR: 'a folder', EACCES: 'one without permission to read it' }

function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
  return Object.hasOwn(REASONS, code) ? REASONS[code] : code
}
