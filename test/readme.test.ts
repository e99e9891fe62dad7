/** The README's TypeScript is TypeScript: every block is type-checked against what is exported, with the names that its text takes for granted. */
import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { repositoryPath } from './support/fixtures.ts'

/** What the blocks name and do not make: the library in later ones, a model, a conversation, the tensors of a scan, a worker's bindings. */
const AROUND = `
import type { LoadProgress, Mamba as Model, ModelSource, Session as TextSession, Tensor } from 'mamba-wasm'
declare global {
  const Mamba: typeof Model
  const mamba: Model
  const session: TextSession
  const source: ModelSource
  const prompts: readonly string[]
  const turn: string
  const bytes: ArrayBuffer
  const file: File
  const output: HTMLElement
  const onProgress: (progress: LoadProgress) => void
  const signal: AbortSignal
  const env: { readonly ASSETS: { fetch(address: string): Promise<Response> } }
  const x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, dtBias: Tensor
}
`

/** Within the package, whose name then means what is built. */
const folder = repositoryPath('dist/readme')

/** By name of a file each, a module of its own. */
function blocks(): ReadonlyMap<string, string> {
  const readme = readFileSync(repositoryPath('README.md'), 'utf8')
  const found = Array.from(readme.matchAll(/^```ts\n([^]*?)^```$/gm), ({ 1: code, index }): [string, string] => {
    const line = readme.slice(0, index).split('\n').length + 1
    // Its own lines come first, so that an error's line can be found.
    return [`line-${line}.ts`, `${code}export {}\n`]
  })
  return new Map(found)
}

async function typeErrors(files: ReadonlyMap<string, string>): Promise<string> {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  for (const [name, text] of [...files, ['around.d.ts', AROUND] as const]) writeFileSync(join(folder, name), text)
  const compilerOptions = { noEmit: true, noUnusedLocals: false, customConditions: [] }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ extends: '../../tsconfig.json', compilerOptions, include: ['*.ts'], exclude: [] }))
  try {
    await promisify(execFile)(repositoryPath('node_modules/.bin/tsc'), ['-p', folder])
    return ''
  } catch (error) {
    return (error as { readonly stdout: string }).stdout
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

test('every block is well-typed', async () => {
  const files = blocks()
  expect(files.size).toBeGreaterThan(10)
  expect(await typeErrors(files)).toBe('')
})

test('a block that is not is found', async () => {
  const errors = await typeErrors(new Map([['wrong.ts', "await mamba.complete('Once', { maxToken: 3 })\nexport {}\n"]]))
  expect(errors).toMatch(/wrong\.ts\(1,32\): error TS/)
})
