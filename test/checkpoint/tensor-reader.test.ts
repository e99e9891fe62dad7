/** Tensors as float32: every half, slices, what is not finite, speed. */
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { createSliceMemory, readTensor, readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { entryOf } from './helpers.ts'
import { COVERAGE_COST } from '../support/coverage.ts'

const ALL_HALVES = Uint16Array.from({ length: 65536 }, (_, bits) => bits)

describe('readTensor', () => {
  test('decodes every finite F16 exactly', async () => {
    const finite = ALL_HALVES.filter((bits) => (bits & 0x7c00) !== 0x7c00)
    expect(finite).toHaveLength(65536 - 2 * 1024)
    const values = await readWholeTensor(entryOf('F16', bytesOf(finite)))
    for (const [i, bits] of finite.entries()) {
      if (!Object.is(values[i], halfByDigits(bits))) expect.fail(`${bits.toString(16)}: ${values[i]} and not ${halfByDigits(bits)}`)
    }
  })

  test.each([
    [0x0000, 0],
    [0x8000, -0],
    [0x0001, 2 ** -24],
    [0x03ff, 1023 * 2 ** -24],
    [0x0400, 2 ** -14],
    [0x3555, 0.333251953125],
    [0x3c00, 1],
    [0xc000, -2],
    [0x7bff, 65504],
    [0xfbff, -65504]
  ])('decodes F16 %i as %d', async (bits, value) => {
    expect([...(await readWholeTensor(entryOf('F16', bytesOf(Uint16Array.of(bits)))))]).toEqual([value])
  })

  test('decodes every finite BF16 exactly', async () => {
    const finite = ALL_HALVES.filter((bits) => (bits & 0x7f80) !== 0x7f80)
    expect(finite).toHaveLength(65536 - 2 * 128)
    const values = await readWholeTensor(entryOf('BF16', bytesOf(finite)))
    const view = new DataView(new ArrayBuffer(4))
    for (const [i, bits] of finite.entries()) {
      view.setUint16(0, bits)
      if (!Object.is(values[i], view.getFloat32(0))) expect.fail(`${bits.toString(16)}: ${values[i]}`)
    }
  })

  test('decodes F32 exactly, subnormals and zeros of both signs included', async () => {
    const values = Float32Array.of(0, -0, 1e-45, -1e-45, 1.1754942e-38, 3.4028235e38, -1, Math.PI)
    const read = await readWholeTensor(entryOf('F32', bytesOf(values), { elementBytes: 4 }))
    expect([...read].every((value, i) => Object.is(value, values[i]))).toBe(true)
  })

  test.each([
    ['F16', 0x7c00, 0x7bff, 'Infinity'],
    ['F16', 0xfc00, 0x7bff, '-Infinity'],
    ['F16', 0x7c01, 0x7bff, 'NaN'],
    ['F16', 0xffff, 0x7bff, 'NaN'],
    ['BF16', 0x7f80, 0x7f7f, 'Infinity'],
    ['BF16', 0xff80, 0x7f7f, '-Infinity'],
    ['BF16', 0x7f81, 0x7f7f, 'NaN']
  ])('refuses the %s %i among finite ones', async (dtype, bad, good, got) => {
    for (const index of [0, 5, 2 ** 20 - 1, 2 ** 20, 2 ** 20 + 9]) {
      const elements = new Uint16Array(2 ** 20 + 10).fill(good)
      elements[index] = bad
      await expect(readWholeTensor(entryOf(dtype, bytesOf(elements)))).rejects.toMatchObject({
        name: 'CheckpointError',
        place: `file, w, element ${index}`,
        expected: 'a finite number',
        got
      })
    }
  })

  test.each([Infinity, -Infinity, NaN])('refuses the F32 %d', async (bad) => {
    const values = new Float32Array(2 ** 20 + 3).fill(3.4e38)
    values[2 ** 20 + 1] = bad
    const entry = entryOf('F32', bytesOf(values), { offset: 1, elementBytes: 4 })
    await expect(readWholeTensor(entry)).rejects.toMatchObject({ place: 'file, w, element 1048577', got: String(bad) })
  })

  test('refuses an NaN before its slice is given to anyone', async () => {
    const elements = new Uint16Array(2 ** 20 + 10)
    elements[2 ** 20 + 1] = 0x7fc0
    const firsts: number[] = []
    await expect(readTensor(entryOf('BF16', bytesOf(elements)), { onSlice: (_, first) => void firsts.push(first) })).rejects.toThrow('NaN')
    expect(firsts).toEqual([0])
  })

  test.each(['F64', 'I64', 'I32', 'U8', 'BOOL', 'F8_E4M3'])('refuses %s as unsupported', async (dtype) => {
    await expect(readWholeTensor(entryOf(dtype, new Uint8Array(16), { elementBytes: 8 }))).rejects.toMatchObject({
      name: 'UnsupportedError',
      place: 'file, w',
      got: dtype
    })
  })

  test.each([
    ['F32', 4, 0],
    ['F32', 4, 3],
    ['F16', 2, 0],
    ['BF16', 2, 1]
  ])('gives %s in slices of at most 4 MiB, in order, once each (start %i %i)', async (dtype, elementBytes, offset) => {
    const n = 2 ** 21 + 5
    const elements = elementBytes === 4 ? Float32Array.from({ length: n }, (_, i) => i % 2048) : Uint16Array.from({ length: n }, (_, i) => i % 0x7000)
    const entry = entryOf(dtype, bytesOf(elements), { offset, elementBytes })
    const reads: number[] = []
    const source = { ...entry.source, read: (start: number, end: number) => (reads.push(end - start), entry.source.read(start, end)) }
    let next = 0
    const firstValues: number[] = []
    await readTensor({ ...entry, source }, {
      onSlice: (values, first) => {
        expect(first).toBe(next)
        expect(values.byteLength).toBeLessThanOrEqual(4 * 2 ** 20)
        firstValues.push(values[0])
        next = first + values.length
      }
    })
    expect(next).toBe(n)
    expect(reads).toEqual([2 ** 20, 2 ** 20, 5].map((count) => count * elementBytes))
    const last = await readWholeTensor({ ...entry, shape: [5], start: offset + 2 ** 21 * elementBytes, byteLength: 5 * elementBytes })
    expect(firstValues[2]).toBe(last[0])
  })

  test.each([
    ['F32', 4, Float32Array.of(1, 2, NaN, 4)],
    ['F16', 2, Uint16Array.of(1, 2, 0x7c00, 4)],
    ['BF16', 2, Uint16Array.of(1, 2, 0xff80, 4)]
  ])('gives %s as stored, without values, and checks it all the same', async (dtype, elementBytes, elements) => {
    const bytes = bytesOf(elements.slice(0, 2))
    const slices: unknown[] = []
    await readTensor(entryOf(dtype, bytes, { elementBytes }), { asStored: true, onSlice: (values, first, stored) => void slices.push(values.length, first, stored) })
    expect(slices).toEqual([0, 0, bytes])
    const bad = readTensor(entryOf(dtype, bytesOf(elements), { elementBytes }), { asStored: true, onSlice: () => {} })
    await expect(bad).rejects.toMatchObject({ place: 'file, w, element 2', got: dtype === 'F32' ? 'NaN' : dtype === 'F16' ? 'Infinity' : '-Infinity' })
  })

  test.each([['Q8_0', 34], ['Q4_0', 18]])('checks the scales of %s as stored', async (dtype, blockBytes) => {
    const bytes = new Uint8Array(3 * blockBytes)
    const read = async (): Promise<void> => {
      const entry = { ...entryOf(dtype, bytes), shape: [96] }
      await readTensor(entry, { asStored: true, onSlice: (values, _, stored) => { expect([values.length, stored.length]).toEqual([0, bytes.length]) } })
    }
    await read()
    // The second block's scale is infinite, and so is its first weight of 1 (Q8_0) or −8 (Q4_0).
    bytes[blockBytes + 1] = 0x7c
    bytes[blockBytes + 2] = dtype === 'Q8_0' ? 1 : 0
    await expect(read()).rejects.toMatchObject({ place: 'file, w, element 32', got: dtype === 'Q8_0' ? 'Infinity' : '-Infinity' })
  })

  test('uses the memory that it is given, one after the other', async () => {
    const memory = createSliceMemory()
    const reads: (Uint8Array | undefined)[] = []
    for (const count of [6, 3, 8]) {
      const entry = entryOf('F16', bytesOf(Uint16Array.from({ length: count }, (_, i) => 0x3c00 + i)))
      const source = { ...entry.source, read: async (start: number, end: number, _: unknown, into?: Uint8Array) => {
        reads.push(into)
        into?.set(await entry.source.read(start, end))
        return into?.subarray(0, end - start) ?? entry.source.read(start, end)
      } }
      let seen: number[] = []
      await readTensor({ ...entry, source }, { memory, onSlice: (values) => void (seen = [...values]) })
      expect(seen).toEqual([...(await readWholeTensor(entry))])
    }
    expect(reads.map((bytes) => bytes?.length)).toEqual([12, 6, 16])
    expect(reads[1]?.buffer).toBe(reads[0]?.buffer)
    expect(reads[2]?.buffer).not.toBe(reads[0]?.buffer)
  })

  test('leaves the file as it was', async () => {
    const bytes = bytesOf(Uint16Array.from({ length: 1000 }, (_, i) => i))
    const before = bytes.slice()
    await readWholeTensor({ ...entryOf('F16', bytes), source: bytesSource(bytes) })
    expect(bytes).toEqual(before)
  })

  test('reads an empty tensor and a scalar', async () => {
    expect(await readWholeTensor(entryOf('F32', new Uint8Array(0), { elementBytes: 4 }))).toHaveLength(0)
    expect([...(await readWholeTensor({ ...entryOf('F16', Uint8Array.of(0, 0x3c)), shape: [] }))]).toEqual([1])
  })

  test('stops when aborted, with the reason', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    let slices = 0
    const onSlice = (): void => {
      slices++
      controller.abort(reason)
    }
    const entry = entryOf('F32', new Uint8Array(12 * 2 ** 20), { elementBytes: 4 })
    await expect(readTensor(entry, { signal: controller.signal, onSlice })).rejects.toBe(reason)
    expect(slices).toBe(1)
  })

  test('decodes at speed: a tenth of what a quiet machine does will do', async () => {
    const n = 2 ** 24
    for (const [dtype, elementBytes] of [['F32', 4], ['F16', 2], ['BF16', 2]] as const) {
      const elements = elementBytes === 4 ? new Float32Array(n).fill(0.25) : new Uint16Array(n).fill(0x2345)
      const entry = entryOf(dtype, bytesOf(elements), { elementBytes })
      let bestMs = Infinity
      for (let run = 0; run < 3; run++) {
        const start = performance.now()
        await readTensor(entry, { onSlice: () => {} })
        bestMs = Math.min(bestMs, performance.now() - start)
      }
      expect(n / (bestMs / 1000), dtype).toBeGreaterThan(20e6 / COVERAGE_COST)
    }
  })
})

function bytesOf(elements: Uint16Array | Float32Array): Uint8Array {
  return new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength)
}

/** Another way to the value of a half: its digits, read as a binary fraction. */
function halfByDigits(bits: number): number {
  const digits = bits.toString(2).padStart(16, '0')
  const exponent = Number.parseInt(digits.slice(1, 6), 2)
  const significand = Number.parseInt((exponent === 0 ? '0' : '1') + digits.slice(6), 2) / 1024
  return (digits[0] === '1' ? -1 : 1) * significand * 2 ** (Math.max(exponent, 1) - 15)
}
