/** Matrices of experts in panels of their own: as each of them alone is packed, whatever the slices in which they come. */
import { describe, expect, test } from 'vitest'
import { packBlocks } from '../../src/backend/wasm/pack-blocks.ts'
import { pack as packValues, packedBytes, type PackedLayout, type PanelForm } from '../../src/backend/wasm/packing.ts'
import { blockFormOf } from '../../src/backend/wasm/panel-blocks.ts'
import type { CoreExports } from '../../src/backend/wasm/wasm-backend.ts'
import { isBlockFormat } from '../../src/ggml-blocks.ts'
import { coreImports } from '../../src/core-imports.ts'
import { platform } from '../../src/platform/node.ts'
import { FORMATS, type WeightData, type WeightFormat } from '../../src/program/formats.ts'
import { openModel } from '../support/backends.ts'
import { fixtureModel } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'
import { randomWeights } from '../support/weights.ts'

function pack(layout: PackedLayout, target: Uint8Array, values: WeightData, first: number): void {
  if (layout.kind !== 'panels' || !isBlockFormat(layout.format)) packValues(layout, target, values, first)
  else packBlocks(layout, target, new Uint8Array(values.buffer, values.byteOffset, values.byteLength), first)
}

/** Elements [first, end) of values in a format. */
function slice(format: WeightFormat, data: WeightData, first: number, end: number): WeightData {
  const { blockElements, blockBytes } = FORMATS[format]
  return data.subarray(...[first, end].map((element) => ((element / blockElements) * blockBytes) / data.BYTES_PER_ELEMENT))
}

/** Every format in every form that a build has for it. */
const FORMS = (Object.keys(FORMATS) as WeightFormat[]).flatMap((format): [WeightFormat, PanelForm][] => {
  if (!isBlockFormat(format)) return [[format, format]]
  return [...new Set([blockFormOf(format, false), blockFormOf(format, true)])].map((form) => [format, form])
})

describe.each(FORMS)('%s as %s', (format, form) => {
  test.each([1, 5, 8, 11, 16])('three matrices of %i rows', (nOut) => {
    const unit = Math.max(32, FORMATS[format].blockElements)
    const nIn = 3 * unit
    const { data } = randomWeights(createNumbers(nOut), format, 3 * nOut * nIn)
    const layoutOf = (nMatrices: number): PackedLayout => ({ kind: 'panels', format, form, nMatrices, nOut, nIn })
    const bytes = packedBytes(layoutOf(1))
    expect(packedBytes(layoutOf(3))).toBe(3 * bytes)
    const want = new Uint8Array(3 * bytes)
    for (let i = 0; i < 3; i++) {
      pack(layoutOf(1), want.subarray(i * bytes, (i + 1) * bytes), slice(format, data, i * nOut * nIn, (i + 1) * nOut * nIn), 0)
    }
    // Whole, in blocks, and in slices that end within rows and span matrices.
    for (const step of [3 * nOut * nIn, unit, 5 * unit, nOut * nIn + 2 * unit]) {
      const got = new Uint8Array(3 * bytes)
      for (let first = 0; first < 3 * nOut * nIn; first += step) pack(layoutOf(3), got, slice(format, data, first, Math.min(3 * nOut * nIn, first + step)), first)
      expect(Buffer.compare(got, want), `slices of ${step}`).toBe(0)
    }
  })
})

describe.each([['scalar', 'q8'], ['simd', 'q8'], ['simd-dot', 'q8Dot'], ['simd-relaxed', 'q8Dot']] as const)('Q8_0 by the %s build', (build, form) => {
  test.each([1, 5, 8, 11, 16])('three matrices of %i rows, as in TypeScript', async (nOut) => {
    const [nIn, rowBlocks] = [96, 3]
    const layout: PackedLayout = { kind: 'panels', format: 'q8_0', form, nMatrices: 3, nOut, nIn }
    const { data } = randomWeights(createNumbers(nOut), 'q8_0', 3 * nOut * nIn)
    // Scales of either sign, subnormal ones and zero among them.
    const scales = [0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0xfbff]
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
    for (let block = 0; block < bytes.length / 34; block++) new DataView(bytes.buffer, bytes.byteOffset).setUint16(34 * block, scales[block % scales.length], true)
    const want = new Uint8Array(packedBytes(layout))
    pack(layout, want, bytes, 0)
    const memory = new WebAssembly.Memory({ initial: 8 })
    const { packQ80 } = new WebAssembly.Instance(await platform.wasmModule(build), coreImports(memory)).exports as Pick<CoreExports, 'packQ80'>
    const [source, panels] = [2 * 65536, 4 * 65536]
    // Whole, block by block, and in slices that end within rows and span matrices.
    for (const step of [9 * nOut, 1, 5, nOut * rowBlocks + 2]) {
      const got = new Uint8Array(memory.buffer, panels, want.length).fill(0)
      for (let block = 0; block < bytes.length / 34; block += step) {
        const slice = bytes.subarray(34 * block, 34 * (block + step))
        new Uint8Array(memory.buffer).set(slice, source)
        packQ80(source, slice.length / 34, panels, nOut, nIn, block)
      }
      expect(Buffer.compare(got, want), `slices of ${step} blocks`).toBe(0)
    }
  })
})

test('experts are large matrices: a dtype is theirs too', async () => {
  const model = await openModel(fixtureModel('granitemoehybrid_moe'))
  const backend = await model.load('simd', { maxRows: 4, maxLogitRows: 4, nSlots: 1, contextLength: 8 }, 'q8_0')
  const experts = model.program.parameters.filter(({ shape }) => shape.length === 3 && shape[1] > 1)
  expect(experts.length).toBeGreaterThan(0)
  // Rows of 24 are no whole blocks.
  for (const parameter of experts) expect(backend.formatOf(parameter), parameter.name).toBe(parameter.shape[2] % 32 === 0 ? 'q8_0' : 'f32')
  expect(experts.map((parameter) => backend.formatOf(parameter))).toContain('q8_0')
})
