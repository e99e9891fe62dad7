/** What was picked or dropped: a model's files, or a state that this page saved. */

import type { ModelSource } from 'mamba-wasm'

/** Of the files that were picked. A browser hands them to the engine's worker by reference: they are read there, as needed. */
export function modelOf(files: readonly File[]): ModelSource {
  const [gguf] = files.filter(({ name }) => name.endsWith('.gguf'))
  if (gguf !== undefined) return gguf
  const weights = files.filter(({ name }) => name.endsWith('.safetensors'))
  // A lone file of weights may have any name.
  const nameOf = (file: File): string => (weights.length === 1 && file === weights[0] ? 'model.safetensors' : file.name)
  return Object.fromEntries(files.map((file) => [nameOf(file), file]))
}

/** The files of a drop, those directly in dropped folders included. To be called before anything is awaited: the browser forgets a drop soon. */
export async function filesOf(transfer: DataTransfer): Promise<readonly File[]> {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null)
  // A drop that a script made has files, and no entries.
  if (entries.length === 0) return [...transfer.files]
  const nested = await Promise.all(entries.map(async (entry) => (isFolder(entry) ? entriesIn(entry) : [entry])))
  return Promise.all(nested.flat().filter(isFile).map((entry) => new Promise<File>((resolve, reject) => entry.file(resolve, reject))))
}

function isFolder(entry: FileSystemEntry): entry is FileSystemDirectoryEntry {
  return entry.isDirectory
}

function isFile(entry: FileSystemEntry): entry is FileSystemFileEntry {
  return entry.isFile
}

/** A reader gives a hundred at a time. */
async function entriesIn(folder: FileSystemDirectoryEntry): Promise<FileSystemEntry[]> {
  const reader = folder.createReader()
  const found: FileSystemEntry[] = []
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject))
    if (some.length === 0) return found
    found.push(...some)
  }
}

/** What this page saves: the text, which a session does not keep, and the session. */
export interface SavedState {
  readonly given: string
  readonly written: string
  readonly session: Uint8Array
}

const ENDING = '.mamba'

export function isState(file: File): boolean {
  return file.name.endsWith(ENDING)
}

/** A line of JSON, and the session's bytes behind it. */
export function saveState({ given, written, session }: SavedState): void {
  const url = URL.createObjectURL(new Blob([`${JSON.stringify({ given, written })}\n`, session.slice()]))
  const link = Object.assign(document.createElement('a'), { href: url, download: `text${ENDING}` })
  link.click()
  // The download has begun by then.
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

export async function readState(file: File): Promise<SavedState> {
  const bytes = new Uint8Array(await file.arrayBuffer())
  const end = bytes.indexOf(10)
  try {
    const { given, written } = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end))) as SavedState
    if (typeof given !== 'string' || typeof written !== 'string') throw new TypeError('no text')
    return { given, written, session: bytes.subarray(end + 1) }
  } catch {
    throw new Error(`${file.name} is no state that this page saved`)
  }
}
