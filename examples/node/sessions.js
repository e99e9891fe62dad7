// What a model knows of a text is a value: read once, forked, saved to a file, and gone on with in another process.
// `node sessions.js` begins a story, `node sessions.js story.state` goes on with it.
import { readFile, writeFile } from 'node:fs/promises'
import { Mamba } from 'mamba-wasm'

const [file] = process.argv.slice(2)
const mamba = await Mamba.load()

if (file === undefined) {
  const session = mamba.session()
  await session.append('It was a dark night, and the old house') // read once, for both that follow
  const other = session.fork()
  const [one, two] = await Promise.all([session.complete({ maxTokens: 60, seed: 1 }), other.complete({ maxTokens: 60, seed: 2 })])
  console.log(`one:${one.text}\ntwo:${two.text}`)
  await writeFile('story.state', await session.save())
  console.log('saved: story.state')
} else {
  const session = await mamba.restore(await readFile(file))
  const { text } = await session.complete({ maxTokens: 60, seed: 5 })
  console.log(text)
}

await mamba.dispose()
