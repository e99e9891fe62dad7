/** GGUF files from checkpoints in memory, whole, changed or in parts; and the logits that files give. */
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { recordFiles } from '../../src/checkpoint/file-set.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import type { GgufValue } from '../../src/checkpoint/gguf-types.ts'
import { ggufBytes, type GgufTensor } from '../../src/checkpoint/gguf-writer.ts'
import type { TensorEntry } from '../../src/checkpoint/safetensors.ts'
import { type ConvertOptions, convertToGguf } from '../../src/convert.ts'
import { type LoadOptions, Mamba } from '../../src/mamba.ts'
import { type Config, configText } from '../support/tiny-checkpoint.ts'

export type Files = Readonly<Record<string, Uint8Array>>

/** What convertToGguf writes; F32 by default. */
export async function converted(files: Files, options: Partial<ConvertOptions> = {}): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  await convertToGguf(recordFiles(files), { type: 'F32', name: 'm', sink: { write: async (bytes) => void parts.push(bytes.slice()) }, ...options })
  return new Uint8Array(Buffer.concat(parts))
}

export function withConfig(files: Files, changes: Config): Files {
  const config = JSON.parse(new TextDecoder().decode(files['config.json'])) as Config
  return { ...files, 'config.json': new TextEncoder().encode(configText({ ...config, ...changes })) }
}

export async function logitsOf(source: string | Files, options: LoadOptions = {}): Promise<Float32Array> {
  await using mamba = await Mamba.load(source, { threads: 1, ...options })
  return mamba.forward([5, 17, 99, 3, 42, 8, 150, 2, 77, 31], { allLogits: true })
}

/** A tensor of a file, as one to be written. */
function again({ name, dtype, shape, source, start, byteLength }: TensorEntry): GgufTensor {
  return {
    name, dtype, shape,
    async *bytes() {
      yield await source.read(start, start + byteLength)
    }
  }
}

/** The same file with other keys; undefined takes one away. */
export async function withKeys(file: Uint8Array, changes: Readonly<Record<string, GgufValue | undefined>>): Promise<Uint8Array> {
  const { metadata, tensors } = await readGgufHeader(bytesSource(file, 'm.gguf'))
  const changed = Object.entries({ ...Object.fromEntries(metadata), ...changes }).filter((entry): entry is [string, GgufValue] => entry[1] !== undefined)
  return ggufBytes({ metadata: new Map(changed), tensors: tensors.map(again) })
}

/** As llama.cpp's gguf-split cuts it, the first part with nothing but the metadata; by name, in order. */
export async function split(file: Uint8Array, count: number): Promise<Files> {
  const { metadata, tensors } = await readGgufHeader(bytesSource(file, 'm.gguf'))
  const partOf = async (no: number): Promise<readonly [string, Uint8Array]> => {
    const keys: [string, GgufValue][] = [
      ['split.no', { type: 'uint16', value: no }], ['split.count', { type: 'uint16', value: count }], ['split.tensors.count', { type: 'int32', value: tensors.length }]
    ]
    const own = tensors.filter((_, i) => no === 1 + (i % (count - 1)))
    const number = String(no + 1).padStart(5, '0')
    return [`m-${number}-of-${String(count).padStart(5, '0')}.gguf`, await ggufBytes({ metadata: new Map([...(no === 0 ? metadata : []), ...keys]), tensors: own.map(again) })]
  }
  return Object.fromEntries(await Promise.all(Array.from({ length: count }, (_, no) => partOf(no))))
}
