/** Configs of all architectures with values that make no sense: a program comes of it, or one of this package's errors that names the place, soon. */
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import { buildModel } from '../support/architectures.ts'
import { fixtureConfig, readConfig } from '../support/configs.ts'
import type { Config } from '../support/tiny-checkpoint.ts'

const NAMES = ['mamba', 'falcon_mamba', 'mamba2', 'bamba', 'falcon_h1', 'granitemoehybrid', 'granitemoehybrid_moe', 'jamba', 'nemotron_h', 'zamba2']
const MORE_KEYS = [
  'layer_types', 'layers_block_type', 'hybrid_override_pattern', 'attn_layer_indices', 'hybrid_layer_ids', 'attn_layer_period', 'attn_layer_offset', 'rope_scaling', 'rope_theta',
  'partial_rotary_factor', 'num_hidden_layers', 'norm_groups', 'mamba_d_ssm', 'sliding_window'
]

const odd: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom(0, -1, 1, 2, 3, 4, 5, 8, 16, 64, 2 ** 10, 2 ** 20, 2 ** 31, 2 ** 53, 1e300, 0.5, -0.5, NaN, Infinity, -Infinity, null, true, false, '', 'auto', 'mamba', 'M-*E', '****', 'rope', '32'),
  fc.array(fc.oneof(fc.integer({ min: -1, max: 9 }), fc.double(), fc.constantFrom('mamba', 'attention', 'hybrid', 'mlp', 'moe', null)), { maxLength: 6 }),
  fc.constantFrom({}, { rope_theta: 5 }, { rope_type: 'yarn' }, { partial_rotary_factor: 0.25 }, { __float__: 'Infinity' }, [0, { __float__: 'Infinity' }], [1, 0]),
  fc.integer({ min: -5, max: 200 })
)

const mutated: fc.Arbitrary<Config> = fc.constantFrom(...NAMES).chain((name) => {
  const config = fixtureConfig(name)
  const change = fc.tuple(fc.constantFrom(...Object.keys(config), ...MORE_KEYS), odd)
  return fc.array(change, { minLength: 1, maxLength: 3 }).map((changes) => ({ ...config, ...Object.fromEntries(changes) }))
})

test('odd configs', { timeout: 60_000 }, () => {
  const outcomes = new Map<string, number>()
  fc.assert(fc.property(mutated, (config) => {
    let outcome = 'a program'
    try {
      const { program, config: read } = buildModel(readConfig(config), () => false)
      expect(program.marks.length).toBe(read.nLayers + 1)
      // No width that is not a whole number above zero, whatever the config says.
      for (const { name, width } of program.buffers) expect(Number.isSafeInteger(width) && width > 0, `buffer ${name}: ${width}`).toBe(true)
    } catch (error) {
      if (!(error instanceof CheckpointError || error instanceof UnsupportedError)) throw error
      expect(error.place).toContain('config.json: ')
      outcome = error.name
    }
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
  }), { numRuns: 3000, seed: 4 })
  console.log([...outcomes].map(([outcome, count]) => `${count} ${outcome}`).join(', '))
  for (const outcome of ['a program', 'CheckpointError', 'UnsupportedError']) expect(outcomes.get(outcome)).toBeGreaterThan(100)
})

test('the largest that are let pass are built within seconds', () => {
  const large: [string, Config][] = [
    ['jamba', { num_hidden_layers: 4096, num_experts: 32 }], ['granitemoehybrid_moe', { num_hidden_layers: 4096, layer_types: null, num_local_experts: 1024, num_experts_per_tok: 64 }],
    ['zamba2', { num_hidden_layers: 4096, layers_block_type: Array.from({ length: 4096 }, () => 'hybrid'), hybrid_layer_ids: null, num_mem_blocks: 1 }]
  ]
  for (const [name, keys] of large) {
    const startMs = performance.now()
    buildModel(readConfig({ ...fixtureConfig(name), ...keys }), () => false)
    expect(performance.now() - startMs, name).toBeLessThan(15_000)
  }
})
