/**
 * What the goldens of the hybrids do not have: factors, adapters and shared blocks, each against a checkpoint that says the same in another way,
 * and the names that a config asks for.
 */
import { describe, expect, test } from 'vitest'
import { writeSafetensors } from '../support/safetensors-writer.ts'
import { buildModel } from '../support/architectures.ts'
import { batchOf, openModel } from '../support/backends.ts'
import { reasonOf } from '../support/anything.ts'
import { relativeError } from '../support/compare.ts'
import { fixtureConfig, readConfig } from '../support/configs.ts'
import { fixtureModel, type GoldenTensor, readGolden } from '../support/fixtures.ts'
import { createNumbers } from '../support/numbers.ts'
import { type Config, configText } from '../support/tiny-checkpoint.ts'

type Tensors = Map<string, GoldenTensor<Float32Array>>

function tensorsOf(name: string): Tensors {
  const golden = readGolden(`${fixtureModel(name)}/model.safetensors`)
  return new Map(golden.names.map((tensor) => [tensor, golden.floats(tensor)]))
}

function tensor(tensors: Tensors, name: string): GoldenTensor<Float32Array> {
  const found = tensors.get(name)
  if (found === undefined) throw new Error(`no tensor ${name}`)
  return found
}

function random(seed: number, ...shape: number[]): GoldenTensor<Float32Array> {
  return { shape, data: createNumbers(seed).floats(shape.reduce((a, b) => a * b, 1), -0.2, 0.2) }
}

/** (nOut, rank) · (rank, nIn) */
function product(b: GoldenTensor<Float32Array>, a: GoldenTensor<Float32Array>): Float32Array {
  const [[nOut, rank], [, nIn]] = [b.shape, a.shape]
  return Float32Array.from({ length: nOut * nIn }, (_, i) => {
    let sum = 0
    for (let r = 0; r < rank; r++) sum += b.data[Math.floor(i / nIn) * rank + r] * a.data[r * nIn + (i % nIn)]
    return sum
  })
}

function scale(tensors: Tensors, factor: number, ...names: string[]): void {
  for (const name of names) {
    const { shape, data } = tensor(tensors, name)
    tensors.set(name, { shape, data: data.map((value) => factor * value) })
  }
}

/** Logits of 20 tokens in the reference backend. */
async function logitsOf(config: Config, tensors: Tensors): Promise<Float32Array> {
  const model = await openModel({
    'config.json': new TextEncoder().encode(configText(config)),
    'model.safetensors': writeSafetensors([...tensors].map(([name, { shape, data }]) => ({ name, dtype: 'F32', shape, data })))
  })
  const tokens = Int32Array.from({ length: 20 }, (_, i) => (i * 37 + 5) % 160)
  const backend = await model.load('reference', { maxRows: 20, maxLogitRows: 20, nSlots: 1, contextLength: 20 })
  const logits = new Float32Array(20 * 160)
  await backend.forward(batchOf(tokens, 1), logits)
  return logits
}

/** f32 weights that were multiplied are rounded once more. */
const SAME = 1e-5

async function expectSame(a: readonly [Config, Tensors], b: readonly [Config, Tensors]): Promise<void> {
  expect(relativeError(await logitsOf(...a), await logitsOf(...b))).toBeLessThan(SAME)
}

async function expectOther(a: readonly [Config, Tensors], b: readonly [Config, Tensors]): Promise<void> {
  expect(relativeError(await logitsOf(...a), await logitsOf(...b))).toBeGreaterThan(100 * SAME)
}

describe('falcon_h1', () => {
  const config = fixtureConfig('falcon_h1')
  const attention = [0, 1].flatMap((i) => ['q', 'k', 'v'].map((part) => `model.layers.${i}.self_attn.${part}_proj.weight`))

  test('attention_in_multiplier is a factor of q, k and v', async () => {
    const scaled = tensorsOf('falcon_h1')
    scale(scaled, 1.7, ...attention)
    const plain = tensorsOf('falcon_h1')
    await expectSame([{ ...config, attention_in_multiplier: 1.7 }, plain], [config, scaled])
    await expectOther([{ ...config, attention_in_multiplier: 1.7 }, plain], [config, plain])
  })

  test('a bias on in_proj is not multiplied by ssm_in_multiplier, but by the parts’ factors', async () => {
    const [d, width] = [32, 164]
    const biased = tensorsOf('falcon_h1')
    for (const i of [0, 1]) biased.set(`model.layers.${i}.mamba.in_proj.bias`, random(i + 1, width))
    const { ssm_in_multiplier: input, ...others } = config
    const scaled = new Map(biased)
    // The factors in the tensors: weight · input · part, bias · part.
    const factors = [[64, 0.35], [64, 0.25], [16, 0.18], [16, 0.5], [4, 0.36]].flatMap(([count, factor]) => Array.from({ length: count }, () => factor))
    for (const i of [0, 1]) {
      const name = `model.layers.${i}.mamba.in_proj`
      const [weight, bias] = [tensor(biased, `${name}.weight`), tensor(biased, `${name}.bias`)]
      scaled.set(`${name}.weight`, { shape: weight.shape, data: weight.data.map((value, j) => value * Number(input) * factors[Math.floor(j / d)]) })
      scaled.set(`${name}.bias`, { shape: bias.shape, data: bias.data.map((value, j) => value * factors[j]) })
    }
    const useBias = { mamba_proj_bias: true }
    await expectSame([{ ...config, ...useBias }, biased], [{ ...others, ...useBias, ssm_multipliers: null }, scaled])
  })

  test('a norm of its own before out_proj', () => {
    const names = buildModel(readConfig({ ...config, mamba_rms_norm: true, mamba_norm_before_gate: false }), () => false).program.parameters.map(({ name }) => name)
    expect(names).toContain('model.layers.0.mamba.norm.weight')
  })
})

describe('zamba2', () => {
  const config = fixtureConfig('zamba2')
  const block = (layer: number): string => `model.layers.${layer}.shared_transformer.`

  test('adapters on q, k and v add their product to the projections', async () => {
    const [adapted, merged] = [tensorsOf('zamba2'), tensorsOf('zamba2')]
    for (const [place, layer] of [1, 3].entries()) {
      for (const part of ['q', 'k', 'v']) {
        const adapter = `${block(layer)}self_attn.linear_${part}_adapter_list.${place}`
        const [a, b] = [random(layer, 4, 64), random(layer + 10, 64, 4)]
        adapted.set(`${adapter}.0.weight`, a)
        adapted.set(`${adapter}.1.weight`, b)
        const { shape, data } = tensor(merged, `${block(layer)}self_attn.${part}_proj.weight`)
        const added = product(b, a)
        merged.set(`${block(layer)}self_attn.${part}_proj.weight`, { shape, data: data.map((value, i) => value + added[i]) })
      }
    }
    await expectSame([{ ...config, use_shared_attention_adapter: true }, adapted], [config, merged])
    await expectOther([config, merged], [config, tensorsOf('zamba2')])
  })

  /** Both hybrid layers with the first one's weights: as two blocks with the same tensors, and as one block with both adapters. */
  function shared(): { readonly two: Tensors; readonly one: Tensors } {
    const [two, one] = [tensorsOf('zamba2'), tensorsOf('zamba2')]
    for (const name of [...two.keys()].filter((key) => key.startsWith(block(3)))) {
      one.delete(name)
      if (name.includes('adapter')) one.set(name.replace(block(3), block(1)), tensor(two, name))
      else two.set(name, tensor(two, name.replace(block(3), block(1))))
    }
    return { two, one }
  }

  test('one block in two layers: the first one’s tensors, a cache and an adapter for each', async () => {
    const { two, one } = shared()
    await expectSame([{ ...config, num_mem_blocks: 1 }, one], [config, two])
    await expectOther([config, two], [config, tensorsOf('zamba2')])
  })

  test('a shared block that was saved twice must be the same', async () => {
    const { one } = shared()
    const single: Config = { ...config, num_mem_blocks: 1 }
    const copies = new Map([...one].filter(([name]) => name.startsWith(block(1))).map(([name, value]) => [name.replace(block(1), block(3)), value]))
    await expectSame([single, new Map([...one, ...copies])], [single, one])
    const name = `${block(3)}self_attn.q_proj.weight`
    const { shape, data } = tensor(copies, name)
    copies.set(name, { shape, data: data.map((value, i) => (i === 77 ? value + 1 : value)) })
    expect(String(await reasonOf(() => logitsOf(single, new Map([...one, ...copies]))))).toContain(`${name}: expected the same as ${block(1)}self_attn.q_proj.weight`)
  })

  test('without rotary positions', async () => {
    await expectOther([{ ...config, use_mem_rope: false }, tensorsOf('zamba2')], [config, tensorsOf('zamba2')])
  })
})

describe('experts', () => {
  test('granitemoehybrid: experts whose results are zero leave the shared block alone', async () => {
    const tensors = tensorsOf('granitemoehybrid_moe')
    const dense = new Map([...tensors].filter(([name]) => !name.includes('block_sparse_moe')))
    scale(tensors, 0, ...[0, 1, 2].map((i) => `model.layers.${i}.block_sparse_moe.output_linear.weight`))
    const config = fixtureConfig('granitemoehybrid_moe')
    await expectSame([config, tensors], [{ ...config, num_local_experts: 0, num_experts_per_tok: 0 }, dense])
  })

  test('jamba: one expert is a block without a router', () => {
    const names = buildModel(readConfig({ ...fixtureConfig('jamba'), num_experts: 1, num_experts_per_tok: 1 }), () => false).program.parameters.map(({ name }) => name)
    expect(names).toContain('model.layers.1.feed_forward.gate_proj.weight')
    expect(names.some((name) => name.includes('router') || name.includes('experts'))).toBe(false)
  })

  test('a router is never rounded, nor is what makes dt', () => {
    for (const name of ['granitemoehybrid_moe', 'jamba']) {
      const { parameters } = buildModel(readConfig(fixtureConfig(name)), () => false).program
      const sensitive = parameters.filter(({ isSensitive }) => isSensitive).map((parameter) => parameter.name)
      expect(sensitive.filter((parameter) => parameter.includes('router')).length).toBe(name === 'jamba' ? 2 : 3)
      expect(sensitive.every((parameter) => parameter.includes('router') || parameter.endsWith('dt_proj.weight'))).toBe(true)
    }
  })
})

describe('biases as the config says', () => {
  const names = (config: Config): readonly string[] => buildModel(readConfig(config), () => false).program.parameters.map(({ name }) => name).filter((name) => /layers\.[01]\..*bias$/.test(name))
  const attention = (prefix: string): string[] => ['q', 'k', 'v', 'o'].map((part) => `${prefix}.${part}_proj.bias`)

  test.each<[string, Config, readonly string[]]>([
    ['bamba', { attention_bias: true }, attention('model.layers.1.self_attn')],
    ['granitemoehybrid', { attention_bias: true }, attention('model.layers.1.self_attn')],
    ['bamba', { mlp_bias: true }, [0, 1].flatMap((i) => ['up', 'gate', 'down'].map((part) => `model.layers.${i}.feed_forward.${part}_proj.bias`))],
    ['bamba', { mamba_proj_bias: true }, ['in', 'out'].map((part) => `model.layers.0.mamba.${part}_proj.bias`)],
    ['falcon_h1', { mamba_proj_bias: true }, [0, 1].map((i) => `model.layers.${i}.mamba.in_proj.bias`)],
    ['falcon_h1', { projectors_bias: true }, [0, 1].map((i) => `model.layers.${i}.mamba.out_proj.bias`)],
    ['nemotron_h', { use_bias: true }, ['in', 'out'].map((part) => `backbone.layers.0.mixer.${part}_proj.bias`)],
    ['nemotron_h', { mlp_bias: true }, ['up', 'down'].map((part) => `backbone.layers.1.mixer.${part}_proj.bias`)],
    ['jamba', { mamba_proj_bias: true }, [0, 1].flatMap((i) => ['in', 'out'].map((part) => `model.layers.${i}.mamba.${part}_proj.bias`))],
    ['zamba2', { add_bias_linear: true }, [
      'model.layers.0.mamba.in_proj.bias', 'model.layers.0.mamba.out_proj.bias', ...['gate_up_proj', 'down_proj'].map((part) => `model.layers.1.shared_transformer.feed_forward.${part}.bias`),
      'model.layers.1.mamba_decoder.mamba.in_proj.bias', 'model.layers.1.mamba_decoder.mamba.out_proj.bias'
    ]]
  ])('%s %j', (name, keys, more) => {
    const plain = names(fixtureConfig(name))
    expect(names({ ...fixtureConfig(name), ...keys }).filter((bias) => !plain.includes(bias)).toSorted()).toEqual(more.toSorted())
  })

  test('none on the convolution', () => {
    for (const [name, keys] of [['bamba', { mamba_conv_bias: false }], ['falcon_h1', { mamba_conv_bias: false }], ['jamba', { mamba_conv_bias: false }], ['nemotron_h', { use_conv_bias: false }]] as const) {
      expect(names({ ...fixtureConfig(name), ...keys }).some((bias) => bias.endsWith('conv1d.bias'))).toBe(false)
    }
  })
})
