/** Halves, stacks and permuted rows, whole and by any range. */
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { pairOrder } from '../../src/checkpoint/gguf-architectures/rows.ts'
import type { TensorEntry } from '../../src/checkpoint/safetensors.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { halfOf, permutedRows, stackOf } from '../../src/checkpoint/tensor-views.ts'
import { UnsupportedError } from '../../src/errors.ts'

/** Numbers from `first` on, some bytes into their file. */
function entry(shape: readonly number[], first = 0, name = 'w'): TensorEntry {
  const count = shape.reduce((product, length) => product * length, 1)
  const bytes = new Uint8Array(12 + 4 * count + 8)
  bytes.set(new Uint8Array(Float32Array.from({ length: count }, (_, i) => first + i).buffer), 12)
  return { name, dtype: 'F32', shape, source: bytesSource(bytes, 'file'), start: 12, byteLength: 4 * count }
}

const valuesOf = async (view: TensorEntry): Promise<number[]> => [...(await readWholeTensor(view))]

/** Every range gives the same bytes as the whole. */
async function expectRanges({ source, start, byteLength }: TensorEntry): Promise<void> {
  const whole = Uint8Array.from(await source.read(start, start + byteLength))
  for (let from = 0; from <= byteLength; from += 3) {
    for (let to = from; to <= byteLength; to += 5) expect(Buffer.compare(await source.read(start + from, start + to), whole.subarray(from, to))).toBe(0)
  }
}

describe('halves', () => {
  test('of one matrix', async () => {
    const matrix = entry([4, 3])
    expect(halfOf(matrix, 0).shape).toEqual([2, 3])
    expect([await valuesOf(halfOf(matrix, 0)), await valuesOf(halfOf(matrix, 1))]).toEqual([[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]])
  })

  test('of each of several', async () => {
    const second = halfOf(entry([3, 4, 2]), 1)
    expect(second.shape).toEqual([3, 2, 2])
    expect(await valuesOf(second)).toEqual([4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23])
    await expectRanges(second)
  })
})

describe('stacks', () => {
  test('of tensors in files of their own', async () => {
    const stack = stackOf([entry([2, 2], 0, 'a'), entry([2, 2], 100, 'b'), entry([2, 2], 200, 'c')])
    expect([stack.name, stack.shape]).toEqual(['a to c', [3, 2, 2]])
    expect(await valuesOf(stack)).toEqual([0, 1, 2, 3, 100, 101, 102, 103, 200, 201, 202, 203])
    await expectRanges(stack)
  })

  test('of two types are refused', () => {
    expect(() => stackOf([entry([2]), { ...entry([2], 0, 'other'), dtype: 'F16' }])).toThrow(new UnsupportedError({ place: 'file, other', expected: 'F32, as w', got: 'F16' }))
  })
})

describe('permuted rows', () => {
  test('within each block of rows, by any range', async () => {
    const permuted = permutedRows(entry([6, 2]), [2, 0, 1])
    expect(await valuesOf(permuted)).toEqual([4, 5, 0, 1, 2, 3, 10, 11, 6, 7, 8, 9])
    await expectRanges(permuted)
  })

  test('pairs and halves undo each other', async () => {
    const heads = { headDim: 10, rotaryDim: 6 }
    expect(pairOrder(heads, 'toGguf')).toEqual([0, 3, 1, 4, 2, 5, 6, 7, 8, 9])
    expect(pairOrder(heads, 'fromGguf')).toEqual([0, 2, 4, 1, 3, 5, 6, 7, 8, 9])
    const original = entry([20, 3])
    const both = permutedRows(permutedRows(original, pairOrder(heads, 'toGguf')), pairOrder(heads, 'fromGguf'))
    expect(await valuesOf(both)).toEqual(await valuesOf(original))
  })
})
