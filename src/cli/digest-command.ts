/** `mamba-wasm digest`: one number for all results of a model, to be compared between machines and runtimes. */

import { digest } from '../digest.ts'
import { defineCommand } from './command.ts'
import { loadModel, MODEL_OPTIONS } from './model-options.ts'
import { type OptionTable, UsageError } from './options.ts'

const OPTIONS = {
  chunk: { kind: 'integer', value: 'N', min: 1, max: 1e6, help: 'tokens read at a time; any number gives the same digest' },
  concurrent: { kind: 'flag', help: 'all prompts at once: the same digest' },
  json: { kind: 'flag', help: 'print one JSON object, on one line' },
  ...MODEL_OPTIONS
} as const satisfies OptionTable

export const digestCommand = defineCommand({
  name: 'digest',
  summary: 'Prints one number for the logits, states and tokens of fixed prompts.',
  details: [
    'The same on every machine and in every runtime, for any threads, chunks and batches, with and without SIMD: two machines that print the same digest compute the same bits.',
    'With --relaxed, --ssd chunked and --backend reference it is another one, which for --relaxed may differ between machines, for --ssd chunked with --chunk and --concurrent.'
  ],
  operand: { name: 'MODEL', isRequired: false, help: 'the same as --model' },
  options: OPTIONS,
  examples: [
    ['mamba-wasm digest', 'of the embedded model'],
    ['mamba-wasm digest ./my-model --dtype q8_0 --threads 2', 'of another one, in 8 bits']
  ],
  async run(context, values, operand) {
    if (operand !== undefined && values.model !== undefined) throw new UsageError('expected MODEL or --model, got both')
    const mamba = await loadModel(context, { ...values, model: operand ?? values.model })
    try {
      const result = await digest(mamba, { chunk: values.chunk, isConcurrent: values.concurrent, signal: context.signal })
      const report = { digest: result, fingerprint: mamba.fingerprint, backend: mamba.backend }
      await context.terminal.print(values.json ? `${JSON.stringify(report)}\n` : `${result}\n`)
    } finally {
      await mamba.dispose()
    }
  }
})
