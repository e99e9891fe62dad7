/** `mamba-wasm bench`: how fast a model runs here, and with --profile where the time goes. */

import type { Backend, BackendInfo, Batch, SteppingBackend, TimingBackend } from '../backend/backend.ts'
import { createEngine, type Engine } from '../engine.ts'
import { messageOf } from '../errors.ts'
import { type LoadProgress, loadFrom } from '../load.ts'
import { createLimitKernels, type LimitKernel, type Limits } from '../limits.ts'
import { leastSeconds, limitsOfThreads, type Profile, profile, type ProfileLine, type Work } from '../profile.ts'
import { resolveSource } from '../source.ts'
import { type Context, defineCommand } from './command.ts'
import { formatCount, formatRate, formatTable } from './format.ts'
import { engineOptions, MODEL_OPTIONS, sourceOptions } from './model-options.ts'
import { type OptionTable, UsageError, type Values } from './options.ts'
import { platform } from '#platform'

const OPTIONS = {
  tokens: { kind: 'integer', short: 'n', value: 'N', min: 1, max: 1e6, fallback: 512, help: 'tokens of the prompt' },
  steps: { kind: 'integer', value: 'N', min: 1, max: 1e6, fallback: 64, help: 'tokens read one at a time, as in generating' },
  repeats: { kind: 'integer', value: 'N', min: 1, max: 1000, fallback: 5, help: 'times that each is measured' },
  profile: { kind: 'flag', help: "the time of each kind of op, and on the CPU how near it comes to the machine's limits" },
  json: { kind: 'flag', help: 'print one JSON object, on one line' },
  ...MODEL_OPTIONS
} as const satisfies OptionTable

type BenchValues = Values<typeof OPTIONS>

export const benchCommand = defineCommand({
  name: 'bench',
  summary: 'Measures how fast a model runs: reading a prompt, and one token after the other.',
  details: [
    'The tokens are random ones, the figures medians over the repeats. Sampling and text are not part of them.',
    'With --profile the program runs op by op: a chunk of the prompt, and one token. On a GPU the times are by its own clock, and its limits are not measured.'
  ],
  operand: { name: 'MODEL', isRequired: false, help: 'the same as --model' },
  options: OPTIONS,
  examples: [
    ['mamba-wasm bench', 'the embedded model'],
    ['mamba-wasm bench --model ./my-model --dtype q8_0 --threads 2', 'another model, in 8 bits, on two cores'],
    ['mamba-wasm bench --profile --threads 1', 'where the time goes']
  ],
  async run(context, values, operand) {
    if (operand !== undefined && values.model !== undefined) throw new UsageError('expected MODEL or --model, got both')
    const backend = await load(context, values, operand ?? values.model)
    const engine = createEngine(backend)
    try {
      const speeds = await measureSpeeds(context, engine, values)
      const details = values.profile ? await measureProfiles(engine, context.signal) : null
      const report = { backend: backend.info, ...speeds, profile: details }
      await context.terminal.print(values.json ? `${JSON.stringify(report)}\n` : textOf(backend, speeds, details))
    } finally {
      await engine.dispose()
    }
  }
})

async function load(context: Context, values: BenchValues, model: string | undefined): Promise<Backend> {
  const { backend, build, quiet, profile: wantsProfile } = values
  if (wantsProfile && (backend === 'reference' || build === 'scalar')) {
    throw new UsageError(`expected no ${build === 'scalar' ? '--build scalar' : `--backend ${backend}`} with --profile: the limits are those of SIMD`)
  }
  const onProgress = ({ phase, file, loadedBytes, totalBytes }: LoadProgress): void => {
    if (!quiet) context.terminal.progress({ label: phase === 'download' ? `downloading ${file}` : 'loading', done: loadedBytes, total: totalBytes, unit: 'bytes' })
  }
  const { signal } = context
  const options = engineOptions(values)
  const { checkEngineOptions } = await import('../engine-options.ts')
  checkEngineOptions(options)
  const files = await resolveSource(model, { ...sourceOptions(context, values, model), onProgress: (progress) => onProgress({ phase: 'download', ...progress }) })
  const loaded = await loadFrom(files, { ...options, signal, onProgress })
  context.terminal.clearProgress()
  return loaded.backend
}

interface Speed {
  readonly nTokens: number
  readonly medianMs: number
  readonly tokensPerSecond: number
  /** Of each repeat. */
  readonly samplesMs: readonly number[]
}

interface Speeds {
  readonly prefill: Speed
  readonly decode: Speed
}

async function measureSpeeds({ terminal, signal }: Context, engine: Engine, { tokens, steps, repeats, quiet }: BenchValues): Promise<Speeds> {
  const prompt = randomIds(engine.backend, tokens)
  const ids = randomIds(engine.backend, steps)
  const samplesMs = { prefill: [] as number[], decode: [] as number[] }
  const options = { signal, onLogits() {} }
  // The first turn is V8's: it compiles while it runs, and is not counted.
  for (let repeat = 0; repeat <= repeats; repeat++) {
    const sequence = engine.sequence()
    const startMs = performance.now()
    await engine.run(sequence, prompt, 'last', options)
    const readMs = performance.now()
    for (let i = 0; i < ids.length; i++) await engine.run(sequence, ids.subarray(i, i + 1), 'last', options)
    const endMs = performance.now()
    await engine.release(sequence)
    if (!quiet) terminal.progress({ label: 'measuring', done: (repeat + 1) * (tokens + steps), total: (repeats + 1) * (tokens + steps), unit: 'tokens' })
    if (repeat === 0) continue
    samplesMs.prefill.push(readMs - startMs)
    samplesMs.decode.push(endMs - readMs)
  }
  terminal.clearProgress()
  return { prefill: speedOf(tokens, samplesMs.prefill), decode: speedOf(steps, samplesMs.decode) }
}

function speedOf(nTokens: number, samplesMs: readonly number[]): Speed {
  const medianMs = [...samplesMs].sort((a, b) => a - b)[samplesMs.length >> 1]
  return { nTokens, medianMs, tokensPerSecond: (1000 * nTokens) / medianMs, samplesMs }
}

function randomIds({ program }: Backend, count: number): Int32Array {
  return Int32Array.from({ length: count }, () => Math.floor(Math.random() * program.vocabSize))
}

interface Details {
  readonly chunk: Profile
  readonly token: Profile
}

async function measureProfiles({ backend, maxLength }: Engine, signal: AbortSignal): Promise<Details> {
  if (!isProfiled(backend)) throw new TypeError(messageOf({ place: backend.info.name, expected: 'a backend that runs op by op', got: 'another' }))
  const limits = 'timeOps' in backend ? [] : await limitsOf(backend)
  const batch = (nRows: number): Batch => ({ tokens: randomIds(backend, nRows), segments: [{ slot: 0, position: 0, firstRow: 0, nRows, logits: 'last' }] })
  const chunk = await profile(backend, batch(Math.min(backend.capacity.maxRows, maxLength)), { limits, signal })
  return { chunk, token: await profile(backend, batch(1), { limits, signal, repeats: 15 }) }
}

async function limitsOf({ info }: Backend): Promise<LimitKernel[]> {
  const isShared = info.threads > 1
  return createLimitKernels({ core: await platform.wasmModule(isShared ? 'simd-threads' : 'simd'), isShared, workingBytes: info.memoryBytes.weights })
}

function isProfiled(backend: Backend): backend is SteppingBackend | TimingBackend {
  return 'begin' in backend || 'timeOps' in backend
}

function textOf({ info }: Backend, { prefill, decode }: Speeds, details: Details | null): string {
  const { name, build, threads } = info
  const speeds = formatTable([
    ['backend', `${name} ${build}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`],
    [`prompt of ${formatCount(prefill.nTokens)} tokens`, `${formatRate(prefill.tokensPerSecond)} tokens/s`],
    ['one token at a time', `${formatRate(decode.tokensPerSecond)} tokens/s, ${(decode.medianMs / decode.nTokens).toFixed(3)} ms each`]
  ])
  if (details === null) return speeds
  return `${speeds}\n${remarkOn(info)}${profileText(details.chunk)}\n${profileText(details.token)}`
}

/** On what the times of ops are. */
function remarkOn({ name, threads }: BackendInfo): string {
  if (name === 'webgpu') return "Op by op times are the GPU's own, each op a pass of its own. In one go is by the host's clock: the way to the GPU and back is in it.\n\n"
  if (threads === 1) return ''
  return `Op by op each op ends with a barrier, which a whole run often does without. The limits are ${threads} times those of one core, which memory may not reach.\n\n`
}

function profileText({ nTokens, threads, lines, totalMs, wholeMs, limits }: Profile): string {
  const all = limits && limitsOfThreads(limits, threads)
  const ofLimit = (line: ProfileLine): string[] => (all === null ? [] : [percent(leastOf(line.works, all) / (line.elapsedMs / 1000))])
  const rows = lines.map((line) => [`  ${line.name}`, `${line.nOps}`, line.elapsedMs.toFixed(3), percent(line.share), ...ratesOf(line), ...ofLimit(line)])
  const rest = lines.filter(({ kind }) => kind !== 'linear' && kind !== 'selectiveScan' && kind !== 'ssdScan').reduce((sum, { share }) => sum + share, 0)
  const wholeShare = all && lines.reduce((sum, { works }) => sum + leastOf(works, all), 0) / (wholeMs / 1000)
  return [
    `${formatCount(nTokens)} ${nTokens === 1 ? 'token' : 'tokens'}: ${totalMs.toFixed(3)} ms op by op, ${wholeMs.toFixed(3)} ms in one go (${formatRate((1000 * nTokens) / wholeMs)} tokens/s)`,
    ...(limits ? [`  one core: ${giga(limits.flop)} GFLOP/s in f32, ${giga(limits.intOp)} GOP/s in integers, ${giga(limits.byte)} GB/s read, ${giga(limits.exp2)} G exp2/s`] : []),
    formatTable([['  op', 'ops', 'ms', 'share', 'rate', '', ...(limits ? ['of limit'] : [])], ...rows], [1, 2, 3, 4, 5, 6]).trimEnd(),
    `  outside linear and scan: ${percent(rest)}${wholeShare === null ? '' : `; in one go: ${percent(wholeShare)} of the limits`}\n`
  ].join('\n')
}

function leastOf(works: readonly Work[], limits: Limits): number {
  return works.reduce((sum, work) => sum + leastSeconds(work, limits), 0)
}

/** Arithmetic and bytes of a linear op; of others what they do. */
function ratesOf({ works, elapsedMs }: ProfileLine): [string, string] {
  const rate = (name: keyof Limits, unit: string): string => {
    const amount = works.reduce((sum, work) => sum + (work[name] ?? 0), 0)
    return amount === 0 ? '' : `${giga(amount / (elapsedMs / 1000))} ${unit}`
  }
  return [rate('exp2', 'G exp2/s') || rate('intOp', 'GOP/s') || rate('flop', 'GFLOP/s'), rate('byte', 'GB/s')]
}

function giga(perSecond: number): string {
  return (perSecond / 1e9).toPrecision(3)
}

function percent(part: number): string {
  return `${(100 * part).toFixed(1)} %`
}
