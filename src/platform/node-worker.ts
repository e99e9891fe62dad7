/** A worker of the compute core on Node, Deno and Bun. */

import { parentPort, workerData } from 'node:worker_threads'
import type { WorkerTask } from './platform.ts'
import { threadWork } from './thread-work.ts'

threadWork(workerData as WorkerTask, () => parentPort?.postMessage('ready'))
