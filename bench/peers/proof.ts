/**
 * npm run proof:gguf: what `mamba-wasm convert` writes runs in llama.cpp (node-llama-cpp) with the same numbers. Each model of the fixtures that
 * llama.cpp has an architecture for, and some random ones, are converted with a tokenizer of bytes and run by both: the logits after each token of a prompt, and the
 * tokens that follow by greed. Fails where they differ by more than the rounding of float32 sums, or of half floats where activations are
 * rounded to them.
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { recordFiles } from '../../src/checkpoint/file-set.ts'
import type { JsonObject } from '../../src/checkpoint/json.ts'
import { convertToGguf } from '../../src/convert.ts'
import { Mamba } from '../../src/mamba.ts'
import { ROOT } from '../paths.ts'
import { installPeers } from './install.ts'
import type { Answer, Question } from './llama-logits.ts'
import { randomCheckpoint } from './random-checkpoint.ts'

interface Case {
  readonly name: string
  readonly files: Readonly<Record<string, Uint8Array>>
  readonly normGroups?: number
}

/**
 * The changes of a config are what llama.cpp does otherwise than transformers: it has no limits of dt, the gated norm is of each group by itself,
 * and Falcon-Mamba's norms on dt, B and C have the eps of all others.
 */
const FIXTURES: readonly Case[] = [
  fixture('mamba'),
  fixture('falcon_mamba', { layer_norm_epsilon: 1e-6 }),
  fixture('mamba2'),
  { ...fixture('mamba2_groups', { time_step_limit: null }), normGroups: 2 },
  fixture('falcon_h1'),
  fixture('granitemoehybrid'),
  fixture('granitemoehybrid_moe'),
  fixture('bamba'),
  fixture('jamba'),
  fixture('nemotron_h', { time_step_min: 0 })
]

const SIZES = { vocab_size: 256, hidden_size: 128, num_attention_heads: 4, num_key_value_heads: 2, intermediate_size: 192 }
const BAMBA_SIZES = { ...SIZES, num_hidden_layers: 3, mamba_n_heads: 8, mamba_d_head: 32, mamba_n_groups: 2, mamba_d_state: 64, mamba_d_conv: 4 }

/** What the fixtures do not have: groups, a gated norm and a tied head of Falcon-H1, heads that are not as wide as the model, no experts. */
const RANDOM: readonly Case[] = [
  random('falcon_h1, norm', {
    ...BAMBA_SIZES, model_type: 'falcon_h1', mamba_d_ssm: 256, head_dim: 64, rope_theta: 1e6, mamba_rms_norm: true, mamba_norm_before_gate: false, tie_word_embeddings: true,
    embedding_multiplier: 0.5, lm_head_multiplier: 0.1, key_multiplier: 0.5, attention_in_multiplier: 0.8, attention_out_multiplier: 0.9, ssm_in_multiplier: 1.25, ssm_out_multiplier: 0.3,
    mlp_multipliers: [0.9, 0.2], ssm_multipliers: [0.4, 0.3, 0.2, 0.5, 0.4]
  }),
  {
    ...random('granite, groups', {
      ...BAMBA_SIZES, model_type: 'granitemoehybrid', layer_types: ['mamba', 'attention', 'mamba'], shared_intermediate_size: 160, num_local_experts: 8, num_experts_per_tok: 3,
      position_embedding_type: 'rope', rope_theta: 5000, tie_word_embeddings: true, embedding_multiplier: 2, residual_multiplier: 0.4, logits_scaling: 4, attention_multiplier: 0.2
    }),
    normGroups: 2
  },
  random('jamba, dense', {
    ...SIZES, model_type: 'jamba', layers_block_type: ['mamba', 'attention', 'mamba', 'attention'], num_hidden_layers: 4, num_experts: 1, mamba_d_state: 16, mamba_dt_rank: 8, tie_word_embeddings: true
  }),
  random('nemotron_h, wide', {
    ...SIZES, model_type: 'nemotron_h', hybrid_override_pattern: 'M-M*-M', num_hidden_layers: 6, head_dim: 64, mamba_num_heads: 12, mamba_head_dim: 32, n_groups: 4, ssm_state_size: 32, time_step_min: 0
  })
]
const CASES = [...FIXTURES, ...RANDOM]
const TYPES = ['F32', 'F16'] as const
/** Of the largest logit. llama.cpp rounds activations to half floats before it multiplies them by weights of that type. */
const TOLERANCES = { F32: 1e-5, F16: 5e-3 }
const IDS = [5, 17, 99, 3, 42, 8, 150, 2, 77, 31, 120, 64, 9, 11, 88, 140]
const N_GREEDY = 24

installPeers()
const folder = mkdtempSync(join(tmpdir(), 'mamba-wasm-proof-'))
let hasFailed = false
try {
  for (const item of CASES) {
    for (const type of TYPES) {
      const outcome = await compare(item, type)
      hasFailed ||= !outcome.isGood
      console.log(`${item.name.padEnd(24)} ${type}  ${outcome.text}`)
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.exitCode = hasFailed ? 1 : 0

function fixture(name: string, changes: Readonly<Record<string, unknown>> = {}): Case {
  const source = join(ROOT, 'test/fixtures/models', name)
  const files = Object.fromEntries(readdirSync(source).map((file) => [file, Uint8Array.from(readFileSync(join(source, file)))]))
  const config: unknown = JSON.parse(new TextDecoder().decode(files['config.json']))
  return { name, files: { ...files, 'config.json': encode(Object.assign({}, config, changes)) } }
}

function random(name: string, config: JsonObject): Case {
  return { name: `random ${name}`, files: randomCheckpoint(config) }
}

async function compare({ name, files, normGroups }: Case, type: (typeof TYPES)[number]): Promise<{ readonly isGood: boolean; readonly text: string }> {
  const parts: Uint8Array[] = []
  const { vocab_size: vocabSize } = JSON.parse(new TextDecoder().decode(files['config.json'])) as { readonly vocab_size: number }
  await convertToGguf(recordFiles({ ...files, 'tokenizer.json': encode(tokenizerOfBytes(vocabSize)) }), {
    type, name, normGroups, sink: { write: async (bytes) => void parts.push(bytes.slice()) }
  })
  const path = join(folder, `${name}-${type}.gguf`)
  writeFileSync(path, Buffer.concat(parts))

  const theirs = askLlama({ path, ids: IDS, count: N_GREEDY })
  if (typeof theirs === 'string') return { isGood: false, text: theirs }
  await using mamba = await Mamba.load(path, { threads: 1 })
  const ours = await mamba.forward(IDS, { allLogits: true })
  const { ids: greedy } = await mamba.complete(IDS, { maxTokens: N_GREEDY, temperature: 0, ignoreEos: true })
  const logits = theirs.logits.flat()
  const largest = ours.reduce((largest, logit) => Math.max(largest, Math.abs(logit)), 0)
  const error = logits.length === ours.length ? ours.reduce((error, logit, i) => Math.max(error, Math.abs(logit - logits[i])), 0) / largest : Infinity
  const nSame = greedy.findIndex((id, i) => id !== theirs.greedy[i])
  const isGood = error <= TOLERANCES[type] && nSame < 0
  return { isGood, text: `largest difference ${error.toExponential(1)} of the largest logit, greedy tokens ${nSame < 0 ? `${greedy.length} of ${greedy.length}` : `differ from number ${nSame} on`}${isGood ? '' : '  FAILED'}` }
}

function askLlama(question: Question): Answer | string {
  const child = fileURLToPath(new URL('llama-logits.ts', import.meta.url))
  const { status, stdout, stderr } = spawnSync(process.execPath, [child, JSON.stringify(question)], { encoding: 'utf8', maxBuffer: 2 ** 28 })
  if (status === 0) return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Answer
  return `llama.cpp: ${stderr.split('\n').filter((line) => /error|assert|failed/i.test(line)).slice(0, 3).join(' | ')}  FAILED`
}

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}

/** Of single bytes, as GPT-2 writes them: those that are printable stand for themselves, the others for what follows U+0100. */
function tokenizerOfBytes(vocabSize: number): object {
  const isPrintable = (byte: number): boolean => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173)
  const others = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => !isPrintable(byte))
  const vocab = Object.fromEntries(Array.from({ length: vocabSize }, (_, byte) => [String.fromCodePoint(isPrintable(byte) ? byte : 256 + others.indexOf(byte)), byte]))
  return { added_tokens: [], pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false }, model: { type: 'BPE', vocab, merges: [] } }
}
