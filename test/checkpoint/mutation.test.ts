/**
 * Real files, damaged at random: whatever comes, opening and reading ends in success or in one of this package's errors, soon.
 */
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { openCheckpoint } from '../../src/checkpoint/open-checkpoint.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { recordFiles } from '../../src/checkpoint/file-set.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { modelFiles, utf8 } from './helpers.ts'

const MODELS = { mamba: modelFiles('mamba'), mamba_f16: modelFiles('mamba_f16'), mamba_bf16: modelFiles('mamba_bf16'), mamba_sharded: modelFiles('mamba_sharded') }

const TARGETS = [
  ['mamba', 'model.safetensors'],
  ['mamba_f16', 'model.safetensors'],
  ['mamba_bf16', 'model.safetensors'],
  ['mamba_sharded', 'model-00004-of-00010.safetensors'],
  ['mamba_sharded', 'model.safetensors.index.json'],
  ['mamba', 'config.json']
] as const

/** A damage takes the file and the end of its text (the header, or all of a JSON file). */
type Damage = (file: Uint8Array, textEnd: number) => Uint8Array

const fraction = fc.double({ min: 0, max: 0.999999, noNaN: true })
const syntax = fc.constantFrom(...utf8('0123456789-.eE[]{},:"\\F_n \u0000'))

const setByte = (at: number, byte: number, inText: boolean): Damage => (file, textEnd) => {
  const copy = file.slice()
  copy[Math.floor(at * (inText ? textEnd : copy.length))] = byte
  return copy
}

const damage: fc.Arbitrary<Damage> = fc.oneof(
  fc.tuple(fraction, fc.nat(255)).map(([at, byte]) => setByte(at, byte, true)),
  fc.tuple(fraction, syntax).map(([at, byte]) => setByte(at, byte, true)),
  fc.tuple(fraction, fc.constantFrom(0x7c, 0x7f, 0xff, 0x00)).map(([at, byte]) => setByte(at, byte, false)),
  fraction.map((at): Damage => (file) => file.slice(0, Math.floor(at * file.length))),
  fraction.map((at): Damage => (file, textEnd) => file.slice(0, Math.floor(at * textEnd))),
  // The length of the header, near the truth and far from it.
  fc.oneof(fc.bigInt({ min: -40n, max: 40n }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })).map((delta): Damage => (file) => {
    const copy = file.slice()
    const view = new DataView(copy.buffer)
    view.setBigUint64(0, BigInt.asUintN(64, view.getBigUint64(0, true) + delta), true)
    return copy
  }),
  // A piece of the text written over another: valid syntax at wrong places, names that come twice.
  fc.tuple(fraction, fraction, fc.integer({ min: 1, max: 120 })).map(([from, to, length]): Damage => (file, textEnd) => {
    const copy = file.slice()
    const end = Math.min(Math.floor(from * textEnd) + length, textEnd)
    copy.set(file.subarray(Math.floor(from * textEnd), end).subarray(0, file.length - Math.floor(to * textEnd)), Math.floor(to * textEnd))
    return copy
  }),
  fc.tuple(fraction, fc.uint8Array({ minLength: 1, maxLength: 9 })).map(([at, bytes]): Damage => (file, textEnd) => {
    const offset = Math.floor(at * textEnd)
    const copy = new Uint8Array(file.length + bytes.length)
    copy.set(file.subarray(0, offset))
    copy.set(bytes, offset)
    copy.set(file.subarray(offset), offset + bytes.length)
    return copy
  })
)

test('3000 damaged files are read, or refused with a CheckpointError or an UnsupportedError, each within two seconds', async () => {
  const counts = { read: 0, refused: 0 }
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...TARGETS), fc.array(damage, { minLength: 1, maxLength: 3 }), async ([model, fileName], damages) => {
      const files: Record<string, Uint8Array> = MODELS[model]
      let file = files[fileName]
      const textEnd = fileName.endsWith('.json') ? file.length : 8 + Number(new DataView(file.buffer).getBigUint64(0, true))
      for (const apply of damages) if (file.length >= 8) file = apply(file, Math.min(textEnd, file.length))
      const start = performance.now()
      counts[await outcomeOf({ ...files, [fileName]: file })]++
      expect(performance.now() - start).toBeLessThan(2000)
    }),
    { numRuns: 3000 }
  )
  // Both ends must be met often, or the test damages too little or too much.
  expect(counts.refused).toBeGreaterThan(1000)
  expect(counts.read).toBeGreaterThan(100)
})

/** Opens and reads everything; rethrows what no caller should ever see. */
async function outcomeOf(files: Record<string, Uint8Array>): Promise<'read' | 'refused'> {
  try {
    const { tensors } = await openCheckpoint(recordFiles(files))
    for (const entry of tensors.values()) await readWholeTensor(entry)
    return 'read'
  } catch (error) {
    if (error instanceof CheckpointError || error instanceof UnsupportedError) return 'refused'
    throw error
  }
}
