/**
 * Browsers, headless, on the pages of pages.ts. They are started as programs with an address, so that Chromium and Firefox need no driver.
 */

import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Bundler, makeSite } from './pages.ts'
import { serveSite } from './site.ts'
import type { Lacks, Report } from './suite.ts'

export interface BrowserRun {
  readonly browser: 'chromium' | 'firefox-esr'
  readonly bundler: Bundler
  /** Whether the page gets the headers that give it shared memory. */
  readonly isIsolated: boolean
  /** Where the library runs: in a worker of the page, or on its main thread. */
  readonly isWorker: boolean
  /** Chromium alone: with its software adapter. */
  readonly hasGpu?: boolean
}

/** Chromium's GPU in software. */
export const GPU_FLAGS = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader']

/** Opens the page of the project in `folder` and waits for its report. */
export async function runBrowser(folder: string, { browser, bundler, isIsolated, isWorker, hasGpu = false }: BrowserRun): Promise<Report> {
  const site = await serveSite(await makeSite(folder, bundler), { isIsolated })
  const lacks: Lacks = {
    ...(isIsolated && isWorker ? {} : { threads: isIsolated ? 'a page’s main thread may not wait for others' : 'no shared memory without cross-origin isolation' }),
    ...(hasGpu ? {} : { webgpu: 'a browser started without a GPU' })
  }
  const profile = await mkdtemp(join(tmpdir(), 'mamba-wasm-profile-'))
  const address = `${site.address}/index.html#${encodeURIComponent(JSON.stringify({ isWorker, lacks }))}`
  const args = browser === 'chromium' ? [`--user-data-dir=${profile}`, '--headless', '--no-sandbox', ...(hasGpu ? GPU_FLAGS : ['--disable-gpu']), '--no-first-run', address] : ['--headless', '--no-remote', '--profile', profile, address]
  // A software GPU takes its time to compile.
  const limitMs = hasGpu ? 180_000 : 120_000
  // In a group of its own: a browser is many processes.
  const child = spawn(browser, args, { stdio: 'ignore', detached: true })
  try {
    const ended = new Promise<never>((_, reject) => {
      child.once('error', reject)
      child.once('exit', (code) => reject(new Error(`${browser} ended with code ${code} before the page reported`)))
      setTimeout(() => reject(new Error(`${browser}: no report after ${limitMs / 1000} s`)), limitMs).unref()
    })
    const report = JSON.parse(await Promise.race([site.report, ended])) as Report & { readonly error?: string }
    if (report.error !== undefined) throw new Error(report.error)
    return report
  } finally {
    endGroup(child.pid)
    await site.close()
    await rm(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 })
  }
}

/** Ends a process with all that it started. */
function endGroup(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
}
