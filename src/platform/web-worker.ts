/** A worker of the compute core in a browser: gets its task as the first message, says 'ready', then 'ended'. */

import { showLife } from '../worker-life.ts'
import type { WorkerTask } from './platform.ts'
import { threadWork } from './thread-work.ts'

const work = (task: WorkerTask): void => {
  threadWork(task, () => postMessage('ready'))
  postMessage('ended')
}

const shown = showLife()
addEventListener(
  'message',
  // While it works it hears nothing. What it throws is an error of the worker, as if no promise were about it.
  ({ data }: MessageEvent<WorkerTask>) => void shown.then(() => queueMicrotask(() => work(data))),
  { once: true }
)
