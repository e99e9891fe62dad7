/** Products with matrices of every format on a GPU against the float64 reference, around the sizes of tiles, teams and batches. */
import { describe, expect, test } from 'vitest'
import type { Segment } from '../../../src/backend/backend.ts'
import { factsOf } from '../../../src/backend/webgpu/device.ts'
import { probeHalves } from '../../../src/backend/webgpu/halves.ts'
import { isBlockFormat } from '../../../src/ggml-blocks.ts'
import { columns, type ProgramBuilder } from '../../../src/program/builder.ts'
import { FORMATS, type WeightFormat } from '../../../src/program/formats.ts'
import type { View } from '../../../src/program/ops.ts'
import { gpuDevice } from '../../support/gpu.ts'
import { createRig, type OpSpec, type RigKind, segment } from '../../support/op-rig.ts'
import { compareGpu } from '../../support/op-sweep.ts'

const FORMAT_NAMES = Object.keys(FORMATS) as readonly WeightFormat[]
const capacity = { maxRows: 72, maxLogitRows: 20, nSlots: 1, contextLength: 0 }
/** Sums of some hundred products of about 1, some of them in float32 one after the other. */
const LIMITS = { tolerance: 2e-6, size: 1 }

function inset(builder: ProgramBuilder, name: string, width: number, rows: View['buffer']['rows']): View {
  return columns(builder.buffer(name, 3 + width + 2, rows), 3, width)
}

interface Form {
  readonly format: WeightFormat
  readonly nOut: number
  readonly nIn: number
  readonly isPlain?: boolean
  readonly rows?: View['buffer']['rows']
  readonly maxRows?: number
}

/** With a bias, added to what is there, on views within wider buffers; or without all that. */
function linearSpec({ format, nOut, nIn, isPlain = false, rows = 'token', maxRows = capacity.maxRows }: Form): OpSpec {
  return {
    seed: 100 * nOut + nIn, format, capacity: { ...capacity, maxRows },
    build: (builder) => ({
      kind: 'linear', accumulate: !isPlain, weight: builder.parameter('weight', [nOut, nIn]),
      x: isPlain ? builder.buffer('x', nIn, rows) : inset(builder, 'x', nIn, rows), bias: isPlain ? null : builder.parameter('bias', [nOut]),
      out: isPlain ? builder.buffer('out', nOut, rows) : inset(builder, 'out', nOut, rows)
    })
  }
}

function compare(form: Form, rows: readonly (number | Segment)[], kind: RigKind = 'webgpu'): Promise<number> {
  const batches = rows.map((row) => [typeof row === 'number' ? segment(0, 0, row) : row])
  return compareGpu(linearSpec(form), batches, { ...LIMITS, kind, place: `${form.format}, ${form.nIn} inputs, ${form.nOut} outputs` })
}

const ROWS = [1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 31, 32, 33, 65]
/** One for each way of reading: words, halves, bytes, nibbles, with minima. */
const FORMS = ['f32', 'f16', 'q8_0', 'q4_0', 'q4_k'] as const

test.each(FORMAT_NAMES)('linear, %s: rows around the batches and tiles', async (format) => {
  const { blockElements } = FORMATS[format]
  const error = await compare({ format, nOut: 33, nIn: blockElements === 1 ? 99 : Math.max(96, blockElements) }, FORMS.some((form) => form === format) ? ROWS : [1, 3, 9])
  console.log(`linear ${format}: largest error ${error.toExponential(1)}`)
  expect(error).toBeLessThan(LIMITS.tolerance)
})

test.each(FORMS)('linear, %s: outputs and inputs around the tiles', async (format) => {
  const { blockElements } = FORMATS[format]
  const inputs = blockElements === 256 ? [256, 512] : blockElements === 32 ? [32, 480] : [1, 30, 259]
  for (const [i, nOut] of [1, 32, 65].entries()) await compare({ format, nOut, nIn: inputs[i % inputs.length], isPlain: i % 2 === 0 }, [1, 34])
})

// kernels/plans.ts: up to 16 rows, and 32, where 128 tiles of 16 × 32 are not enough for the outputs.
test.each(['f32', 'q8_0', 'q4_0'] as const)('%s by tiles of 16 × 32 and of 32 × 32', async (format) => {
  await compare({ format, nOut: 4097, nIn: format === 'f32' ? 70 : 96 }, [9, 15, 16, 17, 33])
})

// 64 × 64 outputs from 33 rows on where that gives a GPU work enough, and 128 × 128 where those do.
test('tiles of 64 × 64: rows and inputs around them', async () => {
  await compare({ format: 'f32', nOut: 8201, nIn: 19 }, [63, 65])
  await compare({ format: 'q8_0', nOut: 8201, nIn: 32, isPlain: true }, [65])
})

test('tiles of 128 × 128: rows and inputs around them', async () => {
  await compare({ format: 'f32', nOut: 24_577, nIn: 5, maxRows: 129 }, [33, 129])
})

test.each(['f32', 'q4_k'] as const)('%s on the least device: sums through workgroup memory', async (format) => {
  await compare({ format, nOut: 33, nIn: format === 'f32' ? 99 : 256 }, [1, 3, 8, 9, 65], 'webgpu least')
})

test('many outputs: teams that have several', async () => {
  await compare({ format: 'f32', nOut: 1027, nIn: 70 }, [1, 5])
  await compare({ format: 'q8_0', nOut: 1024, nIn: 64 }, [1])
})

test('long rows: inputs that come to workgroup memory in pieces', async () => {
  await compare({ format: 'f32', nOut: 10, nIn: 5001 }, [1, 4, 8, 20])
  await compare({ format: 'q8_0', nOut: 10, nIn: 5120 }, [1, 7])
})

// Only a device that the probe finds exact reads its halves so; a software one is not asked otherwise.
test.each(['f16', 'q8_0', 'q4_k'] as const)('%s with halves as the device unpacks them', async (format) => {
  const device = await gpuDevice()
  await probeHalves(device)
  const { unpacksHalves } = factsOf(device)
  console.log(`unpacks halves exactly: ${unpacksHalves}`)
  await compareGpu({ ...linearSpec({ format, nOut: 33, nIn: 512 }), facts: { unpacksHalves } }, [[segment(0, 0, 1)], [segment(0, 0, 9)]], { ...LIMITS, place: format })
})

// Of one row, where there are subgroups, too.
test.each(FORMAT_NAMES.filter(isBlockFormat))('%s by products of bytes and without them', async (format) => {
  const { dotsBytes, subgroup } = factsOf(await gpuDevice())
  console.log(`products of bytes: ${dotsBytes}, subgroups: ${JSON.stringify(subgroup)}`)
  for (const facts of [{ dotsBytes }, { dotsBytes: false }]) {
    for (const [nIn, nOut] of [[256, 33], [8448, 10], [512, 1027]]) {
      await compareGpu({ ...linearSpec({ format, nOut, nIn }), facts }, [[segment(0, 0, 1)], [segment(0, 0, 2)]], { ...LIMITS, place: `${format}, ${nIn} inputs` })
    }
  }
})

/** Many and few outputs: teams of different sizes. */
const NOT_FINITE = [[512, 1027], [256, 33]] as const

test.each(FORMAT_NAMES.filter(isBlockFormat))('%s: infinities and NaN among the inputs', async (format) => {
  for (const special of [Infinity, -Infinity, NaN]) {
    for (const [nIn, nOut] of NOT_FINITE) {
      const spec: OpSpec = { ...linearSpec({ format, nOut, nIn, isPlain: true }), fills: { x: (numbers, row, column) => (row === 0 && column === 77 ? special : numbers.float(-1, 1)) } }
      const { changed } = await (await createRig('webgpu', spec)).run([segment(0, 0, 1)])
      const outputs = changed.get('out') ?? expect.fail('no outputs')
      expect(outputs.length).toBe(nOut)
      expect(outputs.filter((value) => Number.isFinite(value)), `${special} among ${nIn} inputs`).toHaveLength(0)
    }
  }
})

test('rows whose logits are asked for', async () => {
  await compare({ format: 'f16', nOut: 40, nIn: 24, rows: 'logit' }, [segment(0, 0, 60, 'last'), segment(0, 0, 12, 'all'), segment(0, 0, 5, 'none')])
})

describe.each(FORMAT_NAMES)('embed, %s', (format) => {
  test('widths that are no multiples of four too', async () => {
    const { blockElements } = FORMATS[format]
    for (const width of blockElements === 1 ? [1, 7, 66] : [blockElements, 3 * blockElements]) {
      const spec: OpSpec = {
        seed: width, format, vocabSize: 300, capacity,
        build: (builder) => ({ kind: 'embed', weight: builder.parameter('weight', [300, width]), out: inset(builder, 'out', width, 'token') })
      }
      // Numbers as they are, but for scales and minima: those are added in one rounding or in two.
      const error = await compareGpu(spec, [[segment(0, 0, 1)], [segment(0, 0, 71)]], { tolerance: 1e-7, place: `width ${width}` })
      if (blockElements === 1) expect(error).toBe(0)
    }
  })
})
