/** A worker of the compute core in a browser: gets its task as the first message, says 'ready', then 'ended'. */

import type { WorkerTask } from './platform.ts'
import { threadWork } from './thread-work.ts'

addEventListener(
  'message',
  ({ data }: MessageEvent<WorkerTask>) => {
    threadWork(data, () => postMessage('ready'))
    postMessage('ended')
  },
  { once: true }
)
