/** Real GGUF files, damaged at random: whatever comes, reading ends in success or in one of this package's errors, soon. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { modelToGguf } from '../../src/checkpoint/gguf-convert.ts'
import { withArrays } from '../../src/checkpoint/gguf-arrays.ts'
import { createMetadataReader } from '../../src/checkpoint/gguf-metadata.ts'
import { ggufModel } from '../../src/checkpoint/gguf-model.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import { ggufBytes } from '../../src/checkpoint/gguf-writer.ts'
import { openCheckpoint } from '../../src/checkpoint/open-checkpoint.ts'
import type { EncodedType } from '../../src/checkpoint/quantize.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { buildModel, readModelConfig } from '../support/architectures.ts'
import { readGgufTokenizer } from '../../src/tokenizer/gguf-tokenizer.ts'
import { writeGgufTokenizer } from '../../src/tokenizer/gguf-tokenizer-writer.ts'
import { modelSet } from './helpers.ts'

const read = (bytes: Uint8Array) => readGgufHeader(bytesSource(bytes, 'm.gguf'))

type Damage = (file: Uint8Array<ArrayBuffer>, headerBytes: number) => Uint8Array<ArrayBuffer>
const fraction = fc.double({ min: 0, max: 0.999999, noNaN: true })
const setBytes = (at: number, bytes: ArrayLike<number>, inHeader: boolean): Damage => (file, headerBytes) => {
  const copy = file.slice()
  const start = Math.floor(at * (inHeader ? Math.min(headerBytes, copy.length) : copy.length))
  for (let i = 0; i < bytes.length && start + i < copy.length; i++) copy[start + i] = bytes[i]
  return copy
}
async function outcomeOf(file: Uint8Array): Promise<'read' | 'refused'> {
  try {
    const header = await read(file)
    const { config, tensors } = await ggufModel(header)
    const names = new Set(tensors.map(({ name }) => name))
    buildModel(readModelConfig(config), (name) => names.has(name))
    readGgufTokenizer(withArrays(createMetadataReader(header)))
    for (const entry of tensors) await readWholeTensor(entry)
    return 'read'
  } catch (error) {
    if (error instanceof CheckpointError || error instanceof UnsupportedError) return 'refused'
    throw error
  }
}

describe('damage', async () => {
  const { vocabSize } = readModelConfig((await openCheckpoint(modelSet('mamba'))).config)
  const vocab = Object.fromEntries(Array.from({ length: 150 }, (_, id) => [String.fromCodePoint(0x100 + id), id]))
  const tokenizer = writeGgufTokenizer({
    tokenizerJson: {
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false }, added_tokens: [{ id: 152, content: '<|end|>', special: true }],
      model: { type: 'BPE', vocab: { ...vocab, ĀĀ: 150, ĀĀĀĀ: 151 }, merges: ['Ā Ā', 'ĀĀ ĀĀ'] }
    },
    tokenizerConfig: { chat_template: '{{ messages }}' }, vocabSize, ids: { bos: 1, eos: [152] }, place: 'tokenizer.json'
  })
  const written = async (model: string, type: EncodedType): Promise<Uint8Array<ArrayBuffer>> => {
    const { config, tensors } = await openCheckpoint(modelSet(model))
    return ggufBytes(modelToGguf({ config: readModelConfig(config), tensors, type, name: 'm', tokenizer, place: 'm' }))
  }
  // A hybrid's widths stand in arrays, and its queries and keys are read in another order.
  const files = await Promise.all([
    ...(['F32', 'BF16', 'Q8_0', 'Q4_0'] as const).map((type) => written('mamba', type)),
    ...['granitemoehybrid_moe', 'nemotron_h'].map((model) => written(model, 'Q8_0'))
  ])
  const headerBytes = await Promise.all(files.map(async (file) => (await read(file)).tensors[0].start))

  const damage: fc.Arbitrary<Damage> = fc.oneof(
    fc.tuple(fraction, fc.nat(255)).map(([at, byte]) => setBytes(at, [byte], true)),
    // The counts of the header, and its first keys.
    fc.tuple(fraction, fc.nat(255)).map(([at, byte]) => setBytes(at / 1000, [byte], true)),
    fc.tuple(fraction, fc.constantFrom(0n, 1n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 60n, 2n ** 64n - 1n)).map(([at, value]) => setBytes(at, new Uint8Array(BigUint64Array.of(value).buffer), true)),
    fc.tuple(fraction, fc.integer({ min: 0, max: 45 })).map(([at, value]) => setBytes(at, [value, 0, 0, 0], true)),
    fc.tuple(fraction, fc.constantFrom(0x7c, 0x7f, 0xff, 0x00)).map(([at, byte]) => setBytes(at, [byte, byte], false)),
    fraction.map((at): Damage => (file) => file.slice(0, Math.floor(at * file.length))),
    fraction.map((at): Damage => (file, headerBytes) => file.slice(0, Math.floor(at * headerBytes))),
    fc.tuple(fraction, fraction, fc.integer({ min: 1, max: 120 })).map(([from, to, length]): Damage => (file, headerBytes) => {
      const start = Math.floor(from * headerBytes)
      return setBytes(to, file.slice(start, start + length), true)(file, headerBytes)
    }),
    fc.tuple(fraction, fc.uint8Array({ minLength: 1, maxLength: 40 })).map(([at, bytes]): Damage => (file, headerBytes) => {
      const offset = Math.floor(at * Math.min(headerBytes, file.length))
      const copy = new Uint8Array(file.length + bytes.length)
      copy.set(file.subarray(0, offset))
      copy.set(bytes, offset)
      copy.set(file.subarray(offset), offset + bytes.length)
      return copy
    })
  )

  test('the files as they are', async () => {
    for (const file of files) expect(await outcomeOf(file)).toBe('read')
  })

  test('3000 damaged files are read, or refused with a CheckpointError or an UnsupportedError, each within two seconds', async () => {
    const counts = { read: 0, refused: 0 }
    await fc.assert(
      fc.asyncProperty(fc.nat(files.length - 1), fc.array(damage, { minLength: 1, maxLength: 3 }), async (which, damages) => {
        const file = damages.reduce((file, apply) => apply(file, headerBytes[which]), files[which])
        const start = performance.now()
        counts[await outcomeOf(file)]++
        expect(performance.now() - start).toBeLessThan(2000)
      }),
      { numRuns: 3000 }
    )
    // Both ends must be met often, or the test damages too little or too much.
    expect(counts.refused).toBeGreaterThan(1000)
    expect(counts.read).toBeGreaterThan(100)
  })
})
