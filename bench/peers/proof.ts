/**
 * npm run proof:gguf: what `mamba-wasm convert` writes runs in llama.cpp (node-llama-cpp) with the same numbers. Each model of the fixtures that
 * llama.cpp has an architecture for is converted, with a tokenizer of bytes, and run by both: the logits after each token of a prompt, and the
 * tokens that follow by greed. Fails where they differ by more than the rounding of float32 sums, or of half floats where activations are
 * rounded to them.
 */

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { recordFiles } from '../../src/checkpoint/file-set.ts'
import { convertToGguf } from '../../src/convert.ts'
import { Mamba } from '../../src/mamba.ts'
import { ROOT } from '../paths.ts'
import { installPeers } from './install.ts'
import type { Answer, Question } from './llama-logits.ts'

interface Case {
  readonly fixture: string
  readonly normGroups?: number
  readonly config?: Readonly<Record<string, unknown>>
}

/**
 * The config's changes are what llama.cpp does otherwise than transformers: it has no limits of dt, the gated norm is of each group by itself,
 * and Falcon-Mamba's norms on dt, B and C have the eps of all others.
 */
const CASES: readonly Case[] = [
  { fixture: 'mamba' },
  { fixture: 'falcon_mamba', config: { layer_norm_epsilon: 1e-6 } },
  { fixture: 'mamba2' },
  { fixture: 'mamba2_groups', normGroups: 2, config: { time_step_limit: null } },
  { fixture: 'falcon_h1' },
  { fixture: 'granitemoehybrid' },
  { fixture: 'granitemoehybrid_moe' },
  { fixture: 'bamba' },
  { fixture: 'jamba' },
  { fixture: 'nemotron_h', config: { time_step_min: 0 } }
]
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
      console.log(`${item.fixture.padEnd(22)} ${type}  ${outcome.text}`)
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.exitCode = hasFailed ? 1 : 0

async function compare({ fixture, normGroups, config = {} }: Case, type: (typeof TYPES)[number]): Promise<{ readonly isGood: boolean; readonly text: string }> {
  const source = join(ROOT, 'test/fixtures/models', fixture)
  const files = Object.fromEntries(readdirSync(source).map((name) => [name, Uint8Array.from(readFileSync(join(source, name)))]))
  const text = new TextDecoder().decode(files['config.json'])
  const parts: Uint8Array[] = []
  await convertToGguf(recordFiles({ ...files, 'config.json': encode({ ...JSON.parse(text), ...config }), 'tokenizer.json': encode(tokenizerOfBytes(160)) }), {
    type, name: fixture, normGroups, sink: { write: async (bytes) => void parts.push(bytes.slice()) }
  })
  const path = join(folder, `${fixture}-${type}.gguf`)
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
