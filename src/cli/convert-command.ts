/** `mamba-wasm convert`: a checkpoint as a GGUF file. */

import { open, rename, rm } from 'node:fs/promises'
import { basename } from 'node:path'
import { convertToGguf } from '../convert.ts'
import { resolveSource } from '../source.ts'
import { defineCommand } from './command.ts'
import { formatBytes } from './format.ts'
import { MODEL_OPTIONS, SOURCE_OPTIONS, sourceOptions } from './model-options.ts'
import { type OptionTable, UsageError } from './options.ts'

const TYPES = { q8_0: 'Q8_0', q4_0: 'Q4_0', q4_k: 'Q4_K', q6_k: 'Q6_K', f16: 'F16', bf16: 'BF16', f32: 'F32' } as const

const OPTIONS = {
  output: { kind: 'text', short: 'o', value: 'FILE', help: 'where to write, always given; a name that ends in .gguf' },
  type: { kind: 'choice', choices: ['q8_0', 'q4_0', 'q4_k', 'q6_k', 'f16', 'bf16', 'f32'], fallback: 'q8_0', help: 'of the larger matrices; the rest stays exact' },
  name: { kind: 'text', value: 'TEXT', help: "the model's name in the file (default: the output's)" },
  'norm-groups': MODEL_OPTIONS['norm-groups'],
  ...SOURCE_OPTIONS
} as const satisfies OptionTable

export const convertCommand = defineCommand({
  name: 'convert',
  summary: 'Writes a checkpoint as a GGUF file, quantized or not; it also runs in llama.cpp.',
  details: [
    'The tokenizer goes along. The file appears when it is complete.',
    'Rows of q4_k and q6_k are multiples of 256: other matrices become q8_0, and the last line of the output counts the types.'
  ],
  operand: { name: 'MODEL', isRequired: true, help: 'a folder, a file, a URL or a hub id' },
  options: OPTIONS,
  examples: [
    ['mamba-wasm convert ./my-model --output my-model-q8_0.gguf', 'in 8 bits'],
    ['mamba-wasm convert ./my-model --output my-model-f16.gguf --type f16', 'in half floats']
  ],
  async run(context, values, operand) {
    const { output, type, quiet, 'norm-groups': normGroups } = values
    if (output === undefined || !output.endsWith('.gguf')) throw new UsageError(`--output: expected a file name that ends in .gguf, got ${output ?? 'none'}`)
    const progress = (label: string, done: number, total: number): void => {
      if (!quiet) context.terminal.progress({ label, done, total, unit: 'bytes' })
    }
    const files = await resolveSource(operand, {
      ...sourceOptions(context, values, operand),
      onProgress: ({ file, loadedBytes, totalBytes }) => progress(`downloading ${file}`, loadedBytes, totalBytes)
    })
    const partPath = `${output}.${process.pid}.part`
    const file = await open(partPath, 'w')
    try {
      const sink = {
        async write(bytes: Uint8Array): Promise<void> {
          for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done)).bytesWritten
        }
      }
      const name = values.name ?? basename(output, '.gguf')
      const counts = new Map<string, number>()
      const byteLength = await convertToGguf(files, {
        type: TYPES[type], name, sink, normGroups, signal: context.signal,
        onTensor: ({ dtype }) => void counts.set(dtype, (counts.get(dtype) ?? 0) + 1),
        onProgress: ({ doneBytes, totalBytes }) => progress('converting', doneBytes, totalBytes)
      })
      context.terminal.clearProgress()
      await file.close()
      await rename(partPath, output)
      if (!quiet) context.terminal.note(`${output}: ${formatBytes(byteLength)}; ${[...counts].map(([dtype, count]) => `${count} × ${dtype}`).join(', ')}`)
    } catch (error) {
      await file.close()
      await rm(partPath, { force: true })
      throw error
    }
  }
})
