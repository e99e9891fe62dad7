/** The options that say which model, from where, and what it runs on; and a model loaded by them. */

import { BACKENDS, BUILDS, type EngineOptions, type LoadProgress, MAX_CONTEXT, WEIGHT_DTYPES } from '../load.ts'
import { Mamba } from '../mamba.ts'
import type { SourceOptions } from '../source.ts'
import type { Context } from './command.ts'
import type { OptionTable, Values } from './options.ts'

export const SOURCE_OPTIONS = {
  revision: { kind: 'text', value: 'NAME', help: "branch, tag or commit of a hub's model (default: main)" },
  host: { kind: 'text', value: 'URL', help: 'the hub (default: https://huggingface.co)' },
  token: { kind: 'text', value: 'TOKEN', help: 'access token for the hub or URL; without it HF_TOKEN is sent, to huggingface.co alone' },
  'cache-folder': { kind: 'text', value: 'FOLDER', help: 'where downloads are kept (default: ~/.cache/mamba-wasm)' },
  quiet: { kind: 'flag', short: 'q', help: 'no progress bar, no figures' }
} as const satisfies OptionTable

export const MODEL_OPTIONS = {
  model: { kind: 'text', short: 'm', value: 'MODEL', help: 'a folder, a file, a URL or a hub id (default: the embedded model)' },
  backend: { kind: 'choice', choices: BACKENDS, fallback: 'wasm', help: 'what computes; wasm gives the same text everywhere, webgpu needs a GPU, auto takes one where it is faster, the reference is slow and exact' },
  build: { kind: 'choice', choices: BUILDS, fallback: 'auto', help: 'build of the WebAssembly core; all give the same text' },
  dtype: { kind: 'choice', choices: WEIGHT_DTYPES, fallback: 'auto', help: 'format of the large matrices; auto keeps what the file has' },
  threads: { kind: 'integer', value: 'N', min: 1, max: 64, help: 'any number gives the same text (default: by cores and model size)' },
  'context-length': { kind: 'integer', value: 'N', min: 1, max: MAX_CONTEXT, help: "models with attention: tokens that a text may have (default: the model's own, at most 4096)" },
  relaxed: { kind: 'flag', help: 'fused multiply-and-add: faster, last digits may differ between machines' },
  ssd: { kind: 'choice', choices: ['recurrent', 'chunked'], fallback: 'recurrent', help: "Mamba-2: chunked takes prompts by matrix products; last digits depend on how the text is split" },
  'norm-groups': { kind: 'integer', value: 'N', min: 1, max: 2 ** 20, help: "Mamba-2: parts that the gated norm takes by themselves (default: as the config's form says)" },
  ...SOURCE_OPTIONS
} as const satisfies OptionTable

/** For `resolveSource` and `Mamba.load`. `source` is undefined for the embedded model. */
export function sourceOptions(context: Context, values: Values<typeof SOURCE_OPTIONS>, source: string | undefined): Omit<SourceOptions, 'onProgress'> {
  const { revision, host, 'cache-folder': cacheFolder } = values
  const isDefaultHub = host === undefined && source !== undefined && !/^[a-z]+:\/\//i.test(source)
  // HF_TOKEN is there for one host: another one, whose address is given, must be given its token too.
  const token = values.token ?? ((isDefaultHub && context.env['HF_TOKEN']) || undefined)
  return { revision, host, token, cacheFolder, signal: context.signal }
}

/** What the model runs on. */
export function engineOptions(values: Values<Omit<typeof MODEL_OPTIONS, keyof typeof SOURCE_OPTIONS>>): EngineOptions {
  const { backend, build, dtype, threads, relaxed, ssd, 'context-length': contextLength, 'norm-groups': normGroups } = values
  return { backend, build, dtype, threads, relaxed, ssd, contextLength, normGroups }
}

/** Loads the model that the options name, with a bar. */
export async function loadModel(context: Context, values: Values<typeof MODEL_OPTIONS>): Promise<Mamba> {
  const { model, quiet } = values
  const onProgress = ({ phase, file, loadedBytes, totalBytes }: LoadProgress): void => {
    context.terminal.progress({ label: phase === 'download' ? `downloading ${file}` : 'loading', done: loadedBytes, total: totalBytes, unit: 'bytes' })
  }
  const mamba = await Mamba.load(model, { ...sourceOptions(context, values, model), ...engineOptions(values), ...(!quiet && { onProgress }) })
  context.terminal.clearProgress()
  for (const [file, reason] of mamba.notKept) context.terminal.note(`${file} is not kept: ${reason}`)
  return mamba
}
