/** examples/edge as wrangler bundles it, in workerd: what it answers, what it weighs, how long a cold start takes, and what memory it needs. */

import { copyFile, mkdir, readdir, readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { Mamba, type Session } from '../../src/index.ts'
import { repositoryPath } from '../support/fixtures.ts'
import { dryRun, startWorker, type Worker } from './edge.ts'

const OPTIONS = { maxTokens: 200, seed: 7 }
/** Of the platform, for an isolate. */
const MEMORY_LIMIT_MB = 128
const BUNDLE_LIMIT_BYTES = 150_000
const COLD_STARTS = 5
/** Of an answer of 200 tokens; those that were made at once may come at once. */
const MIN_PIECES = 10

/** `folder`: a copy of the example within a project that has the package. */
export async function runEdgeExample(folder: string): Promise<string> {
  // As its wrangler.jsonc says.
  await mkdir(join(folder, 'assets'))
  await copyFile(repositoryPath('models/classics-8m/model.gguf'), join(folder, 'assets', 'model.gguf'))
  const outdir = join(folder, 'bundle')
  await dryRun(folder, 'wrangler.jsonc', outdir)
  const gzipBytes = await compressedBytes(outdir)
  expectAtMost('bytes of the bundle in gzip', gzipBytes, BUNDLE_LIMIT_BYTES)
  const start = (): Promise<Worker> =>
    startWorker(outdir, 'worker.js', {
      binding: 'ASSETS', kvNamespaces: ['CONVERSATIONS'], compatibilityFlags: ['enable_request_signal'], serveFile: (path) => readFile(join(folder, 'assets', path))
    })
  const worker = await start()
  try {
    await checkAnswers(worker)
  } finally {
    await worker.dispose()
  }
  await checkLeaving(start)
  const reset = await checkReset(start)
  const colds: Cold[] = []
  for (let i = 0; i < COLD_STARTS; i++) colds.push(await coldStart(start))
  const ms = medianOf(colds.map((cold) => cold.firstTokenMs))
  const mb = medianOf(colds.map((cold) => cold.memoryMb))
  expectAtMost('MB at the peak', mb, MEMORY_LIMIT_MB)
  return `bundle ${gzipBytes} bytes in gzip; cold start to the first token ${ms.toFixed(0)} ms, memory at its peak ${mb.toFixed(0)} MB beyond a worker that has loaded nothing (medians of ${COLD_STARTS}); ${reset}`
}

/** Two turns of a conversation are those of one unbroken session; what is not for it is refused. */
async function checkAnswers(worker: Worker): Promise<void> {
  await using mamba = await Mamba.load()
  const session = mamba.session()
  for (const prompt of ['The captain looked at the', ' “No,” said Alice,']) {
    const response = await post(worker, `/first?seed=${OPTIONS.seed}`, prompt)
    expectSame('a turn', await response.text(), await turnOf(session, prompt))
  }
  expectSame('another conversation', await (await post(worker, `/second?seed=${OPTIONS.seed}`, 'Once')).text(), await turnOf(mamba.session(), 'Once'))
  // Of whoever goes away in the middle the turn counts as a whole, where it was made before that was noticed, or not at all.
  const whole = session.fork()
  await turnOf(whole, ' And then')
  const reader = (await post(worker, `/first?seed=${OPTIONS.seed}`, ' And then')).body?.getReader()
  await reader?.read()
  await reader?.cancel()
  const next = await (await post(worker, `/first?seed=${OPTIONS.seed}`, ' But then')).text()
  const wholeNext = await turnOf(whole, ' But then')
  expectSame('after a turn that was left', next, next === wholeNext ? wholeNext : await turnOf(session, ' But then'))
  const statuses = {
    'a path of two names': (await post(worker, '/a/b', 'Once')).status, 'no text': (await post(worker, '/a', '')).status,
    'too long a text': (await post(worker, '/a', 'x'.repeat(50_000))).status, 'another seed': (await post(worker, '/a?seed=x', 'Once')).status,
    'another method': (await ask(worker, '/a', { method: 'PUT', body: 'Once' })).status,
    'forgotten': (await ask(worker, '/first', { method: 'DELETE' })).status,
    'forgotten twice': (await ask(worker, '/first', { method: 'DELETE' })).status
  }
  expectSame('statuses', JSON.stringify(Object.values(statuses)), JSON.stringify([400, 400, 413, 400, 405, 204, 404]))
  expectSame('forgotten', await (await post(worker, `/first?seed=${OPTIONS.seed}`, 'Once')).text(), await turnOf(mamba.session(), 'Once'))
}

const LONG_PROMPT = 'It was a dark night, and the old house stood still. '.repeat(60)

/**
 * Who goes away, while the model is loaded, a long prompt is read or an answer is written, leaves the model to the others of the isolate as it was. (The
 * prompt is read to its end all the same: of a connection that is closed properly workerd hears when it writes.)
 */
async function checkLeaving(start: () => Promise<Worker>): Promise<void> {
  await using mamba = await Mamba.load()
  const [short, long] = ['Once', LONG_PROMPT]
  const expected = await turnOf(mamba.session(), short)
  const { worker } = await startIdle(start)
  const leave = async (name: string, prompt: string, afterMs: number): Promise<void> => {
    await post(worker, `/${name}?seed=1`, prompt, AbortSignal.timeout(afterMs)).then((response) => response.text()).catch(() => 'left')
  }
  const stay = async (name: string): Promise<string> => (await post(worker, `/${name}?seed=${OPTIONS.seed}`, short, AbortSignal.timeout(60_000))).text()
  try {
    for (const [name, prompt, afterMs] of [['load', short, 20], ['prompt', long, 50], ['late-prompt', long, 300], ['answer', short, 100]] as const) {
      const [beside] = await Promise.all([stay(`beside-${name}`), leave(name, prompt, afterMs)])
      expectSame(`beside one who left (${name})`, beside, expected)
      expectSame(`after one who left (${name})`, await stay(`after-${name}`), expected)
    }
  } finally {
    await worker.dispose()
  }
}

/** Of whoever's connection breaks off the prompt is not read to its end, and the model goes on for others. */
async function checkReset(start: () => Promise<Worker>): Promise<string> {
  const { worker, pid } = await startIdle(start)
  try {
    const expected = await (await post(worker, `/before?seed=${OPTIONS.seed}`, 'Once')).text()
    const stayed = await processorMs(pid, async () => void (await post(worker, '/stays?seed=1', LONG_PROMPT)).body?.cancel())
    const left = await processorMs(pid, () => breakOff(worker, '/leaves?seed=1', LONG_PROMPT))
    expectAtMost('processor time in ms for a prompt whose sender broke off, of one that was read', left, stayed / 2)
    expectSame('after one who broke off', await (await post(worker, `/after?seed=${OPTIONS.seed}`, 'Once')).text(), expected)
    return `a prompt takes ${stayed} ms of the processor, one whose sender broke off ${left} ms`
  } finally {
    await worker.dispose()
  }
}

/** What a worker's process takes for a task and in the two seconds after it. */
async function processorMs(pid: string, task: () => Promise<void>): Promise<number> {
  // In hundredths of a second, behind the name, which is in brackets.
  const usedMs = async (): Promise<number> => {
    const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1].split(' ')
    return 10 * (Number(fields[11]) + Number(fields[12]))
  }
  const before = await usedMs()
  await task()
  await sleep(2000)
  return (await usedMs()) - before
}

/** Asks, and resets the connection while the prompt is read. */
async function breakOff(worker: Worker, path: string, body: string): Promise<void> {
  const { hostname, port } = await worker.ready
  const socket = connect(Number(port), hostname)
  socket.write(`POST ${path} HTTP/1.1\r\nhost: ${hostname}\r\ncontent-length: ${body.length}\r\n\r\n${body}`)
  await sleep(150)
  socket.resetAndDestroy()
}

/** By HTTP, as a client does. */
async function ask(worker: Worker, path: string, init: RequestInit): Promise<Response> {
  return fetch(new URL(path, await worker.ready), init)
}

function post(worker: Worker, path: string, body: string, signal: AbortSignal | null = null): Promise<Response> {
  return ask(worker, path, { method: 'POST', body, signal })
}

async function turnOf(session: Session, prompt: string): Promise<string> {
  await session.append(prompt)
  return (await session.complete(OPTIONS)).text
}

interface Cold {
  readonly firstTokenMs: number
  readonly memoryMb: number
}

/** From a request to an isolate that has loaded nothing to the first piece of its answer; memory of the process by its end, beyond what it had before. */
async function coldStart(start: () => Promise<Worker>): Promise<Cold> {
  const { worker, pid } = await startIdle(start)
  try {
    const restingMb = await memoryMb(pid, 'VmRSS')
    const startMs = performance.now()
    const response = await post(worker, '/cold?seed=1', 'The captain looked at the')
    const pieceMs: number[] = []
    for await (const _ of response.body ?? []) pieceMs.push(performance.now() - startMs)
    if (pieceMs.length < MIN_PIECES) throw new Error(`a stream: expected ${MIN_PIECES} pieces or more, got ${pieceMs.length}`)
    const [firstTokenMs] = pieceMs
    return { firstTokenMs, memoryMb: (await memoryMb(pid, 'VmHWM')) - restingMb }
  } finally {
    await worker.dispose()
  }
}

/** A worker whose isolate is there, and the model is not; and its process, by Linux's own tables. */
async function startIdle(start: () => Promise<Worker>): Promise<{ readonly worker: Worker; readonly pid: string }> {
  const before = new Set(await workerdProcesses())
  const worker = await start()
  await (await post(worker, '/', 'x')).text()
  const [pid] = (await workerdProcesses()).filter((id) => !before.has(id))
  return { worker, pid }
}

async function workerdProcesses(): Promise<string[]> {
  const ids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const names = await Promise.all(ids.map((id) => readFile(`/proc/${id}/comm`, 'utf8').catch(() => '')))
  return ids.filter((_, i) => names[i].trim() === 'workerd')
}

async function memoryMb(pid: string, field: 'VmRSS' | 'VmHWM'): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1000
}

async function compressedBytes(outdir: string): Promise<number> {
  const names = (await readdir(outdir)).filter((name) => /\.(js|wasm)$/.test(name))
  const files = await Promise.all(names.map((name) => readFile(join(outdir, name))))
  return files.reduce((sum, bytes) => sum + gzipSync(bytes, { level: 9 }).byteLength, 0)
}

function medianOf(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]
}

/** NaN is too much. */
function expectAtMost(place: string, actual: number, most: number): void {
  if (!(actual <= most)) throw new Error(`${place}: expected at most ${most}, got ${actual}`)
}

export function expectSame(place: string, actual: string, expected: string): void {
  if (actual !== expected) throw new Error(`${place}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`)
}
