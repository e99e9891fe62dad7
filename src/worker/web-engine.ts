/** The script of an engine's worker in a browser: gets its port as the first message. */

import { showLife } from '../worker-life.ts'
import { serveEngine } from './serve.ts'

void showLife()
addEventListener('message', ({ data }: MessageEvent<MessagePort>) => serveEngine(data), { once: true })
