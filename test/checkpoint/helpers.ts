/** For the tests of this folder: the fixtures' places, and safetensors files of any content, valid or not. */
import { readFileSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { recordFiles } from '../../src/checkpoint/file-set.ts'
import type { TensorEntry } from '../../src/checkpoint/safetensors.ts'

export function modelFolder(name: string): string {
  return fileURLToPath(new URL(`../fixtures/models/${name}`, import.meta.url))
}

/** The files of a fixture's folder, each with memory of its own. */
export function modelFiles(name: string): Record<string, Uint8Array> {
  const folder = modelFolder(name)
  return Object.fromEntries(readdirSync(folder).map((file) => [file, Uint8Array.from(readFileSync(`${folder}/${file}`))]))
}

export function modelSet(name: string, changes: Readonly<Record<string, Uint8Array | undefined>> = {}) {
  const files = Object.entries({ ...modelFiles(name), ...changes }).filter((file): file is [string, Uint8Array] => file[1] !== undefined)
  return recordFiles(Object.fromEntries(files))
}

export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text)
}

/** A file with this header as it is; `length` is what the file says of it. */
export function rawSafetensors(header: object | string | Uint8Array, dataBytes = 0, length?: bigint): Uint8Array {
  const text = header instanceof Uint8Array ? header : utf8(typeof header === 'string' ? header : JSON.stringify(header))
  const file = new Uint8Array(8 + text.byteLength + dataBytes)
  new DataView(file.buffer).setBigUint64(0, length ?? BigInt(text.byteLength), true)
  file.set(text, 8)
  return file
}

/** A tensor of one dimension that starts `offset` bytes into its source. */
export function entryOf(dtype: string, bytes: Uint8Array, { offset = 0, elementBytes = 2 } = {}): TensorEntry {
  const padded = new Uint8Array(offset + bytes.byteLength)
  padded.set(bytes, offset)
  const shape = [bytes.byteLength / elementBytes]
  return { name: 'w', dtype, shape, source: bytesSource(padded, 'file'), start: offset, byteLength: bytes.byteLength }
}
