/** `mamba-wasm chat`: a conversation, line by line. */

import { createInterface, type Interface } from 'node:readline'
import type { Chat } from '../chat.ts'
import type { Finish } from '../generate.ts'
import type { Mamba } from '../mamba.ts'
import { type Context, defineCommand } from './command.ts'
import { formatCount, formatRate } from './format.ts'
import { readTextFile } from './input.ts'
import { loadModel, MODEL_OPTIONS } from './model-options.ts'
import { type OptionTable, UsageError, type Values } from './options.ts'
import { SAMPLING_OPTIONS, samplingOptions } from './sampling-options.ts'

const OPTIONS = {
  system: { kind: 'text', value: 'TEXT', help: 'a system message at the beginning' },
  'chat-template': { kind: 'text', value: 'FILE', help: "a Jinja template in place of the model's" },
  stats: { kind: 'flag', help: 'figures of each reply on standard error' },
  ...SAMPLING_OPTIONS,
  'max-tokens': { ...SAMPLING_OPTIONS['max-tokens'], fallback: 1024, help: 'tokens of a reply at most' },
  ...MODEL_OPTIONS,
  model: { ...MODEL_OPTIONS.model, help: 'a folder, a file, a URL or a hub id (default: the embedded model, which has no chat template: give one)' }
} as const satisfies OptionTable

export const chatCommand = defineCommand({
  name: 'chat',
  summary: 'Talks with a model that has a chat template.',
  details: [
    'Each line of standard input is a message; the replies go to standard output. What was said is kept in the state: a turn reads what is new alone.',
    'Lines with a meaning of their own: /reset begins anew, /exit ends (as the end of the input does). Ctrl-C stops a reply, and ends where there is none.'
  ],
  operand: { name: 'MODEL', isRequired: false, help: 'as --model' },
  options: OPTIONS,
  examples: [
    ['mamba-wasm chat tiiuae/falcon-mamba-7b-instruct --dtype q8_0', 'a model of the hub, in 8 bits'],
    ['mamba-wasm chat ./my-model.gguf --system "Be brief." --temperature 0', 'a file, with a system message'],
    ['echo "What is a state space?" | mamba-wasm chat ./my-model', 'one question from a pipe']
  ],
  async run(context, values, operand) {
    if (operand !== undefined && values.model !== undefined) throw new UsageError('expected one model, got MODEL and --model')
    const chatTemplate = values['chat-template'] === undefined ? undefined : await readTextFile(values['chat-template'], context.signal)
    const mamba = await loadModel(context, { ...values, model: operand ?? values.model })
    try {
      await talk(context, values, () => startChat(mamba, values, chatTemplate))
    } finally {
      await mamba.dispose()
    }
  }
})

function startChat(mamba: Mamba, values: Values<typeof OPTIONS>, chatTemplate: string | undefined): Chat {
  const { system } = values
  return mamba.chat(system === undefined ? [] : [{ role: 'system', content: system }], { ...samplingOptions(values), chatTemplate })
}

async function talk(context: Context, values: Values<typeof OPTIONS>, start: () => Chat): Promise<void> {
  let chat = start()
  const input = openInput()
  const lines = input[Symbol.asyncIterator]()
  let isClosed = false
  input.once('close', () => (isClosed = true))
  let reply: AbortController | null = null
  context.onInterrupt(() => {
    if (reply === null || reply.signal.aborted) return false
    reply.abort()
    return true
  })
  try {
    for (;;) {
      if (!isClosed) input.prompt()
      const { done, value: line } = await lines.next()
      if (done === true || line === '/exit') return
      if (line === '/reset') {
        await chat.dispose()
        chat = start()
      } else if (line.trim() !== '') {
        reply = new AbortController()
        await printReply(context, values, { chat, line, signal: reply.signal })
        reply = null
      }
    }
  } finally {
    input.close()
    await chat.dispose()
  }
}

/** On a terminal with a prompt and with keys for editing; a pipe has neither. */
function openInput(): Interface {
  const { stdin, stderr } = process
  const isTerminal = stdin.isTTY && stderr.isTTY
  const input = createInterface({ input: stdin, prompt: isTerminal ? '> ' : '', terminal: isTerminal, ...(isTerminal && { output: stderr }) })
  // The terminal sends Ctrl-C as a key while lines are edited.
  input.on('SIGINT', () => process.emit('SIGINT'))
  return input
}

async function printReply(
  { terminal, signal }: Context, { quiet, stats }: Values<typeof OPTIONS>, { chat, line, signal: stop }: { readonly chat: Chat; readonly line: string; readonly signal: AbortSignal }
): Promise<void> {
  let finish: Finish | null = null
  let hasStarted = false
  const onProgress = ({ doneTokens, totalTokens }: { readonly doneTokens: number; readonly totalTokens: number }): void => {
    if (!quiet && !hasStarted) terminal.progress({ label: 'reading', done: doneTokens, total: totalTokens, unit: 'tokens' })
  }
  try {
    for await (const chunk of chat.send(line, { signal: AbortSignal.any([signal, stop]), onProgress })) {
      hasStarted = true
      await terminal.print(chunk.text)
      finish = chunk.finish
    }
  } catch (error) {
    // A reply that was stopped is none that failed; where the program is, its own end sees to it. At the end of a context /reset helps.
    if (error instanceof RangeError && !stop.aborted) terminal.note(`${error.message}; /reset begins anew`)
    else if (!stop.aborted) throw error
  }
  terminal.clearProgress()
  terminal.endLine()
  if (stats && finish !== null) terminal.note(figures(chat, finish))
}

function figures({ reading }: Chat, { seed, usage, timings }: Finish): string {
  return [
    `kept ${formatCount(reading?.keptTokens ?? 0)} tokens`,
    `read ${formatCount(usage.promptTokens)}, ${formatRate(timings.promptTokensPerSecond)} tokens/s`,
    `generated ${formatCount(usage.completionTokens)}, ${formatRate(timings.generatedTokensPerSecond)} tokens/s`,
    `seed ${seed}`
  ].join('; ')
}
