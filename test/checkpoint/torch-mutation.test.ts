/** Real torch.save files, damaged at random: whatever comes, reading ends in success or in one of this package's errors, soon. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { readTorchTensors } from '../../src/checkpoint/torch.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { modelFiles } from './helpers.ts'
import { stateDict, tensor, torchFile } from './torch-file.ts'

async function outcomeOf(file: Uint8Array): Promise<'read' | 'refused'> {
  try {
    for (const entry of await readTorchTensors(bytesSource(file, 'm.bin'))) await readWholeTensor(entry)
    return 'read'
  } catch (error) {
    if (error instanceof CheckpointError || error instanceof UnsupportedError) return 'refused'
    throw error
  }
}

type Damage = (file: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>

/** Where damage is likely to tell: the pickle at the start, the directory and the end records, any local header. */
interface Region {
  readonly start: number
  readonly end: number
}

const fraction = fc.double({ min: 0, max: 0.999999, noNaN: true })

function damageOf(regions: readonly Region[]): fc.Arbitrary<Damage> {
  const place = fc.tuple(fc.constantFrom(...regions), fraction).map(([{ start, end }, at]) => Math.floor(start + at * (end - start)))
  const setBytes = (at: number, bytes: ArrayLike<number>): Damage => (file) => {
    const copy = file.slice()
    for (let i = 0; i < bytes.length && at + i < copy.length; i++) copy[at + i] = bytes[i]
    return copy
  }
  const numbers = fc.constantFrom(0n, 1n, 2n ** 16n - 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 53n, 2n ** 60n, 2n ** 64n - 1n)
  return fc.oneof(
    fc.tuple(place, fc.nat(255)).map(([at, byte]) => setBytes(at, [byte])),
    // Opcodes, more often than by chance.
    fc.tuple(place, fc.constantFrom(...'(tsu}R)bcqrhjQX.NKMJ', '\x80', '\x85', '\x86', '\x87', '\x8a', '\x8c', '\x93', '\x94', '\x95')).map(([at, opcode]) => setBytes(at, [opcode.charCodeAt(0)])),
    fc.tuple(place, numbers, fc.constantFrom(2, 4, 8)).map(([at, value, length]) => setBytes(at, new Uint8Array(BigUint64Array.of(value).buffer, 0, length))),
    fraction.map((at): Damage => (file) => file.slice(0, Math.floor(at * file.length))),
    fc.tuple(place, place, fc.integer({ min: 1, max: 120 })).map(([from, to, length]): Damage => (file) => setBytes(to, file.slice(from, from + length))(file)),
    fc.tuple(place, fc.uint8Array({ minLength: 1, maxLength: 40 })).map(([at, bytes]): Damage => (file) => {
      const copy = new Uint8Array(file.length + bytes.length)
      copy.set(file.subarray(0, at))
      copy.set(bytes, Math.min(at, file.length))
      copy.set(file.subarray(at), Math.min(at, file.length) + bytes.length)
      return copy
    })
  )
}

/** `wrap` makes the file of what was damaged. */
async function expectAnswers(bytes: Uint8Array<ArrayBuffer>, regions: readonly Region[], wrap: Damage = (file) => file): Promise<Record<'read' | 'refused', number>> {
  const counts = { read: 0, refused: 0 }
  expect(await outcomeOf(wrap(bytes))).toBe('read')
  await fc.assert(
    fc.asyncProperty(fc.array(damageOf(regions), { minLength: 1, maxLength: 3 }), async (damages) => {
      const damaged = wrap(damages.reduce((bytes, apply) => apply(bytes), bytes))
      const start = performance.now()
      counts[await outcomeOf(damaged)]++
      expect(performance.now() - start).toBeLessThan(2000)
    }),
    { numRuns: 3000 }
  )
  return counts
}

/** Both ends must be met often, or a test damages too little or too much. */
function expectBoth({ read, refused }: Record<'read' | 'refused', number>): void {
  expect(refused).toBeGreaterThan(1000)
  expect(read).toBeGreaterThan(30)
}

describe('3000 damages', () => {
  test('of the fixture', async () => {
    const file = Uint8Array.from(modelFiles('mamba_original')['pytorch_model.bin'])
    const regions = [[0, 64], [64, 3300], [3270, 24400], [24400, 148088], [0, file.length], [148088, file.length], [file.length - 98, file.length]]
    expectBoth(await expectAnswers(file, regions.map(([start, end]) => ({ start, end }))))
  })

  const pickle = stateDict(['a', tensor()], ['b', tensor({ isParameter: true, key: '1' })])
  const storages = { 0: new Uint8Array(24), 1: new Uint8Array(24) }

  test('of a small file, where nearly every byte tells', async () => {
    const file = torchFile(pickle, storages)
    expectBoth(await expectAnswers(file, [{ start: 0, end: file.length }]))
  })

  test('of a pickle in a sound zip', async () => {
    expectBoth(await expectAnswers(pickle, [{ start: 0, end: pickle.length }], (damaged) => torchFile(damaged, storages)))
  })
})
