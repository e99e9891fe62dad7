/** The models of test/fixtures on a GPU against transformers' numbers: logits, hidden states, greedy tokens. */
import { describe, expect, test } from 'vitest'
import type { Best } from '../../../src/backend/backend.ts'
import type { WebGpuBackend } from '../../../src/backend/webgpu/webgpu-backend.ts'
import { createEngine } from '../../../src/engine.ts'
import { batchOf, openModel } from '../../support/backends.ts'
import { relativeError, scientific } from '../../support/compare.ts'
import { fixtureModel, idsOf, readGolden } from '../../support/fixtures.ts'
import { GPUS } from '../../support/gpu.ts'

/** Of the largest logit, as in WebAssembly. */
const TOLERANCE = 1e-5

/** With the weights of another fixture. */
const COPIES: Readonly<Record<string, string>> = { mamba_sharded: 'mamba', mamba_original: 'mamba' }
/** Goldens without hidden states and greedy tokens. */
const LOGITS_ONLY = ['mamba_bf16', 'mamba_f16']
const WITH_SSD = ['mamba2', 'mamba2_groups', 'bamba', 'falcon_h1', 'granitemoehybrid', 'granitemoehybrid_moe', 'nemotron_h', 'zamba2']
const MODELS = ['mamba', 'mamba_bias_untied', 'mamba_bf16', 'mamba_f16', 'falcon_mamba', 'jamba', ...WITH_SSD, ...Object.keys(COPIES)]

test('there is a golden for each', () => {
  for (const name of MODELS) expect(readGolden(`${fixtureModel(COPIES[name] ?? name)}/golden.safetensors`).has('logits'), name).toBe(true)
})

// Compiling takes a software GPU seconds for each model, and more where others use the machine.
describe.each(GPUS)('%s', { timeout: 180_000 }, () => {
  test.each(MODELS)('%s', async (name) => {
    const golden = readGolden(`${fixtureModel(COPIES[name] ?? name)}/golden.safetensors`)
    const { shape: [nSequences, length], data: tokens } = golden.ints('input_ids')
    const wanted = golden.floats('logits').data
    const capacity = { maxRows: tokens.length, maxLogitRows: tokens.length, nSlots: nSequences, contextLength: Math.max(length, 64) }
    const model = await openModel(fixtureModel(name))
    const logitsOf = async (backend: WebGpuBackend): Promise<Float32Array> => {
      for (let slot = 0; slot < nSequences; slot++) await backend.clearState(slot)
      const logits = new Float32Array(wanted.length)
      await backend.forward(batchOf(tokens, nSequences), logits)
      return logits
    }

    const backend = await model.loadGpu(capacity)
    const errors: Record<string, number> = { logits: relativeError(await logitsOf(backend), wanted) }
    if (WITH_SSD.includes(name)) {
      const chunked = await model.loadGpu(capacity, { ssd: 'chunked' })
      errors['logits, chunked'] = relativeError(await logitsOf(chunked), wanted)
      await chunked.dispose()
    }
    if (!LOGITS_ONLY.includes(name)) {
      for (let slot = 0; slot < nSequences; slot++) await backend.clearState(slot)
      backend.begin(batchOf(tokens, nSequences))
      let done = 0
      for (const mark of model.program.marks) {
        await backend.run(done, mark.opIndex)
        done = mark.opIndex
        errors['hidden states'] = Math.max(errors['hidden states'] ?? 0, relativeError(await backend.readView(mark.view), golden.floats(mark.name).data))
      }
    }
    console.log(`${name}, webgpu: ${Object.entries(errors).map(([what, error]) => `${what} ${scientific(error)}`).join(', ')} of the largest`)
    for (const [what, error] of Object.entries(errors)) expect(error, what).toBeLessThanOrEqual(TOLERANCE)
    if (golden.has('greedy_ids')) {
      const wantedIds = Array.from(idsOf(golden.ints('greedy_ids'), 0))
      expect(await greedyIds(backend, idsOf(golden.ints('greedy_prompt'), 0), wantedIds.length), 'greedy tokens').toEqual(wantedIds)
    }
    await backend.dispose()
  })
})

/** The likeliest token each time, found by the GPU and read by an engine as a user's calls are. */
async function greedyIds(backend: WebGpuBackend, prompt: Int32Array, count: number): Promise<number[]> {
  const engine = createEngine(backend)
  const sequence = engine.sequence()
  const ids: number[] = []
  const onBest = ({ id }: Best): void => void ids.push(id)
  await engine.run(sequence, prompt, 'last', { onBest, goesOn: true })
  while (ids.length < count) await engine.run(sequence, Int32Array.of(ids[ids.length - 1]), 'last', { onBest, goesOn: true })
  return ids
}
