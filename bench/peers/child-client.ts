/** An engine in a process of its own: its memory and its threads are not mixed with others'. */

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Answer, Call } from './child-server.ts'
import { processTree, usageOf } from './process-tree.ts'
import type { Engine, EngineName, EngineOptions, LoadTimes, TaskTimes, Usage } from './engine.ts'

export interface Child {
  readonly call: <T>(method: string, argument?: unknown) => Promise<T>
  readonly usage: () => Usage
  readonly close: () => Promise<void>
}

/** Starts a module of ./engines that calls `serve`. */
export function startChild(module: string): Child {
  const child = fork(fileURLToPath(new URL(`./engines/${module}.ts`, import.meta.url)), {
    execArgv: ['--conditions=source', '--no-warnings'],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc']
  })
  const ended = once(child, 'exit').then(([code, signal]: unknown[]) => ({ error: `${module} ended: ${String(signal ?? code)}` }))
  return {
    async call<T>(method: string, argument?: unknown): Promise<T> {
      const call: Call = { method, argument: argument ?? null }
      const answered = once(child, 'message').then(([answer]: unknown[]) => answer as Answer)
      child.send(call)
      const answer: Answer = await Promise.race([answered, ended])
      if ('error' in answer) throw new Error(`${module}, ${method}: ${answer.error}`)
      return answer.result as T
    },
    usage: () => usageOf(processTree(child.pid ?? 0)),
    async close() {
      child.kill('SIGKILL')
      await ended
    }
  }
}

export function startChildEngine(name: EngineName, options: EngineOptions): Engine {
  const child = startChild(name)
  return {
    name,
    load: () => child.call<LoadTimes>('load', options),
    run: (task) => child.call<TaskTimes>('run', task),
    top: (prompt) => child.call<number>('top', prompt),
    usage: child.usage,
    close: child.close
  }
}
