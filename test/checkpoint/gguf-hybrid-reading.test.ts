/** Keys of hybrids' GGUF files as others write them, and files that are damaged or ask for what is not built. */
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { boolValue, float32Value, textValue, uint32ArrayValue, uint32Value } from '../../src/checkpoint/gguf-metadata.ts'
import { ggufModel } from '../../src/checkpoint/gguf-model.ts'
import { readGgufHeader } from '../../src/checkpoint/gguf-reader.ts'
import type { GgufValue } from '../../src/checkpoint/gguf-types.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { readModelConfig } from '../support/architectures.ts'
import { reasonOf } from '../support/anything.ts'
import { expectSameBits } from '../support/compare.ts'
import { filesOf, fixtureModel } from '../support/fixtures.ts'
import { converted, logitsOf, withConfig, withKeys } from './gguf-files.ts'

type Changes = Readonly<Record<string, GgufValue | undefined>>

const original = (name: string) => converted(filesOf(fixtureModel(name)))
const changed = async (name: string, changes: Changes) => withKeys(await original(name), changes)
const configOf = async (file: Uint8Array) => readModelConfig((await ggufModel(await readGgufHeader(bytesSource(file, 'm.gguf')))).config)

describe('the same in other words', () => {
  test.each<[string, string, Changes]>([
    ['one number of heads for all layers', 'falcon_h1', { 'falcon-h1.attention.head_count_kv': uint32Value(2) }],
    ['a number of heads for each layer', 'jamba', { 'jamba.attention.head_count': uint32ArrayValue([0, 0, 4, 0]) }],
    ['no width of heads', 'granitemoehybrid', { 'granitehybrid.attention.key_length': undefined, 'granitehybrid.attention.value_length': undefined }],
    ['no positions', 'granitemoehybrid_moe', { 'granitehybrid.rope.dimension_count': undefined, 'granitehybrid.rope.freq_base': undefined }],
    ['positions by default', 'granitemoehybrid_moe', { 'granitehybrid.rope.scaling.finetuned': undefined }],
    ['no scaling by its name', 'falcon_h1', { 'falcon-h1.rope.scaling.type': textValue('none') }],
    ['a width for each layer', 'granitemoehybrid', { 'granitehybrid.feed_forward_length': uint32ArrayValue([48, 48, 48]) }]
  ])('%s', async (_, name, changes) => {
    expectSameBits(await logitsOf({ 'model.gguf': await changed(name, changes) }), await logitsOf({ 'model.gguf': await original(name) }), name)
  })

  test('without our own key, dt has no least value: as llama.cpp runs it', async () => {
    const file = await changed('nemotron_h', { 'nemotron_h.ssm.time_step_min': undefined })
    expect(await configOf(file)).toMatchObject({ mamba: { dtLimit: [0, Infinity] } })
    expectSameBits(await logitsOf({ 'model.gguf': file }), await logitsOf(withConfig(filesOf(fixtureModel('nemotron_h')), { time_step_min: 0 })), 'logits')
  })
})

test('a norm of each group, whatever the config of such a checkpoint would say', async () => {
  const file = await changed('nemotron_h', {})
  expect(await configOf(file)).toMatchObject({ mamba: { nGroups: 2, normGroups: 2 } })
})

describe('refused', () => {
  test.each<[string, string, Changes, string, typeof CheckpointError | typeof UnsupportedError]>([
    ['experts', 'nemotron_h', { 'general.architecture': textValue('nemotron_h_moe') }, 'general.architecture: expected one of mamba, mamba2, falcon-h1, granitehybrid, jamba, nemotron_h, got "nemotron_h_moe"', UnsupportedError],
    ['too many layers', 'jamba', { 'jamba.block_count': uint32Value(2 ** 31) }, 'jamba.block_count: expected at most 65, the number of tensors, got 2147483648', CheckpointError],
    ['heads for fewer layers', 'jamba', { 'jamba.attention.head_count_kv': uint32ArrayValue([0, 2]) }, 'jamba.attention.head_count_kv: expected a natural number for each of 4 layers, got an array of 2 uint32', CheckpointError],
    ['heads that differ', 'falcon_h1', { 'falcon-h1.attention.head_count_kv': uint32ArrayValue([2, 1]) }, 'head_count_kv: expected as many heads in all layers with attention, got [2, 1]', UnsupportedError],
    ['no heads', 'falcon_h1', { 'falcon-h1.attention.head_count': uint32Value(0) }, 'head_count: expected as many heads in all layers with attention, got []', UnsupportedError],
    ['values of another width', 'falcon_h1', { 'falcon-h1.attention.value_length': uint32Value(16) }, 'value_length: expected 8, as attention.key_length, got 16', UnsupportedError],
    ['widths that differ', 'nemotron_h', { 'nemotron_h.feed_forward_length': uint32ArrayValue([0, 64, 0, 32]) }, 'feed_forward_length: expected one width in all layers that have it, got 64, 32', UnsupportedError],
    ['heads that do not fit their rows', 'granitemoehybrid_moe', { 'granitehybrid.attention.key_length': uint32Value(2 ** 31), 'granitehybrid.attention.value_length': uint32Value(2 ** 31), 'granitehybrid.rope.dimension_count': undefined },
      'attn_q.weight: expected heads of 2147483648 rows, an even number of 2147483648 of which are turned, got (32, 32)', CheckpointError],
    ['an odd number of turned rows', 'granitemoehybrid_moe', { 'granitehybrid.rope.dimension_count': uint32Value(3) }, 'expected heads of 8 rows, an even number of 3 of which are turned', CheckpointError],
    ['more turned rows than there are', 'granitemoehybrid_moe', { 'granitehybrid.rope.dimension_count': uint32Value(16) }, 'expected heads of 8 rows, an even number of 16 of which are turned', CheckpointError],
    ['stretched positions', 'falcon_h1', { 'falcon-h1.rope.scaling.type': textValue('yarn') }, 'rope_scaling: type: expected "default", got "yarn"', UnsupportedError],
    ['groups that do not fit', 'granitemoehybrid', { 'granitehybrid.ssm.group_count': uint32Value(5) }, 'granitehybrid.ssm.group_count: expected a divisor of granitehybrid.ssm.inner_size 64, got 5', CheckpointError],
    ['a scale that is none', 'granitemoehybrid', { 'granitehybrid.logit_scale': float32Value(Infinity) }, 'granitehybrid.logit_scale: expected a finite float above 0', CheckpointError],
    ['a switch that is none', 'granitemoehybrid', { 'granitehybrid.rope.scaling.finetuned': uint32Value(1) }, 'granitehybrid.rope.scaling.finetuned: expected a bool', CheckpointError],
    ['no shared block', 'granitemoehybrid_moe', { 'granitehybrid.expert_shared_feed_forward_length': undefined }, 'granitehybrid.expert_shared_feed_forward_length: expected an integer', CheckpointError]
  ])('%s', async (_, name, changes, message, type) => {
    const error = await reasonOf(async () => configOf(await changed(name, changes)))
    expect(error).toBeInstanceOf(type)
    expect(String(error)).toContain(message)
  })

  test('positions where there were none: other numbers, not an error', async () => {
    const turned = await changed('granitemoehybrid', { 'granitehybrid.rope.scaling.finetuned': boolValue(true) })
    expect(await configOf(turned)).toMatchObject({ attention: { rotary: { rotaryDim: 8, theta: 10_000 } } })
  })
})
