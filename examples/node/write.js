// Writes on from a prompt: `npm install mamba-wasm`, then `node write.js "The captain looked at the"`.
import { Mamba } from 'mamba-wasm'

const [prompt = 'Once upon a time'] = process.argv.slice(2)
const mamba = await Mamba.load() // the embedded model; or a folder, a .gguf file, a URL, 'owner/name'

process.stdout.write(prompt)
for await (const { text } of mamba.generate(prompt, { maxTokens: 120, seed: 3 })) process.stdout.write(text)
process.stdout.write('\n')

await mamba.dispose()
