/** The models of test/fixtures against transformers' numbers, block by block and as a whole. */
import { describe, expect, test } from 'vitest'
import { writeSafetensors } from '../support/safetensors-writer.ts'
import type { EngineOptions } from '../../src/load.ts'
import { Mamba } from '../../src/mamba.ts'
import { batchOf, BUILDS, KINDS, openModel } from '../support/backends.ts'
import { expectSameBits, relativeError, scientific } from '../support/compare.ts'
import { fixtureModel, idsOf, readGolden } from '../support/fixtures.ts'

/** Of the largest logit. The goldens themselves are within 3e-7 of float64. */
const TOLERANCES = { reference: 1e-6, scalar: 1e-5, simd: 1e-5 }

/**
 * Hidden states that the goldens themselves have less exactly: one token of zamba2's leaves the last layer small beside what its blocks add, so that
 * transformers' rounding of the norms to float32 shows in it, by 1.04e-6. With the same rounding here it is 0.76e-6, but the mean over all tokens is
 * least, 2.6e-7, without.
 */
const LESS_EXACT: ReadonlyMap<string, number> = new Map([['zamba2 hidden_states.4', 1.1e-6]])

const MIXER_NAMES = [
  'A_log', 'D', 'conv1d.weight', 'conv1d.bias', 'dt_proj.weight', 'dt_proj.bias', 'in_proj.weight', 'out_proj.weight', 'x_proj.weight'
]

const HYBRIDS = ['bamba', 'falcon_h1', 'granitemoehybrid', 'granitemoehybrid_moe', 'jamba', 'nemotron_h', 'zamba2']

interface Case {
  readonly name: string
  /** A folder or files by name. */
  readonly source: string | Record<string, Uint8Array>
  /** The fixture whose golden it has. */
  readonly golden: string
}

const CASES: readonly Case[] = [
  ...['mamba', 'mamba_bias_untied', 'mamba_bf16', 'mamba_f16', 'falcon_mamba', 'mamba2', 'mamba2_groups', ...HYBRIDS].map((name) => ({ name, source: fixtureModel(name), golden: name })),
  { name: 'mamba_sharded', source: fixtureModel('mamba_sharded'), golden: 'mamba' },
  { name: 'mamba_original', source: fixtureModel('mamba_original'), golden: 'mamba' },
  { name: 'mamba in the original form', source: originalFiles(), golden: 'mamba' }
]

/** Goldens without hidden states and greedy tokens. */
const LOGITS_ONLY = ['mamba_bf16', 'mamba_f16']

/** The weights of `mamba` under the names and with the config of state-spaces/mamba. */
function originalFiles(): Record<string, Uint8Array> {
  const checkpoint = readGolden(`${fixtureModel('mamba')}/model.safetensors`)
  const config = {
    d_model: 32, n_layer: 3, vocab_size: 157, ssm_cfg: {}, rms_norm: true, residual_in_fp32: true, fused_add_norm: true,
    pad_vocab_size_multiple: 8, tie_embeddings: true
  }
  const names = [
    'backbone.embeddings.weight', 'backbone.norm_f.weight',
    ...[0, 1, 2].flatMap((i) => ['norm.weight', ...MIXER_NAMES.map((name) => `mixer.${name}`)].map((name) => `backbone.layers.${i}.${name}`))
  ]
  const tensors = names.map((name) => ({ name: name.replace('embeddings', 'embedding'), dtype: 'F32', ...checkpoint.floats(name) }))
  const head = { ...tensors[0], name: 'lm_head.weight' }
  return { 'config.json': new TextEncoder().encode(JSON.stringify(config)), 'model.safetensors': writeSafetensors([...tensors, head]) }
}

describe.each(CASES)('$name', ({ name, source, golden: goldenName }) => {
  const golden = readGolden(`${fixtureModel(goldenName)}/golden.safetensors`)
  const { shape: [nSequences, length], data: tokens } = golden.ints('input_ids')
  const wantedLogits = golden.floats('logits').data
  const hasSsd = !/^(falcon_)?mamba(?!2)|^jamba/.test(goldenName)
  const isWhole = !LOGITS_ONLY.includes(goldenName)
  const capacity = { maxRows: tokens.length, maxLogitRows: tokens.length, nSlots: nSequences, contextLength: length }

  async function logitsOf(kind: (typeof KINDS)[number] | 'chunked'): Promise<Float32Array> {
    const model = await openModel(source)
    const backend = await model.load(kind, capacity)
    const logits = new Float32Array(wantedLogits.length)
    await backend.forward(batchOf(tokens, nSequences), logits)
    return logits
  }

  test('logits', async () => {
    const errors = await Promise.all(KINDS.map(async (kind) => relativeError(await logitsOf(kind), wantedLogits)))
    console.log(`${name}: ${KINDS.map((kind, i) => `${kind} ${scientific(errors[i])}`).join(', ')} of the largest logit`)
    KINDS.forEach((kind, i) => expect(errors[i], kind).toBeLessThanOrEqual(TOLERANCES[kind]))
  })

  test.each(hasSsd ? ['chunked'] as const : [])('logits with Mamba-2 %s', async (form) => {
    const error = relativeError(await logitsOf(form), wantedLogits)
    console.log(`${name}: ${form} ${scientific(error)} of the largest logit`)
    expect(error).toBeLessThanOrEqual(TOLERANCES.simd)
    // A chunk and a rest of fewer tokens than it takes: it has run.
    expect(await logitsOf(form)).not.toEqual(await logitsOf('simd'))
  })

  test('both builds give the same bits', async () => {
    expectSameBits(await logitsOf('simd'), await logitsOf('scalar'), name)
  })

  test.each(isWhole ? KINDS : [])('hidden states between the blocks, %s', async (kind) => {
    const model = await openModel(source)
    const { program, config } = model
    const backend = await model.load(kind, capacity)
    backend.begin(batchOf(tokens, nSequences))
    expect(program.marks.map((mark) => mark.name)).toEqual(Array.from({ length: config.nLayers + 1 }, (_, i) => `hidden_states.${i}`))
    let done = 0
    for (const mark of program.marks) {
      for (; done < mark.opIndex; done++) backend.run(done, done + 1)
      const { shape, data } = golden.floats(mark.name)
      expect(shape).toEqual([nSequences, length, config.dModel])
      const tolerance = Math.max(TOLERANCES[kind], LESS_EXACT.get(`${name} ${mark.name}`) ?? 0)
      expect(relativeError(backend.readView(mark.view), data), mark.name).toBeLessThanOrEqual(tolerance)
    }
  })

  const engines: readonly [string, EngineOptions][] = [
    ['reference', { backend: 'reference' }], ...BUILDS.map((build): [string, EngineOptions] => [build, { backend: 'wasm', build }]),
    ...(hasSsd ? [['chunked', { ssd: 'chunked' }] as [string, EngineOptions]] : [])
  ]
  test.each(isWhole ? engines : [])('greedy tokens, %s', async (_, options) => {
    await using mamba = await Mamba.load(source, options)
    const wanted = Array.from(idsOf(golden.ints('greedy_ids'), 0))
    const { ids, finishReason } = await mamba.complete(idsOf(golden.ints('greedy_prompt'), 0), {
      maxTokens: wanted.length, temperature: 0, ignoreEos: true
    })
    expect(ids).toEqual(wanted)
    expect(finishReason).toBe('length')
  })
})
