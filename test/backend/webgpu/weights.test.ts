/** Matrices on their way to GPU memory: in pieces of any size, and in parts where a binding could not hold them. */
import { describe, expect, test } from 'vitest'
import { createReferenceBackend } from '../../../src/backend/reference/reference-backend.ts'
import { factsOf } from '../../../src/backend/webgpu/device.ts'
import { createWebGpuBackend } from '../../../src/backend/webgpu/webgpu-backend.ts'
import { boundBytes, createWeightWriter, layoutBytes, matrixParts, rowForm, type WeightLayout } from '../../../src/backend/webgpu/weights.ts'
import { ProgramBuilder } from '../../../src/program/builder.ts'
import { elementsIn, FORMATS, type WeightFormat } from '../../../src/program/formats.ts'
import { elementsOf } from '../../../src/program/ops.ts'
import { gpuDevice } from '../../support/gpu.ts'
import { createNumbers } from '../../support/numbers.ts'
import { segment } from '../../support/op-rig.ts'
import { randomWeights } from '../../support/weights.ts'

describe.each(Object.keys(FORMATS) as WeightFormat[])('a matrix in %s', (format) => {
  const { blockElements } = FORMATS[format]

  test.each([1, 3, 4])('pieces of any size, in any order, give the same bytes: %i blocks a row', (nBlocks) => {
    const numbers = createNumbers(nBlocks)
    const [nRows, nIn] = [7, nBlocks * blockElements]
    const layout: WeightLayout = { kind: 'matrix', format, nRows, nIn }
    const { data } = randomWeights(numbers, format, nRows * nIn)
    const imageOf = (parts: readonly number[], isReversed: boolean): Uint8Array => {
      const write = createWeightWriter(layout)
      const image = new Uint8Array(layoutBytes(layout))
      let block = 0
      const pieces = parts.map((count) => {
        const size = data.length / (nRows * nBlocks)
        const piece = { values: data.subarray(block * size, (block + count) * size), first: block * blockElements }
        block += count
        return piece
      })
      for (const { values, first } of isReversed ? pieces.toReversed() : pieces) {
        expect(elementsIn(format, values)).toBe(values.length === 0 ? 0 : values.length / data.length * nRows * nIn)
        const { offset, bytes } = write(values, first)
        expect([offset % 4, bytes.length % 4]).toEqual([0, 0])
        image.set(bytes, offset)
      }
      return image
    }
    const whole = imageOf([nRows * nBlocks], false)
    expect(whole.some((byte) => byte !== 0)).toBe(true)
    for (const isReversed of [false, true]) expect(imageOf(numbers.parts(nRows * nBlocks, 5), isReversed)).toEqual(whole)
  })
})

test('parts: as few as fit, each but the last of whole 256 bytes', () => {
  expect(matrixParts(100, 1, 1600)).toEqual([{ firstRow: 0, nRows: 100 }])
  expect(matrixParts(100, 1, 1599)).toEqual([{ firstRow: 0, nRows: 96 }, { firstRow: 96, nRows: 4 }])
  expect(matrixParts(40, 2, 512)).toEqual([{ firstRow: 0, nRows: 16 }, { firstRow: 16, nRows: 16 }, { firstRow: 32, nRows: 8 }])
  expect(() => matrixParts(40, 2, 511)).toThrow(RangeError)
  const layout: WeightLayout = { kind: 'matrix', format: 'f32', nRows: 20, nIn: 4 }
  expect(boundBytes([layout, layout], 1, 511)).toEqual({ start: 16 * 16, end: 32 * 16 })
  expect(rowForm('f32', 4).rowUnits).toBe(1)
})

test.each([true, false])('embed, linear and expertLinear on matrices in parts, kernels of a software GPU: %s', async (isSoftware) => {
  const builder = new ProgramBuilder()
  const [width, nOut, nExperts, topK, nRows] = [64, 150, 3, 2, 20]
  const [x, y, z, choices] = [builder.buffer('x', width), builder.buffer('y', nOut), builder.buffer('z', topK * 50), builder.buffer('choices', 2 * topK)]
  const weight = builder.parameter('weight', [nOut, width])
  const experts = Array.from({ length: nExperts }, (_, i) => builder.parameter(`expert${i}`, [50, width]))
  builder.add({ kind: 'embed', weight, out: x })
  builder.add({ kind: 'linear', x, weight, bias: builder.parameter('bias', [nOut]), accumulate: false, out: y })
  builder.add({ kind: 'expertLinear', x, isPerChoice: false, choices, topK, nExperts, weights: experts, out: z })
  const program = builder.build(null, nOut)
  const capacity = { maxRows: nRows, maxLogitRows: 1, nSlots: 1, contextLength: 0 }
  const reference = createReferenceBackend(program, capacity, 'test')
  const device = await gpuDevice()
  const gpu = await createWebGpuBackend(program, capacity, {
    device, ownsDevice: false, reason: 'test', facts: { ...factsOf(device), isSoftware, maxBindingBytes: 10_000 }
  })
  expect(gpu.memory.placesOf(weight).length).toBeGreaterThan(1)
  expect(new Set(experts.flatMap((expert) => gpu.memory.placesOf(expert).map(({ buffer }) => buffer))).size).toBeGreaterThan(1)
  const numbers = createNumbers(1)
  for (const parameter of program.parameters) {
    const { data, values } = randomWeights(numbers, gpu.formatOf(parameter), elementsOf(parameter.shape))
    reference.write(parameter, values, 0)
    await gpu.write(parameter, data, 0)
  }
  const tokens = Int32Array.from({ length: nRows }, (_, i) => (i * 37) % nOut)
  const chosen = Float32Array.from({ length: nRows * 2 * topK }, (_, i) => [i % 3 === 0 ? 0 : 1, 2, 0.5, 0.5][i % 4])
  for (const count of [1, nRows]) {
    const batch = { tokens: tokens.slice(0, count), segments: [segment(0, 0, count)] }
    for (const backend of [reference, gpu]) {
      backend.begin(batch)
      backend.writeView(choices, chosen.slice(0, count * 2 * topK))
      await backend.run(0, 3)
    }
    for (const view of [x, y, z]) {
      const [got, want] = [await gpu.readView(view), reference.readView(view)]
      want.forEach((value, i) => expect(Math.abs(got[i] - value), `${view.buffer.name}, element ${i}`).toBeLessThan(1e-5))
    }
  }
  await gpu.dispose()
})
