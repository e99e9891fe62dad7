/**
 * Golden data as the tests read it. On purpose not by src/checkpoint: an error in the package's own reader must not cancel out.
 * Whole files, F32 and I32 alone, no checks: the files are ours.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

export interface GoldenTensor<T extends Float32Array | Int32Array = Float32Array | Int32Array> {
  readonly shape: readonly number[]
  readonly data: T
}

export interface Golden {
  readonly metadata: Readonly<Record<string, string>>
  readonly names: readonly string[]
  has(name: string): boolean
  floats(name: string): GoldenTensor<Float32Array>
  ints(name: string): GoldenTensor<Int32Array>
}

interface HeaderEntry {
  readonly dtype: string
  readonly shape: readonly number[]
  readonly data_offsets: readonly [number, number]
}

type Header = { readonly __metadata__?: Record<string, string> } & Record<string, HeaderEntry>

/** A path below the repository's root. */
export function repositoryPath(path: string): string {
  return fileURLToPath(new URL(`../../${path}`, import.meta.url))
}

export function fixtureModel(name: string): string {
  return repositoryPath(`test/fixtures/models/${name}`)
}

export function readGolden(path: string): Golden {
  const file = Uint8Array.from(readFileSync(path))
  const dataStart = 8 + Number(new DataView(file.buffer).getBigUint64(0, true))
  const { __metadata__: metadata = {}, ...entries }: Header = JSON.parse(new TextDecoder().decode(file.subarray(8, dataStart)))
  const bytesOf = (name: string, dtype: string): { shape: readonly number[], bytes: ArrayBuffer } => {
    const entry = entries[name]
    if (entry?.dtype !== dtype) throw new Error(`${path}: no ${dtype} tensor ${name}`)
    const [start, end] = entry.data_offsets
    return { shape: entry.shape, bytes: file.slice(dataStart + start, dataStart + end).buffer }
  }
  return {
    metadata,
    names: Object.keys(entries),
    has: (name) => name in entries,
    floats(name) {
      const { shape, bytes } = bytesOf(name, 'F32')
      return { shape, data: new Float32Array(bytes) }
    },
    ints(name) {
      const { shape, bytes } = bytesOf(name, 'I32')
      return { shape, data: new Int32Array(bytes) }
    }
  }
}

/** Row `index` of a matrix of ids. */
export function idsOf({ shape, data }: GoldenTensor<Int32Array>, index: number): Int32Array {
  return data.slice(index * shape[1], (index + 1) * shape[1])
}

/** The files of a folder by name, each with memory of its own. */
export function filesOf(folder: string): Record<string, Uint8Array> {
  return Object.fromEntries(readdirSync(folder).map((name) => [name, Uint8Array.from(readFileSync(`${folder}/${name}`))]))
}
