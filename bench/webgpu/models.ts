/**
 * Whole models on a GPU: decoding and prompts on random weights of the shapes of the published checkpoints.
 *
 *   node --conditions=source bench/webgpu/models.ts [OPTIONS]
 *
 * Needs Node 24, the npm package `webgpu` where Node finds it, and the Vulkan loader (libvulkan.so.1) with a driver; of this repository
 * src/, assembly/abi.ts, bench/ and package.json, and the package @assemblyscript/loader. Nothing is built, and no wasm is used.
 *
 * Decoding is measured as a caller has it who waits for each token's logits before the next (`ms`), with tokens that follow each other without
 * being waited for (`gpuMs`): what the GPU takes, and of a lone sequence as a greedy caller has it, to whom the GPU tells the likeliest token
 * (`greedyMs`). The fraction of the bandwidth limit is the bytes of the weights that a token reads over its time, over what a shader that only reads
 * reaches in the same run. Then each model's greedy tokens are checked against its logits, and these against those of the ops one by one.
 * bench/webgpu/peer.py measures transformers on the same shapes.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Batch, Best } from '../../src/backend/backend.ts'
import { adapterName, openDevice } from '../../src/backend/webgpu/device.ts'
import { openWebGpuBackend } from '../../src/backend/webgpu/open.ts'
import type { WebGpuBackend } from '../../src/backend/webgpu/webgpu-backend.ts'
import { weightLayouts } from '../../src/backend/webgpu/weights.ts'
import { describeOptions, type OptionTable, parseOptions, UsageError, type Values } from '../../src/cli/options.ts'
import { capacityOf } from '../../src/load.ts'
import { platform } from '../../src/platform/node.ts'
import type { WeightFormat } from '../../src/program/formats.ts'
import type { Parameter, Program, View } from '../../src/program/ops.ts'
import { currentCommit, describeMachine } from '../machine.ts'
import { createNumbers } from '../numbers.ts'
import { ROOT } from '../paths.ts'
import { createRandomModel, type Shape } from '../random-model.ts'
import { type GpuLimits, measureGpuLimits, medianSeconds } from './gpu-limits.ts'
import { kernelTimes, type StepTimes } from './kernel-times.ts'
import { bytesOfToken, writeRandomWeights } from './random-weights.ts'

const SHAPES: Readonly<Record<string, Shape>> = {
  'mamba-2.8b': { vocabSize: 50280, dModel: 2560, nLayers: 64 },
  'mamba-1.4b': { vocabSize: 50280, dModel: 2048, nLayers: 48 },
  'mamba2-2.7b': { vocabSize: 50280, dModel: 2560, nLayers: 64, modelType: 'mamba2' },
  'mamba-130m': { vocabSize: 50280, dModel: 768, nLayers: 24 },
  // Shows that everything runs.
  tiny: { vocabSize: 96, dModel: 64, nLayers: 2 },
  tiny2: { vocabSize: 96, dModel: 64, nLayers: 2, modelType: 'mamba2' }
}

const OPTIONS = {
  shapes: { kind: 'text', value: 'A,B', help: `of ${Object.keys(SHAPES).join(', ')}; all but the tiny ones by default` },
  formats: { kind: 'text', value: 'F,G', help: 'of the large matrices; f16,f32,q8_0 by default' },
  prompts: { kind: 'text', value: 'N,M', help: 'tokens; 512,2048,16384 by default' },
  batches: { kind: 'text', value: 'N,M', help: 'sequences that are decoded at once; 1,32 by default' },
  ssd: { kind: 'choice', choices: ['recurrent', 'chunked'], fallback: 'chunked', help: "Mamba-2's state space on prompts" },
  seconds: { kind: 'number', value: 'S', min: 1, fallback: 300, help: 'begin nothing that would end later' },
  'read-mib': { kind: 'integer', value: 'N', min: 1, fallback: 1024, help: 'memory that the bandwidth is measured on' },
  profile: { kind: 'flag', help: 'tell what each kernel takes, at each decoding and at the first prompt' },
  json: { kind: 'text', value: 'FILE', help: 'write the results to FILE, after every model' },
  help: { kind: 'flag', short: 'h', help: 'show this text' }
} as const satisfies OptionTable

interface Row {
  readonly shape: string
  readonly format: string
  readonly kind: 'decode' | 'prefill'
  /** Sequences. */
  readonly batch: number
  /** Of each. */
  readonly tokens: number
  /** Of a step of all sequences, or of the whole prompt; the median. */
  readonly ms: number
  /** Of a step that nobody waits for, and how long the host takes to submit it. */
  readonly gpuMs?: number
  readonly hostMs?: number
  /** Of a step whose likeliest token is waited for and read by the next one. */
  readonly greedyMs?: number
  readonly tokensPerSecond: number
  /** Of `ms`, `gpuMs` and `greedyMs`. */
  readonly ofBandwidth?: readonly number[]
  readonly weightBytes?: number
  readonly profile?: StepTimes
}

/** Steps of one model, each way from the same state. */
interface Check {
  readonly shape: string
  readonly format: string
  /** The tokens that the GPU found. */
  readonly greedy: readonly Best[]
  /** Those of the logits read back. */
  readonly likeliest: readonly Best[]
  /** Between the logits of the fused kernels and those of the ops one by one, as a fraction of the largest logit. */
  readonly logitsError: number
}

interface Report {
  readonly date: string
  readonly commit: unknown
  readonly command: string
  readonly adapter: string
  readonly machine: unknown
  readonly ssd: string
  readonly limits: GpuLimits
  readonly rows: Row[]
  readonly checks: Check[]
  /** What was not measured, and why. */
  readonly left: string[]
}

/** What is measured of one model. */
interface Subject {
  readonly shape: string
  readonly format: string
  readonly backend: WebGpuBackend
  readonly weightBytes: number
  readonly limits: GpuLimits
  readonly hasProfile: boolean
  /** Milliseconds that are left. */
  readonly left: () => number
}

const lists = (text: string | undefined, fallback: string): string[] => (text ?? fallback).split(',')

async function run(args: readonly string[]): Promise<void> {
  const { values } = parseOptions(OPTIONS, args)
  if (values.help) return void process.stdout.write(`Usage: node --conditions=source bench/webgpu/models.ts [OPTIONS]\n\n${describeOptions(OPTIONS)}\n`)
  const endMs = performance.now() + 1000 * values.seconds
  const device = await openDevice(await platform.gpu())
  const limits = await measureGpuLimits(device, values['read-mib'] * 2 ** 20)
  const report: Report = {
    date: new Date().toISOString(), commit: currentCommit() ?? copiedCommit(), command: `bench/webgpu/models.ts ${args.join(' ')}`,
    adapter: adapterName(device), machine: describeMachine(), ssd: values.ssd, limits, rows: [], checks: [], left: []
  }
  print(`${report.adapter}: reads ${(limits.bandwidth / 1e9).toFixed(0)} GB/s, an empty submission takes ${(1e6 * limits.submission).toFixed(0)} µs, a dispatch ${(1e6 * limits.dispatch).toFixed(2)} µs`)
  const save = (): void => {
    if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(report, null, 2))
  }
  for (const format of lists(values.formats, 'f16,f32,q8_0')) {
    for (const shape of lists(values.shapes, 'mamba-2.8b,mamba-1.4b,mamba2-2.7b,mamba-130m')) {
      try {
        await measureModel(device, { shape, format, values, report, left: () => endMs - performance.now() })
      } catch (error) {
        // The others still tell something.
        note(report, `${shape} ${format}: ${error instanceof Error ? error.stack : String(error)}`)
        process.exitCode = 1
      }
      save()
    }
  }
  device.destroy()
}

/** Of a copy without its repository. */
function copiedCommit(): string | null {
  try {
    return readFileSync(join(ROOT, 'COMMIT'), 'utf8').trim()
  } catch {
    return null
  }
}

function note(report: Report, text: string): void {
  report.left.push(text)
  print(`not measured: ${text}`)
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

async function measureModel(device: GPUDevice, { shape, format, values, report, left }: {
  shape: string; format: string; values: Values<typeof OPTIONS>; report: Report; left: () => number
}): Promise<void> {
  const sizes = SHAPES[shape]
  if (sizes === undefined) throw new UsageError(`shape ${shape}: expected one of ${Object.keys(SHAPES).join(', ')}`)
  const model = createRandomModel(sizes)
  const formatOf = ({ isSensitive }: Parameter): WeightFormat => (isSensitive ? 'f32' : (format as WeightFormat))
  const layouts = weightLayouts(model.program, formatOf)
  const weightBytes = bytesOfToken(model, layouts)
  // Some 3 GB/s of weights to make and pipelines to compile, before anything is measured.
  if (left() < 5000 + weightBytes / 3e6) return note(report, `${shape} ${format}: no time left`)
  const batches = lists(values.batches, '1,32').map(Number)
  const startMs = performance.now()
  const backend = await openWebGpuBackend(model.program, (chunk) => capacityOf(model.program, Math.max(...batches), undefined, chunk), { device, formatOf, ssd: values.ssd })
  try {
    await writeRandomWeights(model, backend, layouts)
    print(`${shape} ${format}: ${(weightBytes / 1e9).toFixed(2)} GB of weights a token, chunks of ${backend.capacity.maxRows} rows; ready in ${((performance.now() - startMs) / 1000).toFixed(1)} s`)
    const subject: Subject = { shape, format, backend, weightBytes, limits: report.limits, hasProfile: values.profile, left }
    for (const batch of batches) add(report, await measureDecode(subject, batch))
    let known = 0
    for (const [i, tokens] of lists(values.prompts, '512,2048,16384').map(Number).entries()) {
      const expectedMs = known * tokens
      if (expectedMs > Math.min(left(), LONGEST_PROMPT_MS)) {
        note(report, `${shape} ${format}, a prompt of ${tokens}: it would take ${(expectedMs / 1000).toFixed(0)} s, and ${(left() / 1000).toFixed(0)} s are left`)
        continue
      }
      const row = await measurePrefill(subject, tokens, i === 0)
      known = row.ms / tokens
      add(report, row)
    }
    // Last: what was measured is kept where it fails.
    const check = await checkSteps(subject)
    report.checks.push(check)
    judge(check)
  } finally {
    await backend.dispose()
  }
}

const LONGEST_PROMPT_MS = 20_000

function add(report: Report, row: Row): void {
  report.rows.push(row)
  const { shape, format, kind, batch, tokens, ms, gpuMs, hostMs, greedyMs, tokensPerSecond, ofBandwidth, profile } = row
  const what = kind === 'decode' ? `decode, batch ${batch}` : `prompt of ${tokens}`
  const gpu = gpuMs === undefined || ofBandwidth === undefined ? '' : `, not waited for ${gpuMs.toFixed(3)} ms, of the host ${hostMs?.toFixed(3)}${greedyMs === undefined ? '' : `, greedy ${greedyMs.toFixed(3)} ms`}; ${ofBandwidth.map((part) => `${(100 * part).toFixed(0)} %`).join(', ')} of the bandwidth`
  print(`${shape} ${format} ${what}: ${tokensPerSecond.toFixed(1)} tokens/s, ${ms.toFixed(3)} ms${gpu}`)
  if (profile === undefined) return
  print(`    ${profile.ms.toFixed(3)} ms  by the GPU's clock`)
  for (const { label, dispatches, ms } of profile.kernels) print(`    ${ms.toFixed(3)} ms  ${dispatches} × ${((1000 * ms) / dispatches).toFixed(1)} µs  ${label}`)
}

const WARM_UPS = 3
const STEPS = 30
const LONGEST_DECODE_MS = 4000

async function measureDecode(subject: Subject, nSequences: number): Promise<Row> {
  const { shape, format, backend, weightBytes, limits, hasProfile } = subject
  const { program, device } = backend
  const tokens = tokensOf(program.vocabSize, nSequences)
  const logits = new Float32Array(nSequences * program.vocabSize)
  const batchAt = (position: number): Batch => ({ tokens, segments: Array.from({ length: nSequences }, (_, slot) => ({ slot, position, firstRow: slot, nRows: 1, logits: 'last' })) })
  for (let slot = 0; slot < nSequences; slot++) await backend.clearState(slot)
  let position = 0
  const step = (): Promise<void> => backend.forward(batchAt(position++), logits)
  for (let i = 0; i < WARM_UPS; i++) await step()
  checkLogits(logits, `${shape} ${format}`)
  const once = await medianSeconds(3, step)
  const steps = Math.max(3, Math.min(STEPS, Math.floor(LONGEST_DECODE_MS / 2000 / once)))
  const seconds = await medianSeconds(steps, step)
  let hostMs = Infinity
  const follow = async (): Promise<void> => {
    const startMs = performance.now()
    for (let i = 0; i < steps; i++) {
      backend.begin(batchAt(position++))
      await backend.runAll()
    }
    hostMs = Math.min(hostMs, (performance.now() - startMs) / steps)
    await device.queue.onSubmittedWorkDone()
  }
  const gpuSeconds = (await medianSeconds(5, follow)) / steps
  const greedySeconds = nSequences === 1 ? await measureGreedy(backend, position, steps) : undefined
  const times = [seconds, gpuSeconds, ...(greedySeconds === undefined ? [] : [greedySeconds])]
  const part = (time: number): number => weightBytes / time / limits.bandwidth
  return {
    shape, format, kind: 'decode', batch: nSequences, tokens: 1, ms: 1000 * seconds, gpuMs: 1000 * gpuSeconds, hostMs, tokensPerSecond: nSequences / seconds,
    ...(greedySeconds !== undefined && { greedyMs: 1000 * greedySeconds }), weightBytes, ofBandwidth: times.map(part),
    ...(hasProfile && { profile: await kernelTimes(backend, batchAt(position), nSequences) })
  }
}

const stepBatch = (token: number, position: number): Batch => ({ tokens: Int32Array.of(token), segments: [{ slot: 0, position, firstRow: 0, nRows: 1, logits: 'last' }] })

/** The tokens that follow `first`, as the GPU finds them. */
async function greedyTokens(backend: WebGpuBackend, first: number, position: number, steps: number): Promise<Best[]> {
  const found: Best[] = []
  for (let i = 0; i < steps; i++) found.push(...(await backend.forwardBest(stepBatch(found.at(-1)?.id ?? first, position + i), i + 1 < steps)))
  return found
}

/** Seconds of a step. */
async function measureGreedy(backend: WebGpuBackend, firstPosition: number, steps: number): Promise<number> {
  let position = firstPosition
  let token = FIRST_TOKEN
  const sample = async (): Promise<void> => {
    token = (await greedyTokens(backend, token, position, steps)).at(-1)?.id ?? token
    position += steps
  }
  await sample()
  return (await medianSeconds(5, sample)) / steps
}

const FIRST_TOKEN = 17
const CHECKED_STEPS = 8

async function checkSteps({ shape, format, backend }: Subject): Promise<Check> {
  const { program } = backend
  await backend.clearState(0)
  const greedy = await greedyTokens(backend, FIRST_TOKEN, 0, CHECKED_STEPS)
  const read = [FIRST_TOKEN, ...greedy.slice(0, -1).map(({ id }) => id)]
  const logitsBy = async (step: (batch: Batch) => Promise<Float32Array>): Promise<Float32Array[]> => {
    const all: Float32Array[] = []
    await backend.clearState(0)
    for (const [position, token] of read.entries()) all.push(await step(stepBatch(token, position)))
    return all
  }
  const fused = await logitsBy(async (batch) => {
    const logits = new Float32Array(program.vocabSize)
    await backend.forward(batch, logits)
    return logits
  })
  const single = await logitsBy(async (batch) => {
    backend.begin(batch)
    await backend.run(0, program.ops.length)
    return backend.readView(logitsOf(program))
  })
  return { shape, format, greedy, likeliest: fused.map(likeliestOf), logitsError: Math.max(...fused.map((logits, i) => relativeError(logits, single[i]))) }
}

function logitsOf({ logits }: Program): View {
  if (logits === null) throw new TypeError('the program has no logits')
  return logits
}

function likeliestOf(logits: Float32Array): Best {
  const id = logits.reduce((best, value, i) => (value > logits[best] ? i : best), 0)
  return { id, logit: logits[id] }
}

function relativeError(actual: Float32Array, expected: Float32Array): number {
  let [error, largest] = [0, 0]
  for (const [i, value] of expected.entries()) {
    error = Math.max(error, Math.abs(actual[i] - value))
    largest = Math.max(largest, Math.abs(value))
  }
  return error / largest
}

const MAX_LOGITS_ERROR = 1e-4

function judge({ shape, format, greedy, likeliest, logitsError }: Check): void {
  const [found, expected] = [greedy, likeliest].map((tokens) => tokens.map(({ id, logit }) => `${id} (${logit})`).join(', '))
  print(`${shape} ${format}: greedy tokens ${found}; the logits of fused kernels are within ${logitsError.toExponential(1)} of the ops' one by one`)
  if (found !== expected) throw new RangeError(`the greedy tokens are ${found}, and the likeliest by the logits ${expected}`)
  if (!(logitsError <= MAX_LOGITS_ERROR)) throw new RangeError(`the logits are ${logitsError} of the largest apart, at most ${MAX_LOGITS_ERROR} expected`)
}

async function measurePrefill(subject: Subject, nTokens: number, isFirst: boolean): Promise<Row> {
  const { shape, format, backend, hasProfile, left } = subject
  const { program, capacity: { maxRows } } = backend
  const tokens = tokensOf(program.vocabSize, nTokens)
  const logits = new Float32Array(program.vocabSize)
  const batchAt = (position: number): Batch => {
    const part = tokens.subarray(position, position + maxRows)
    return { tokens: part, segments: [{ slot: 0, position, firstRow: 0, nRows: part.length, logits: position + part.length === nTokens ? 'last' : 'none' }] }
  }
  const prompt = async (): Promise<void> => {
    await backend.clearState(0)
    for (let position = 0; position < nTokens; position += maxRows) await backend.forward(batchAt(position), logits)
  }
  // The first one compiles what is missing.
  if (isFirst) await prompt()
  const first = await medianSeconds(1, prompt)
  checkLogits(logits, `${shape} ${format}`)
  const more = Math.min(first > 2 ? 0 : first > 0.5 ? 2 : 4, Math.floor(left() / 1000 / first))
  const seconds = more < 2 ? first : await medianSeconds(more + 1, prompt)
  return {
    shape, format, kind: 'prefill', batch: 1, tokens: nTokens, ms: 1000 * seconds, tokensPerSecond: nTokens / seconds,
    ...(hasProfile && isFirst && { profile: await kernelTimes(backend, batchAt(0), 1, 1) })
  }
}

function tokensOf(vocabSize: number, count: number): Int32Array {
  const { below } = createNumbers(3)
  return Int32Array.from({ length: count }, () => below(vocabSize))
}

/** Weights that make nonsense of the activations would make nonsense of the times. */
function checkLogits(logits: Float32Array, place: string): void {
  let [least, most] = [Infinity, -Infinity]
  for (const value of logits) {
    if (!Number.isFinite(value)) throw new RangeError(`${place}: a logit is ${value}`)
    least = Math.min(least, value)
    most = Math.max(most, value)
  }
  if (!(most - least > 1e-3)) throw new RangeError(`${place}: all logits lie between ${least} and ${most}`)
}

try {
  await run(process.argv.slice(2))
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  process.stderr.write(`models: ${error.message}\n`)
  process.exitCode = 2
}
