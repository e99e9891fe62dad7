// Writes on from a prompt: `deno add npm:mamba-wasm`, then
// `deno run --allow-read --allow-env --allow-sys write.ts "The captain looked at the"`. Downloads from a hub need --allow-net too.
import { Mamba } from 'mamba-wasm'

const [prompt = 'Once upon a time'] = Deno.args
const encoder = new TextEncoder()
const write = (text: string): Promise<number> => Deno.stdout.write(encoder.encode(text))
await using mamba = await Mamba.load()

await write(prompt)
for await (const { text } of mamba.generate(prompt, { maxTokens: 120, seed: 3 })) await write(text)
await write('\n')
