/** The script of an engine's worker in a browser: gets its port as the first message. */

import { serveEngine } from './serve.ts'

addEventListener('message', ({ data }: MessageEvent<MessagePort>) => serveEngine(data), { once: true })
