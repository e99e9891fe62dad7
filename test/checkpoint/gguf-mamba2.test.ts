/** GGUF files of llama.cpp's `mamba2`, put together from the fixtures as its converter does: names, shapes, A, a norm of each group. */
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { float32Value, textValue, uint32Value } from '../../src/checkpoint/gguf-metadata.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import type { GgufValue } from '../../src/checkpoint/gguf-types.ts'
import { ggufBytes, type GgufTensor } from '../../src/checkpoint/gguf-writer.ts'
import { readWholeTensor } from '../../src/checkpoint/tensor-reader.ts'
import { exp } from '../../src/elementary.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { Mamba } from '../../src/mamba.ts'
import { reasonOf } from '../support/anything.ts'
import { expectSameBits } from '../support/compare.ts'
import { filesOf, fixtureModel, readGolden } from '../support/fixtures.ts'
import { converted, logitsOf, withConfig } from './gguf-files.ts'

const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^backbone\.embeddings\.weight$/, 'token_embd.weight'], [/^backbone\.norm_f\.weight$/, 'output_norm.weight'], [/^lm_head\.weight$/, 'output.weight'],
  [/^backbone\.layers\.(\d+)\.norm\.weight$/, 'blk.$1.attn_norm.weight'],
  [/^backbone\.layers\.(\d+)\.mixer\.in_proj\.weight$/, 'blk.$1.ssm_in.weight'], [/^backbone\.layers\.(\d+)\.mixer\.out_proj\.weight$/, 'blk.$1.ssm_out.weight'],
  [/^backbone\.layers\.(\d+)\.mixer\.conv1d\.(weight|bias)$/, 'blk.$1.ssm_conv1d.$2'], [/^backbone\.layers\.(\d+)\.mixer\.dt_bias$/, 'blk.$1.ssm_dt.bias'],
  [/^backbone\.layers\.(\d+)\.mixer\.A_log$/, 'blk.$1.ssm_a'], [/^backbone\.layers\.(\d+)\.mixer\.D$/, 'blk.$1.ssm_d'],
  [/^backbone\.layers\.(\d+)\.mixer\.norm\.weight$/, 'blk.$1.ssm_norm.weight']
]

interface Facts {
  readonly fixture: string
  readonly nGroups: number
  readonly metadata: Readonly<Record<string, number>>
}

const PLAIN: Facts = {
  fixture: 'mamba2', nGroups: 1,
  metadata: { embedding_length: 32, block_count: 3, 'ssm.conv_kernel': 4, 'ssm.inner_size': 64, 'ssm.state_size': 16, 'ssm.time_step_rank': 4, 'ssm.group_count': 1 }
}
const GROUPS: Facts = {
  fixture: 'mamba2_groups', nGroups: 2,
  metadata: { embedding_length: 48, block_count: 2, 'ssm.conv_kernel': 4, 'ssm.inner_size': 96, 'ssm.state_size': 8, 'ssm.time_step_rank': 12, 'ssm.group_count': 2 }
}

function tensorOf(ggufName: string, { shape, data }: { shape: readonly number[], data: Float32Array }, nGroups: number): GgufTensor {
  const values = ggufName.endsWith('ssm_a') ? data.map((value) => -exp(value)) : data
  const shapes: Record<string, readonly number[]> = { ssm_a: [shape[0], 1], ssm_d: [shape[0], 1], 'ssm_norm.weight': [nGroups, shape[0] / nGroups], 'ssm_conv1d.weight': [shape[0], shape[2]] }
  return {
    name: ggufName, dtype: 'F32', shape: shapes[ggufName.replace(/^blk\.\d+\./, '')] ?? shape,
    async *bytes() {
      yield new Uint8Array(values.buffer.slice(values.byteOffset, values.byteOffset + values.byteLength))
    }
  }
}

function fileOf({ fixture, nGroups, metadata }: Facts): Promise<Uint8Array> {
  const checkpoint = readGolden(`${fixtureModel(fixture)}/model.safetensors`)
  const tensors = checkpoint.names.map((name) => {
    const [pattern, ggufName] = NAMES.find(([pattern]) => pattern.test(name)) ?? [/^/, '']
    return tensorOf(name.replace(pattern, ggufName), checkpoint.floats(name), nGroups)
  })
  return ggufBytes({
    metadata: new Map<string, GgufValue>([
      ['general.architecture', textValue('mamba2')], ...Object.entries(metadata).map(([key, value]) => [`mamba2.${key}`, uint32Value(value)] as const),
      ['mamba2.attention.layer_norm_rms_epsilon', float32Value(1e-5)], ['tokenizer.ggml.model', textValue('none')]
    ]),
    tensors
  })
}

describe.each([PLAIN, GROUPS])('$fixture', (facts) => {
  test('gives the bits of the same checkpoint with a norm for each group and no limit of dt', async () => {
    // llama.cpp has no key for the limits.
    const unlimited = withConfig(filesOf(fixtureModel(facts.fixture)), { time_step_limit: [0, Infinity] })
    const expected = await logitsOf(unlimited, { normGroups: facts.nGroups })
    expectSameBits(await logitsOf({ 'model.gguf': await fileOf(facts) }), expected, 'logits')
  })
})

test('sizes that do not fit are refused by key', async () => {
  for (const [key, value] of [['ssm.time_step_rank', 5], ['ssm.group_count', 7], ['embedding_length', 36]] as const) {
    const error = await reasonOf(async () => Mamba.load({ 'model.gguf': await fileOf({ ...GROUPS, metadata: { ...GROUPS.metadata, [key]: value } }) }))
    expect(error).toBeInstanceOf(CheckpointError)
    expect(String(error)).toContain(`mamba2.${key}: expected a divisor of mamba2.ssm.inner_size 96, got ${value}`)
  }
})

test('is written with the names, shapes and numbers that were put together here', async () => {
  for (const facts of [PLAIN, GROUPS]) {
    const unlimited = withConfig(filesOf(fixtureModel(facts.fixture)), { time_step_limit: null })
    const [got, want] = await Promise.all([converted(unlimited, { normGroups: facts.nGroups }), fileOf(facts)].map(async (file) => readGgufHeader(bytesSource(await file, 'm.gguf'))))
    const shapesOf = (header: typeof got) => header.tensors.map(({ name, shape }) => `${name} ${shape.join(' ')}`).toSorted()
    expect(shapesOf(got)).toEqual(shapesOf(want))
    for (const entry of want.tensors) expectSameBits(await readWholeTensor(got.tensors.find(({ name }) => name === entry.name)!), await readWholeTensor(entry), entry.name)
    for (const [key, value] of want.metadata) if (key !== 'tokenizer.ggml.model') expect([key, got.metadata.get(key)]).toEqual([key, value])
  }
})

test('what llama.cpp does otherwise is not written', async () => {
  const files = filesOf(fixtureModel('mamba2_groups'))
  const limited = await reasonOf(() => converted(files, { normGroups: 2 }))
  expect(limited).toBeInstanceOf(UnsupportedError)
  expect(String(limited)).toContain('time_step_limit: expected no limits of dt, since llama.cpp has none, got 0 to 0.5')
  const whole = await reasonOf(() => converted(withConfig(files, { time_step_limit: null })))
  expect(whole).toBeInstanceOf(UnsupportedError)
  expect(String(whole)).toContain('n_groups: expected a gated norm of each of the 2 groups by itself')
})
