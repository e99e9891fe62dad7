// Writes on from a prompt: `bun add mamba-wasm`, then `bun write.ts "The captain looked at the"`.
// As one program, the model in it: `bun build --compile write.ts --outfile write`.
import { Mamba } from 'mamba-wasm'

const [prompt = 'Once upon a time'] = Bun.argv.slice(2)
const output = Bun.stdout.writer()
await using mamba = await Mamba.load()

output.write(prompt)
for await (const { text } of mamba.generate(prompt, { maxTokens: 120, seed: 3 })) {
  output.write(text)
  await output.flush()
}
output.write('\n')
await output.end()
