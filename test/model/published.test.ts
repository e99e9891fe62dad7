/** Published hybrids by the keys of their configs that decide a size: as many parameters as their model cards say. */
import { expect, test } from 'vitest'
import { buildModel } from '../support/architectures.ts'
import { elementsOf } from '../../src/program/ops.ts'
import { readConfig } from '../support/configs.ts'
import type { Config } from '../support/tiny-checkpoint.ts'

const NEMOTRON: Config = { model_type: 'nemotron_h', vocab_size: 131_072, num_key_value_heads: 8, mamba_num_heads: 128, n_groups: 8, ssm_state_size: 128 }

test.each<[string, number, Config]>([
  ['ai21labs/Jamba-v0.1', 51.6, { model_type: 'jamba', vocab_size: 65_536, hidden_size: 4096, num_hidden_layers: 32 }],
  ['ibm-ai-platform/Bamba-9B', 9.78, {
    model_type: 'bamba', vocab_size: 128_256, hidden_size: 4096, num_hidden_layers: 32, attn_layer_indices: [9, 18, 27], mamba_d_state: 128, intermediate_size: 14_336
  }],
  ['tiiuae/Falcon-H1-0.5B-Base', 0.521, {
    model_type: 'falcon_h1', vocab_size: 32_784, hidden_size: 1024, num_hidden_layers: 36, num_attention_heads: 8, num_key_value_heads: 2, head_dim: 64,
    mamba_d_ssm: 1536, mamba_n_heads: 24, mamba_d_head: 64, mamba_d_state: 128, intermediate_size: 2048
  }],
  ['ibm-granite/granite-4.0-h-tiny', 6.94, {
    model_type: 'granitemoehybrid', vocab_size: 100_352, hidden_size: 1536, num_hidden_layers: 40, num_attention_heads: 12, num_key_value_heads: 4,
    mamba_n_heads: 48, mamba_d_head: 64, mamba_d_state: 128, num_local_experts: 64, num_experts_per_tok: 6, intermediate_size: 512, shared_intermediate_size: 1024,
    tie_word_embeddings: true, position_embedding_type: 'nope', layer_types: Array.from({ length: 40 }, (_, i) => ([5, 15, 25, 35].includes(i) ? 'attention' : 'mamba'))
  }],
  ['nvidia/NVIDIA-Nemotron-Nano-9B-v2', 8.89, {
    ...NEMOTRON, hidden_size: 4480, hybrid_override_pattern: 'M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-', num_attention_heads: 40, head_dim: 128,
    intermediate_size: 15_680, mamba_head_dim: 80
  }],
  ['nvidia/Nemotron-H-8B-Base-8K', 8.1, {
    ...NEMOTRON, hidden_size: 4096, hybrid_override_pattern: 'M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-', num_attention_heads: 32, attention_head_dim: 128,
    intermediate_size: 21_504, mamba_head_dim: 64
  }],
  ['Zyphra/Zamba2-1.2B', 1.22, {
    model_type: 'zamba2', vocab_size: 32_000, hidden_size: 2048, num_hidden_layers: 38, mamba_d_state: 128, n_mamba_heads: 64, num_attention_heads: 32, num_mem_blocks: 1,
    adapter_rank: 128, use_shared_mlp_adapter: true, use_shared_attention_adapter: true, use_mem_rope: true, intermediate_size: 8192, hybrid_layer_ids: [5, 11, 17, 23, 29, 35]
  }]
])('%s: %f billion', (_, billions, config) => {
  const { parameters } = buildModel(readConfig(config), () => false).program
  const count = parameters.reduce((sum, { shape }) => sum + elementsOf(shape), 0)
  expect(Number((count / 1e9).toPrecision(3))).toBe(billions)
})
