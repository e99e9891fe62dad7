/** The script of an engine's worker on Node, Deno and Bun. */

import { workerData } from 'node:worker_threads'
import { serveEngine } from './serve.ts'

serveEngine(workerData as MessagePort)
