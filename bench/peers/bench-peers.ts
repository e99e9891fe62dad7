/** The whole run: model files, sessions, matrix products, report. */

import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { currentCommit, describeMachine } from '../machine.ts'
import { ROOT } from '../paths.ts'
import { startChildEngine } from './child-client.ts'
import type { Engine, EngineName, EngineOptions } from './engine.ts'
import { CHROMIUM_PATH, hasChromium, startWllama } from './engines/wllama.ts'
import { goalsOf } from './goals.ts'
import { compareMatmul, type MatmulResult } from './matmul.ts'
import { type Dtype, fileBytes, modelFile } from './model-files.ts'
import type { PeerOptions } from './options.ts'
import { CONTEXT_LENGTH, extraLoads, matmulRounds, matmulShapes, plannedTasks } from './plan.ts'
import { plotsOf } from './plots.ts'
import { createPrompts } from './prompts.ts'
import { createProgress } from './progress.ts'
import { readMemory } from './read-memory.ts'
import { type LoadSummary, printReport, type Report } from './report.ts'
import { rowsOf } from './rows.ts'
import { type LoadResult, runSession, type SessionResult } from './session.ts'
import { samplesOf } from './statistics.ts'

export async function benchPeers(options: PeerOptions, packages: Readonly<Record<string, string>>): Promise<void> {
  const { isQuick, peers, threads, dtypes, saves } = options
  const startMs = performance.now()
  const date = new Date().toISOString()
  const machine = describeMachine()
  const commit = currentCommit()
  const names = (['mamba-wasm', 'node-llama-cpp', 'wllama'] as const).filter((name) => name === 'mamba-wasm' || peers.includes(name))
  if (names.includes('wllama') && !hasChromium()) throw new Error(`wllama: expected Chromium at ${CHROMIUM_PATH} (apt-get install chromium, or CHROMIUM_PATH)`)
  const progress = createProgress()
  const paths = new Map<Dtype, string>()
  for (const dtype of names.length > 1 ? dtypes : []) {
    progress.show(`model file, ${dtype}`)
    paths.set(dtype, await modelFile(dtype))
  }
  const prompts = createPrompts(3)
  const starter = (dtype: Dtype, count: number) => (name: EngineName): Promise<Engine> =>
    startEngine(name, { path: paths.get(dtype) ?? '', dtype, threads: count, contextLength: CONTEXT_LENGTH, first: prompts(1) })
  const sessions: SessionResult[] = []
  const reads = threads.map((): number[] => [])
  const loads: (LoadResult & { readonly dtype: Dtype })[] = []
  for (const count of threads) {
    for (const dtype of paths.keys()) {
      const prefix = `${dtype}, ${count} ${count === 1 ? 'thread' : 'threads'}`
      const start = starter(dtype, count)
      const session = await runSession({ dtype, threads: count, names, start, prompts, tasks: plannedTasks(dtype, isQuick), onProgress: (text) => progress.show(`${prefix}: ${text}`) })
      sessions.push(session)
      progress.show(`${prefix}: reading memory`)
      reads[threads.indexOf(count)].push(await readMemory(count))
      loads.push(...session.loads.map((load) => ({ ...load, dtype })))
      if (count !== threads[0]) continue
      for (let round = 0; round < extraLoads(isQuick); round++) {
        for (const name of names) {
          progress.show(`${prefix}: ${name}, load ${round + 2}`)
          loads.push({ dtype, engine: name, ...(await loadOnce(await start(name))) })
        }
      }
    }
  }
  const matmul: MatmulResult[] = []
  for (const count of peers.includes('ort') ? threads : []) {
    for (const shape of matmulShapes(isQuick)) {
      progress.show(`matrix product, ${Object.values(shape).join(' × ')}, threads: ${count}`)
      matmul.push(await compareMatmul({ shape, threads: count }, matmulRounds(isQuick)))
    }
  }
  progress.end()
  const rows = sessions.flatMap(rowsOf)
  const report: Report = {
    version: 1, date, commit, machine, packages, isQuick, matmul, rows,
    chromium: names.includes('wllama') ? execFileSync(CHROMIUM_PATH, ['--version'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim() : null,
    elapsedMs: Math.round(performance.now() - startMs),
    model: { shape: 'mamba-130m', fileBytes: Object.fromEntries([...paths].map(([dtype, path]) => [dtype, fileBytes(path)])) },
    reads: threads.flatMap((count, i) => (reads[i].length > 0 ? [{ threads: count, rate: samplesOf(reads[i]) }] : [])),
    goals: goalsOf(rows),
    loads: loadSummaries(loads, names),
    sessions: sessions.map(({ threads: count, dtype, engines, foreignCores }) => ({ threads: count, dtype, engines, foreignCores }))
  }
  console.log(printReport(report))
  console.log(`${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, ${report.chromium ?? 'no Chromium'}; ${(report.elapsedMs / 60_000).toFixed(1)} min`)
  if (saves) save(report)
}

async function startEngine(name: EngineName, options: EngineOptions): Promise<Engine> {
  return name === 'wllama' ? startWllama(options) : startChildEngine(name, options)
}

async function loadOnce(engine: Engine): Promise<Omit<LoadResult, 'engine'>> {
  try {
    return await engine.load()
  } finally {
    await engine.close()
  }
}

function loadSummaries(loads: readonly (LoadResult & { readonly dtype: Dtype })[], names: readonly EngineName[]): LoadSummary[] {
  return [...new Set(loads.map(({ dtype }) => dtype))].flatMap((dtype) =>
    names.map((engine) => {
      const own = loads.filter((load) => load.dtype === dtype && load.engine === engine)
      return {
        engine, dtype, detail: own[0].detail,
        loadMs: samplesOf(own.map(({ loadMs }) => loadMs)),
        readyMs: samplesOf(own.map(({ loadMs, firstTokenMs }) => loadMs + firstTokenMs))
      }
    })
  )
}

/** The same day's results are written over. */
function save(report: Report): void {
  const folder = join(ROOT, 'bench/results')
  mkdirSync(folder, { recursive: true })
  const name = `${report.date.slice(0, 10)}-peers`
  const files = new Map([[`${name}.json`, `${JSON.stringify(report, null, 1)}\n`], ...plotsOf(report).map(({ suffix, svg }) => [`${name}-${suffix}.svg`, svg] as const)])
  for (const [file, content] of files) {
    const path = join(folder, file)
    writeFileSync(path, content)
    console.log(`wrote ${relative(process.cwd(), path)}`)
  }
}
