/** `mamba-wasm generate`: goes on from a prompt. */

import type { Completion, Finish, GenerateOptions } from '../generate.ts'
import type { Mamba } from '../mamba.ts'
import { type Context, defineCommand } from './command.ts'
import { formatBytes, formatCount, formatRate } from './format.ts'
import { readStandardInput } from './input.ts'
import { loadModel, MODEL_OPTIONS } from './model-options.ts'
import type { OptionTable, Values } from './options.ts'
import { SAMPLING_OPTIONS, samplingOptions } from './sampling-options.ts'

const DEFAULT_PROMPT = 'Alice was beginning to get very tired of'

const OPTIONS = {
  ...SAMPLING_OPTIONS,
  json: { kind: 'flag', help: 'print one JSON object at the end: text, ids, figures' },
  ...MODEL_OPTIONS
} as const satisfies OptionTable

export const generateCommand = defineCommand({
  name: 'generate',
  summary: 'Continues a text.',
  details: [
    'Prints the prompt, then the text as it is generated, and a newline where it does not end in one. The figures of the run go to standard error.'
  ],
  operand: {
    name: 'PROMPT', isRequired: false,
    help: `the text to continue; "-" reads standard input, without the newline at its end (default: "${DEFAULT_PROMPT}")`
  },
  options: OPTIONS,
  examples: [
    ['mamba-wasm generate "The captain looked at the sea"', 'with the embedded model'],
    ['mamba-wasm generate --temperature 0 --max-tokens 40', 'always the same text'],
    ['echo "Once upon a time" | mamba-wasm generate --stop "." -', 'a prompt from standard input, up to the first full stop'],
    ['mamba-wasm generate --model state-spaces/mamba-130m-hf "Mamba is"', 'a model of the hub'],
    ['mamba-wasm generate --quiet --json --model ./my-model "Hello"', 'for programs']
  ],
  async run(context, values, operand) {
    const prompt = operand === '-' ? withoutFinalNewline(await readStandardInput()) : (operand ?? DEFAULT_PROMPT)
    const mamba = await loadModel(context, values)
    try {
      const finish = values.json ? await printJson(context, mamba, values, prompt) : await stream(context, mamba, values, prompt)
      if (!values.quiet) context.terminal.note(figures(mamba, finish))
    } finally {
      await mamba.dispose()
    }
  }
})

/** What is told of a run, whichever way it went. */
type Figures = Pick<Finish, 'seed' | 'usage' | 'timings'>

async function stream(context: Context, mamba: Mamba, values: Values<typeof OPTIONS>, prompt: string): Promise<Figures> {
  const { terminal } = context
  let hasStarted = false
  let finish: Figures | null = null
  // A bar shows how far the prompt has been read; so the prompt is printed after that.
  for await (const chunk of mamba.generate(prompt, generateOptions(context, values, () => hasStarted))) {
    if (!hasStarted) await terminal.print(prompt, 'dim')
    hasStarted = true
    await terminal.print(chunk.text)
    finish = chunk.finish
  }
  terminal.endLine()
  if (finish === null) throw new TypeError('a generation ended without its last piece')
  return finish
}

async function printJson(context: Context, mamba: Mamba, values: Values<typeof OPTIONS>, prompt: string): Promise<Completion> {
  const completion = await mamba.complete(prompt, generateOptions(context, values, () => false))
  const memoryBytes = { ...mamba.backend.memoryBytes, arrayBuffers: process.memoryUsage().arrayBuffers }
  await context.terminal.print(`${JSON.stringify({ prompt, ...completion, backend: { ...mamba.backend, memoryBytes } })}\n`)
  return completion
}

function generateOptions({ terminal, signal }: Context, values: Values<typeof OPTIONS>, hasStarted: () => boolean): GenerateOptions {
  return {
    ...samplingOptions(values),
    signal,
    onProgress({ doneTokens, totalTokens }) {
      if (!values.quiet && !hasStarted()) terminal.progress({ label: 'reading the prompt', done: doneTokens, total: totalTokens, unit: 'tokens' })
    }
  }
}

function figures({ backend }: Mamba, { seed, usage, timings }: Figures): string {
  const { name, build, threads, memoryBytes } = backend
  return [
    `prompt ${formatCount(usage.promptTokens)} tokens, ${formatRate(timings.promptTokensPerSecond)} tokens/s`,
    `generated ${formatCount(usage.completionTokens)} tokens, ${formatRate(timings.generatedTokensPerSecond)} tokens/s`,
    `${threads} ${threads === 1 ? 'thread' : 'threads'}, ${name} ${build}`,
    `memory ${formatBytes(memoryBytes.total)} ${name}, ${formatBytes(process.memoryUsage().arrayBuffers)} ArrayBuffers`,
    `seed ${seed}`
  ].join('; ')
}

/** `echo` and editors end a text with a newline that is not meant: a model would go on in a new paragraph. One is dropped. */
function withoutFinalNewline(text: string): string {
  return text.replace(/\r?\n$/, '')
}
