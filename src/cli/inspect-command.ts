/** `mamba-wasm inspect`: what a checkpoint holds, read from its headers alone. */

import { type Checkpoint, openCheckpoint } from '../checkpoint/open-checkpoint.ts'
import { CheckpointError, UnsupportedError } from '../errors.ts'
import { loadArchitecture, readModelConfig } from '../model/architectures.ts'
import { resolveSource } from '../source.ts'
import { defineCommand } from './command.ts'
import { formatBytes, formatCount, formatTable } from './format.ts'
import { SOURCE_OPTIONS, sourceOptions } from './model-options.ts'
import type { OptionTable } from './options.ts'

const OPTIONS = {
  json: { kind: 'flag', help: 'print one JSON object, on one line' },
  ...SOURCE_OPTIONS
} as const satisfies OptionTable

export const inspectCommand = defineCommand({
  name: 'inspect',
  summary: "Shows a model's config and tensors.",
  details: ['Reads the config and the headers, not the weights; also of models that this version cannot run.'],
  operand: { name: 'MODEL', isRequired: false, help: 'a folder, a file, a URL or a hub id (default: the embedded model)' },
  options: OPTIONS,
  examples: [
    ['mamba-wasm inspect', 'the embedded model'],
    ['mamba-wasm inspect ./my-model', 'a folder with config.json and model.safetensors or pytorch_model.bin'],
    ['mamba-wasm inspect --json https://example.com/my-model', 'files on the web, for programs']
  ],
  async run(context, values, operand) {
    const { terminal, signal } = context
    const files = await resolveSource(operand, {
      ...sourceOptions(context, values, operand),
      // Headers alone are read: nothing to keep, unless a folder is named.
      cacheFolder: values['cache-folder'] ?? null,
      onProgress({ file, loadedBytes, totalBytes }) {
        if (!values.quiet) terminal.progress({ label: `downloading ${file}`, done: loadedBytes, total: totalBytes, unit: 'bytes' })
      }
    })
    const checkpoint = await openCheckpoint(files, { signal })
    try {
      const report = await reportOf(checkpoint)
      await terminal.print(values.json ? `${JSON.stringify(report)}\n` : textOf(report))
    } finally {
      await checkpoint.close()
    }
  }
})

interface TensorReport {
  readonly name: string
  /** As the file names it. */
  readonly dtype: string
  readonly shape: readonly number[]
  readonly bytes: number
  readonly file: string
}

interface Report {
  readonly name: string
  readonly modelType: string | null
  readonly supported: boolean
  /** Why it is not supported. */
  readonly reason: string | null
  /** Elements of all tensors. */
  readonly parameters: number
  readonly bytes: number
  /** config.json as it is. */
  readonly config: Checkpoint['config']
  readonly tensors: readonly TensorReport[]
}

/** Layer 2 comes before layer 10. */
const byName = new Intl.Collator('en', { numeric: true })

async function reportOf(checkpoint: Checkpoint): Promise<Report> {
  const { name, config, totalBytes } = checkpoint
  const tensors = [...checkpoint.tensors.values()]
    .map(({ name, dtype, shape, byteLength, source }) => ({ name, dtype, shape, bytes: byteLength, file: source.name }))
    .sort((a, b) => byName.compare(a.name, b.name))
  const parameters = tensors.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0)
  return { name, ...(await supportOf(checkpoint)), parameters, bytes: totalBytes, config, tensors }
}

/** Whether this version knows the architecture. The tensors are checked when a model is loaded, and not here. */
async function supportOf({ name, config }: Checkpoint): Promise<Pick<Report, 'modelType' | 'supported' | 'reason'>> {
  const place = `${name}: config.json`
  try {
    return { modelType: readModelConfig(await loadArchitecture(config, place), config, place).modelType, supported: true, reason: null }
  } catch (error) {
    if (!(error instanceof UnsupportedError || error instanceof CheckpointError)) throw error
    const modelType = config['model_type']
    return { modelType: typeof modelType === 'string' ? modelType : null, supported: false, reason: error.message }
  }
}

function textOf({ name, modelType, supported, reason, parameters, bytes, config, tensors }: Report): string {
  const support = supported ? '' : ' (not supported by this version)'
  const head = [
    ['model', name],
    ['model_type', `${modelType ?? 'none'}${support}`],
    ...(reason === null ? [] : [['reason', reason]]),
    ['parameters', formatCount(parameters)],
    ['bytes', `${formatCount(bytes)} (${formatBytes(bytes)})`]
  ]
  const rows = tensors.map(({ name, dtype, shape, bytes }) => [`  ${name}`, dtype, `(${shape.join(', ')})`, formatCount(bytes)])
  return [
    formatTable(head),
    `config.json\n${formatTable(Object.entries(config).map(([key, value]) => [`  ${key}`, JSON.stringify(value)]))}`,
    `${formatCount(tensors.length)} tensors\n${formatTable([['  name', 'dtype', 'shape', 'bytes'], ...rows], [3])}`
  ].join('\n')
}
