/** What the benchmark asks of each engine, whether it runs in a process of its own or in a page of Chromium. */

import type { Dtype } from './model-files.ts'

export const ENGINES = ['mamba-wasm', 'node-llama-cpp', 'wllama'] as const

export type EngineName = (typeof ENGINES)[number]

export interface EngineOptions {
  readonly path: string
  readonly dtype: Dtype
  readonly threads: number
  /** Tokens of the longest text: prompt and completion. */
  readonly contextLength: number
  /** Of one token: what `firstTokenMs` is measured with. */
  readonly first: Prompt
}

/** As ids and as the text whose ids they are. */
export interface Prompt {
  readonly ids: readonly number[]
  readonly text: string
}

/** Once, in a new process or page. */
export interface LoadTimes {
  /** From the file, in the system's cache, to a model that can be asked. */
  readonly loadMs: number
  /** Then the first token of a prompt of one: what is read lazily is in it. */
  readonly firstTokenMs: number
  /** What runs: version, build, instruction sets, threads. */
  readonly detail: string
}

/** A prompt, from a fresh state, then `nDecode` further tokens, greedily. */
export interface Task {
  readonly prompt: Prompt
  readonly nDecode: number
}

export interface TaskTimes {
  /** Up to the first token. */
  readonly prefillMs: number
  /** From the first token to the last: `nDecode` tokens read, one at a time. */
  readonly decodeMs: number
  /** Both, seen from outside: what the engine's own clock leaves out shows here. */
  readonly wallMs: number
}

export interface Engine {
  readonly name: string
  readonly load: () => Promise<LoadTimes>
  readonly run: (task: Task) => Promise<TaskTimes>
  /** Log probability of the likeliest token after a prompt, to see that all engines calculate the same. */
  readonly top: (prompt: Prompt) => Promise<number>
  /** Of the processes that it consists of: peak memory and processor time so far. */
  readonly usage: () => Usage
  readonly close: () => Promise<void>
}

export interface Usage {
  readonly peakBytes: number
  readonly cpuMs: number
}
