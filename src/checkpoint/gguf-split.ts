/** A GGUF model in one file or in several, as llama.cpp's `gguf-split` cuts them: `name-00001-of-00003.gguf` and so on, the metadata in the first. */
import { CheckpointError, describe } from '../errors.ts'
import type { ByteSource } from './byte-source.ts'
import { createMetadataReader } from './gguf-metadata.ts'
import { readGgufHeader } from './gguf-reader.ts'
import type { GgufHeader } from './gguf-types.ts'
import type { TensorEntry } from './safetensors.ts'

export interface GgufFiles {
  /** Of the first file, in its folder. */
  readonly fileName: string
  /** Another file of the folder; undefined where there is none of that name. Who opens closes. */
  readonly open: (fileName: string) => Promise<ByteSource | undefined>
  readonly signal?: AbortSignal | undefined
}

/** As many as a name can count. */
const MAX_FILES = 99999
const PART_NAME = /^(.*)-00001-of-([0-9]{5})\.gguf$/s

/** The header of a model from that of its first file: the first one's metadata, the tensors of all. Throws as `readGgufHeader`, and a CheckpointError for files that do not belong together. */
export async function withParts(header: GgufHeader, { fileName, open, signal }: GgufFiles): Promise<GgufHeader> {
  const { no, count } = partOf(header)
  if (count === 1) return header
  const [, stem, total] = PART_NAME.exec(fileName) ?? []
  if (no !== 0 || Number(total) !== count) {
    const expected = `the first of ${count} files, with -00001-of-${digitsOf(count)}.gguf at the end of its name`
    throw new CheckpointError({ place: header.name, expected, got: `number ${no + 1}, ${describe(fileName)}` })
  }
  const tensors = new Map(header.tensors.map((entry) => [entry.name, entry]))
  for (let i = 1; i < count; i++) {
    const partName = `${stem}-${digitsOf(i + 1)}-of-${digitsOf(count)}.gguf`
    const source = await open(partName)
    if (source === undefined) throw new CheckpointError({ place: header.name, expected: `a file ${partName} beside it`, got: 'none' })
    addPart(tensors, await readGgufHeader(source, signal), { no: i, count })
  }
  const nTensors = createMetadataReader(header).natural('split.tensors.count', tensors.size)
  if (nTensors !== tensors.size) {
    throw new CheckpointError({ place: `${header.name}, split.tensors.count`, expected: `${tensors.size}, as the files have`, got: `${nTensors}` })
  }
  return { ...header, tensors: [...tensors.values()] }
}

interface Part {
  /** From 0. */
  readonly no: number
  readonly count: number
}

function partOf(header: GgufHeader): Part {
  const reader = createMetadataReader(header)
  const count = reader.natural('split.count', 1)
  if (count > MAX_FILES) throw new CheckpointError({ place: `${header.name}, split.count`, expected: `at most ${MAX_FILES}`, got: `${count}` })
  return { no: reader.natural('split.no', 0), count: Math.max(1, count) }
}

function addPart(tensors: Map<string, TensorEntry>, header: GgufHeader, expected: Part): void {
  const { no, count } = partOf(header)
  if (no !== expected.no || count !== expected.count) {
    throw new CheckpointError({ place: header.name, expected: `number ${expected.no + 1} of ${expected.count}`, got: `number ${no + 1} of ${count}` })
  }
  for (const entry of header.tensors) {
    if (tensors.has(entry.name)) throw new CheckpointError({ place: `${header.name}, ${entry.name}`, expected: 'each tensor in one file', got: 'it again' })
    tensors.set(entry.name, entry)
  }
}

function digitsOf(number: number): string {
  return String(number).padStart(5, '0')
}
