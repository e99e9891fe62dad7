/** The random model is the reference's at its first step: what the times of the benchmarks rest on. */
import { describe, expect, test } from 'vitest'
import { createRandomBackend, createRandomModel, MAMBA_130M } from '../../bench/random-model.ts'
import { elementsOf } from '../../src/program/ops.ts'

const model = createRandomModel({ vocabSize: 1000, dModel: 128, nLayers: 4 })

function valuesOf(name: string, of = model): Float32Array {
  const parameter = of.program.parameters.find((candidate) => candidate.name === `backbone.${name}`)
  if (parameter === undefined) throw new Error(`no ${name}`)
  const all = new Float32Array(elementsOf(parameter.shape))
  let count = 0
  for (const { values, first } of of.values(parameter)) {
    expect(first).toBe(count)
    all.set(values, first)
    count += values.length
  }
  expect(count).toBe(all.length)
  return all
}

function statistics(values: Float32Array): { mean: number; deviation: number; largest: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length
  return { mean, deviation: Math.sqrt(variance), largest: values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) }
}

/** Uniform in ±limit: deviation limit / √3. */
function expectUniform(values: Float32Array, limit: number): void {
  const { mean, deviation, largest } = statistics(values)
  expect(largest).toBeLessThanOrEqual(limit)
  expect(largest).toBeGreaterThan(0.95 * limit)
  expect(Math.abs(mean)).toBeLessThan((4 * limit) / Math.sqrt(3 * values.length))
  expect(deviation / (limit / Math.sqrt(3))).toBeCloseTo(1, 1)
}

describe('weights', () => {
  test('the embedding is normal with deviation 0.02', () => {
    const values = valuesOf('embeddings.weight')
    const { mean, deviation } = statistics(values)
    expect(Math.abs(mean)).toBeLessThan(0.001)
    expect(deviation).toBeCloseTo(0.02, 3)
    const within = (limit: number): number => values.filter((value) => Math.abs(value) < limit).length / values.length
    expect([within(0.02), within(0.04), within(0.06)].map((part) => part.toFixed(2))).toEqual(['0.68', '0.95', '1.00'])
  })

  test('matrices are uniform within 1 / √inputs, out_proj divided by √layers', () => {
    expectUniform(valuesOf('layers.0.mixer.in_proj.weight'), 1 / Math.sqrt(128))
    expectUniform(valuesOf('layers.1.mixer.x_proj.weight'), 1 / Math.sqrt(256))
    expectUniform(valuesOf('layers.2.mixer.dt_proj.weight'), 1 / Math.sqrt(8))
    expectUniform(valuesOf('layers.3.mixer.out_proj.weight'), 1 / Math.sqrt(256) / 2)
    expectUniform(valuesOf('layers.0.mixer.conv1d.weight'), 0.5)
    expectUniform(valuesOf('layers.0.mixer.conv1d.bias'), 0.5)
  })

  test('softplus of the dt bias is uniform in its logarithm from 0.001 to 0.1', () => {
    const logs = valuesOf('layers.0.mixer.dt_proj.bias').map((bias) => Math.log10(Math.log1p(Math.exp(bias))))
    expect(Math.min(...logs)).toBeGreaterThan(-3.001)
    expect(Math.max(...logs)).toBeLessThan(-0.999)
    expectUniform(logs.map((value) => value + 2), 1.001)
  })

  test('A_log is log(1), log(2), … for each channel; D and the norms are 1', () => {
    const aLog = valuesOf('layers.2.mixer.A_log')
    expect([0, 1, 15, 16, 4095].map((i) => aLog[i])).toEqual([1, 2, 16, 1, 16].map((n) => Math.fround(Math.log(n))))
    for (const name of ['layers.1.mixer.D', 'layers.1.norm.weight', 'norm_f.weight']) expect(new Set(valuesOf(name))).toEqual(new Set([1]))
  })

  test('are the same for a seed, and others for another', () => {
    const again = createRandomModel({ vocabSize: 1000, dModel: 128, nLayers: 4 })
    const other = createRandomModel({ vocabSize: 1000, dModel: 128, nLayers: 4 }, 2)
    const name = 'layers.3.mixer.in_proj.weight'
    expect(valuesOf(name, again)).toEqual(valuesOf(name))
    expect(valuesOf(name, other)).not.toEqual(valuesOf(name))
  })
})

test('mamba-130m has the parameters of mamba-130m', () => {
  const { program, config } = createRandomModel(MAMBA_130M)
  expect(program.parameters.reduce((sum, { shape }) => sum + elementsOf(shape), 0)).toBe(129_135_360)
  expect(config).toMatchObject({ dInner: 1536, dState: 16, dConv: 4, dtRank: 48, tieEmbeddings: true })
})

test('a model runs in every format: finite logits, near to those of f32, and no state that dies or grows', async () => {
  const logits = new Map<string, Float32Array>()
  for (const format of ['f32', 'bf16', 'f16', 'q8_0', 'q4_0'] as const) {
    const backend = await createRandomBackend(model, { format, threads: 1, capacity: { maxRows: 64, maxLogitRows: 1, nSlots: 1, contextLength: 0 } })
    const values = new Float32Array(1000)
    const tokens = Int32Array.from({ length: 64 }, (_, i) => (i * 37) % 1000)
    await backend.forward({ tokens, segments: [{ slot: 0, position: 0, firstRow: 0, nRows: 64, logits: 'last' }] }, values)
    logits.set(format, values)
    const state = (await backend.readState(0, 64)).map(Math.abs).sort()
    expect(state[state.length - 1]).toBeLessThan(100)
    // Half of them are far from the subnormals, of which there are none.
    expect(state[state.length >> 1]).toBeGreaterThan(1e-6)
    expect(state.filter((value) => value > 0 && value < 1.2e-38).length).toBe(0)
    await backend.dispose()
  }
  const { deviation } = statistics(logits.get('f32') ?? new Float32Array(1))
  expect(deviation).toBeGreaterThan(0.01)
  for (const [format, limit] of [['bf16', 0.05], ['f16', 0.01], ['q8_0', 0.05], ['q4_0', 0.6]] as const) {
    const difference = statistics((logits.get(format) ?? new Float32Array(0)).map((value, i) => value - (logits.get('f32')?.[i] ?? NaN)))
    expect(difference.deviation / deviation, format).toBeLessThan(limit)
    expect(difference.deviation, format).toBeGreaterThan(0)
  }
})
