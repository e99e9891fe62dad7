// A chat in the terminal: `npm install mamba-wasm`, then `node chat.js MODEL`, of a model with a chat template: a folder, a .gguf file, a URL, or a
// hub's name, e.g. tiiuae/falcon-mamba-7b-instruct. What was said is kept in chat.json, and the next start goes on from there.
// Ctrl-C stops a reply, and ends where there is none.
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { Mamba } from 'mamba-wasm'

const [model, file = 'chat.json'] = process.argv.slice(2)
if (model === undefined) throw new Error('expected a model: node chat.js MODEL [FILE]')
const mamba = await Mamba.load(model) // { dtype: 'q8_0' } takes a quarter of the memory of f32

// The messages are all that has to be kept: the first reply reads them again, each further one what is new alone.
const said = existsSync(file) ? await readFile(file, 'utf8') : '[]'
const chat = mamba.chat(JSON.parse(said), { maxTokens: 500, seed: 3 })

const input = createInterface({ input: process.stdin, output: process.stdout, prompt: process.stdin.isTTY ? '> ' : '' })
let stop = null
input.on('SIGINT', () => (stop === null ? input.close() : stop.abort()))
input.prompt()
for await (const line of input) {
  stop = new AbortController()
  try {
    for await (const { text } of chat.send(line, { signal: stop.signal })) process.stdout.write(text)
  } catch (error) {
    if (!stop.signal.aborted) throw error
  }
  stop = null
  await writeFile(file, JSON.stringify(chat.messages, null, 2))
  process.stdout.write('\n')
  if (!input.closed) input.prompt()
}

await mamba.dispose()
