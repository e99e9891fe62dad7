/** `mamba-wasm score`: how well a model predicts a text. */

import { messageOf } from '../errors.ts'
import type { Mamba } from '../mamba.ts'
import type { Score } from '../score.ts'
import { type Context, defineCommand } from './command.ts'
import { formatCount, formatRate, formatTable } from './format.ts'
import { readStandardInput, readTextFile } from './input.ts'
import { loadModel, MODEL_OPTIONS } from './model-options.ts'
import type { OptionTable, Values } from './options.ts'

const OPTIONS = {
  window: { kind: 'integer', short: 'w', value: 'N', min: 1, help: 'a fresh state after every N tokens (default: one state throughout)' },
  json: { kind: 'flag', help: 'print one JSON object, on one line' },
  ...MODEL_OPTIONS
} as const satisfies OptionTable

export const scoreCommand = defineCommand({
  name: 'score',
  summary: 'Tells how well a model predicts a text: bits per byte and perplexity.',
  details: ['The first token, which nothing predicts, does not count.'],
  operand: { name: 'FILE', isRequired: true, help: 'a text in UTF-8; "-" reads standard input' },
  options: OPTIONS,
  examples: [
    ['mamba-wasm score alice.txt', 'with the embedded model'],
    ['mamba-wasm score --window 4096 alice.txt', 'a fresh state at each window'],
    ['mamba-wasm score --json --model ./my-model - < alice.txt', 'another model, for programs']
  ],
  async run(context, values, operand = '-') {
    const text = operand === '-' ? await readStandardInput() : await readTextFile(operand, context.signal)
    const mamba = await loadModel(context, values)
    try {
      const score = await measure(context, mamba, values, text)
      if (score.logProbabilities.length === 0) {
        throw new Error(messageOf({ place: operand === '-' ? 'standard input' : operand, expected: 'a text of two tokens or more', got: `${score.nTokens}` }))
      }
      await context.terminal.print(values.json ? jsonOf(mamba, score, values.window) : tableOf(score))
    } finally {
      await mamba.dispose()
    }
  }
})

async function measure({ terminal, signal }: Context, mamba: Mamba, { window, quiet }: Values<typeof OPTIONS>, text: string): Promise<Score> {
  const score = await mamba.score(text, {
    window, signal,
    onProgress({ doneTokens, totalTokens }) {
      if (!quiet) terminal.progress({ label: 'scoring', done: doneTokens, total: totalTokens, unit: 'tokens' })
    }
  })
  terminal.clearProgress()
  return score
}

function tokensPerSecond({ nTokens, elapsedMs }: Score): number {
  return (1000 * nTokens) / elapsedMs
}

function tableOf(score: Score): string {
  return formatTable([
    ['bits per byte', score.bitsPerByte === null ? 'unknown' : score.bitsPerByte.toFixed(4)],
    ['perplexity', score.perplexity.toFixed(4)],
    ['tokens', formatCount(score.nTokens)],
    ['tokens/s', formatRate(tokensPerSecond(score))]
  ])
}

function jsonOf({ backend }: Mamba, score: Score, window: number | undefined): string {
  const { bitsPerByte, perplexity, nTokens, elapsedMs } = score
  const report = { bitsPerByte, perplexity, nTokens, window: window ?? null, elapsedMs, tokensPerSecond: tokensPerSecond(score), backend }
  return `${JSON.stringify(report)}\n`
}
