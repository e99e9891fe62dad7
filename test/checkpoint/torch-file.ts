/** For the tests of torch.save files: pickles opcode by opcode, and zips of any content, valid or not. */
import { readFileSync } from 'node:fs'
import { utf8 } from './helpers.ts'

export type Part = number | string | Uint8Array | readonly Part[]

/** Bytes: numbers as they are, texts in UTF-8. */
export function bytesOf(...parts: readonly Part[]): Uint8Array<ArrayBuffer> {
  const pieces = parts.flatMap(piecesOf)
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0))
  let at = 0
  for (const piece of pieces) {
    bytes.set(piece, at)
    at += piece.length
  }
  return bytes
}

function piecesOf(part: Part): Uint8Array[] {
  if (typeof part === 'number') return [Uint8Array.of(part)]
  if (typeof part === 'string') return [utf8(part)]
  return part instanceof Uint8Array ? [part] : part.flatMap(piecesOf)
}

/** What Python itself wrote: test/fixtures/pickles/make.py. */
export function pickleFixture(name: string): Uint8Array {
  return Uint8Array.from(readFileSync(new URL(`../fixtures/pickles/${name}`, import.meta.url)))
}

/** Little-endian. */
export function little(value: number | bigint, byteLength: number): number[] {
  return Array.from({ length: byteLength }, (_, i) => Number((BigInt(value) >> BigInt(8 * i)) & 0xffn))
}

/** Opcodes by pickletools' names. */
export const op = {
  proto: (version: number) => [0x80, version],
  text: (text: string) => ['X', little(utf8(text).length, 4), text],
  shortText: (text: string) => [0x8c, utf8(text).length, text],
  int: (value: number) => (value >= 0 && value < 256 ? ['K', value] : ['J', little(value, 4)]),
  long: (value: bigint, byteLength: number) => [0x8a, byteLength, little(BigInt.asUintN(64, value), byteLength)],
  global: (module: string, name: string) => ['c', `${module}\n${name}\n`],
  stackGlobal: (module: string, name: string) => [op.shortText(module), op.shortText(name), 0x93],
  tuple: (...items: readonly Part[]) => ['(', items, 't'],
  call: (callee: Part, ...args: readonly Part[]) => [callee, '(', args, 'tR'],
  dict: (...pairs: readonly (readonly [Part, Part])[]) => ['}(', pairs, 'u'],
  none: 'N', true: [0x88], false: [0x89], stop: '.', orderedDict: () => op.call(op.global('collections', 'OrderedDict'))
} as const

export interface TensorSpec {
  readonly type?: string
  readonly key?: string
  readonly nElements?: number
  readonly offset?: number
  readonly shape?: readonly number[]
  readonly strides?: readonly number[]
  readonly isParameter?: boolean
  /** After the hooks. */
  readonly more?: readonly Part[]
}

export function storage({ type = 'FloatStorage', key = '0', nElements = 6 }: TensorSpec = {}): Part {
  return [op.tuple(op.text('storage'), op.global('torch', type), op.text(key), op.text('cpu'), op.int(nElements)), 'Q']
}

/** By default the matrix (2, 3) in the storage `data/0`. */
export function tensor(spec: TensorSpec = {}): Part {
  const { offset = 0, shape = [2, 3], strides = [3, 1], isParameter = false, more = [] } = spec
  const rebuilt = op.call(
    op.global('torch._utils', '_rebuild_tensor_v2'), storage(spec), op.int(offset), op.tuple(...shape.map(op.int)), op.tuple(...strides.map(op.int)),
    op.false, op.orderedDict(), ...more
  )
  return isParameter ? op.call(op.global('torch._utils', '_rebuild_parameter'), rebuilt, op.true, op.orderedDict()) : rebuilt
}

export function stateDict(...pairs: readonly (readonly [string, Part])[]): Uint8Array<ArrayBuffer> {
  return bytesOf(op.proto(2), op.dict(...pairs.map(([name, value]) => [op.text(name), value] as const)), op.stop)
}

export interface ZipFile {
  readonly name: string
  readonly data: Uint8Array
  /** What the directory's record says, by the offset of a 16- or 32-bit field. */
  readonly record?: Readonly<Record<number, readonly number[]>>
  /** What the local header says. */
  readonly header?: Readonly<Record<number, readonly number[]>>
  readonly recordName?: Uint8Array
  readonly recordExtra?: Uint8Array
}

export interface ZipOptions {
  readonly isZip64?: boolean
  /** Bytes of the 98 (22 without zip64) at the end, by their offset. */
  readonly end?: Readonly<Record<number, readonly number[]>>
  readonly beforeDirectory?: Uint8Array
  readonly afterDirectory?: Uint8Array
}

function patch(bytes: Uint8Array<ArrayBuffer>, changes: Readonly<Record<number, readonly number[]>> = {}): Uint8Array<ArrayBuffer> {
  for (const [offset, values] of Object.entries(changes)) bytes.set(values, Number(offset))
  return bytes
}

/** An archive of stored files, with data at multiples of 64 as torch.save has it. */
export function zip(files: readonly ZipFile[], { isZip64 = false, end = {}, beforeDirectory, afterDirectory }: ZipOptions = {}): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = []
  const records: Uint8Array[] = []
  let at = 0
  const add = (bytes: Uint8Array): void => {
    parts.push(bytes)
    at += bytes.length
  }
  for (const { name, data, record, header, recordName, recordExtra = new Uint8Array(0) } of files) {
    const nameBytes = utf8(name)
    const size = little(data.length, 4)
    const start = at
    const padding = 64 - ((at + 34 + nameBytes.length) % 64)
    const fields = [0, 0, 0, 0, 0, 0, 0, 0, little(0, 4), size, size]
    add(patch(bytesOf('PK', 3, 4, 0, 0, fields, little(nameBytes.length, 2), little(4 + padding, 2)), header))
    add(bytesOf(nameBytes, 'FB', little(padding, 2), new Uint8Array(padding)))
    add(data)
    const ownName = recordName ?? nameBytes
    const fixed = patch(bytesOf('PK', 1, 2, 0, 0, 0, 0, fields, little(ownName.length, 2), little(recordExtra.length, 2), new Uint8Array(10), little(start, 4)), record)
    records.push(bytesOf(fixed, ownName, recordExtra))
  }
  add(beforeDirectory ?? new Uint8Array(0))
  const directoryStart = at
  for (const record of records) add(record)
  const directoryBytes = at - directoryStart
  add(afterDirectory ?? new Uint8Array(0))
  const zip64 = [
    'PK', 6, 6, little(44, 8), 30, 3, 45, 0, new Uint8Array(8), little(files.length, 8), little(files.length, 8), little(directoryBytes, 8), little(directoryStart, 8),
    'PK', 6, 7, new Uint8Array(4), little(at, 8), little(1, 4)
  ]
  const short = ['PK', 5, 6, new Uint8Array(4), little(files.length, 2), little(files.length, 2), little(directoryBytes, 4), little(directoryStart, 4), 0, 0]
  add(patch(bytesOf(isZip64 ? zip64 : [], short), end))
  return bytesOf(...parts)
}

/** An archive of torch.save with this pickle and these storages. */
export function torchFile(pickle: Uint8Array, storages: Readonly<Record<string, Uint8Array>> = { 0: new Uint8Array(24) }, byteOrder = 'little'): Uint8Array<ArrayBuffer> {
  return zip([
    { name: 'archive/data.pkl', data: pickle },
    { name: 'archive/byteorder', data: utf8(byteOrder) },
    ...Object.entries(storages).map(([key, data]) => ({ name: `archive/data/${key}`, data })),
    { name: 'archive/version', data: utf8('3\n') }
  ])
}
