/** A checkpoint file that is named is the one that is read, whatever its name and whatever stands beside it. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkpointName } from '../../src/checkpoint/file-set.ts'
import { openCheckpoint } from '../../src/checkpoint/open-checkpoint.ts'
import { type ModelSource, resolveSource, type SourceOptions } from '../../src/source.ts'
import { serve, startServer, type TestServer } from '../checkpoint/http-server.ts'
import { fixtureModel } from '../support/fixtures.ts'

const ID = 'owner/name'
let folder: string
let server: TestServer
let host: string

/** Files of two containers, and a torch.save file under a name of its own. */
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mamba-source-'))
  cpSync(fixtureModel('mamba_original'), folder, { recursive: true })
  cpSync(join(folder, 'pytorch_model.bin'), join(folder, 'my own.bin'))
  cpSync(join(folder, 'pytorch_model.bin'), join(folder, 'weights.pt'))
  cpSync(join(fixtureModel('mamba'), 'model.safetensors'), join(folder, 'model.safetensors'))
  const tensors = await tensorsOf(join(folder, 'pytorch_model.bin'))
  const weightMap = Object.fromEntries(tensors.map((name) => [name, 'my own.bin']))
  writeFileSync(join(folder, 'pytorch_model.bin.index.json'), JSON.stringify({ weight_map: weightMap }))
  server = await startServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? '', 'http://host').pathname)
    const name = path.slice(path.lastIndexOf('/') + 1)
    try {
      serve(request, response, { bytes: readFileSync(join(folder, name)), etag: `"${name}"` })
    } catch {
      response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end()
    }
  })
  host = `http://127.0.0.1:${server.port}`
})

afterAll(async () => {
  await server.close()
  rmSync(folder, { recursive: true })
})

async function tensorsOf(source: ModelSource, options: SourceOptions = {}): Promise<string[]> {
  const checkpoint = await openCheckpoint(await resolveSource(source, options))
  await checkpoint.close()
  return [...checkpoint.tensors.keys()]
}

/** torch.save's file has the original repository's names. */
const isTorch = (names: readonly string[]): boolean => names.includes('backbone.embedding.weight')

const TORCH = ['pytorch_model.bin', 'my own.bin', 'weights.pt', 'pytorch_model.bin.index.json']

describe.each([...TORCH.map((name) => [name, true] as const), ['model.safetensors', false] as const])('%s', (name, expected) => {
  test('as a path and as a file URL', async () => {
    expect(isTorch(await tensorsOf(join(folder, name)))).toBe(expected)
    expect(isTorch(await tensorsOf(pathToFileURL(join(folder, name))))).toBe(expected)
  })

  test('as an address', async () => {
    expect(isTorch(await tensorsOf(`${host}/models/${encodeURIComponent(name)}`))).toBe(expected)
    expect(isTorch(await tensorsOf(new URL(`${host}/models/${encodeURIComponent(name)}?download=1`)))).toBe(expected)
    // A signed address is asked for with its query.
    expect(server.asked.some(({ path }) => path.endsWith(`${encodeURIComponent(name)}?download=1`))).toBe(true)
  })

  test('of a hub', async () => {
    expect(isTorch(await tensorsOf(`${ID}/${name}`, { host, cacheFolder: null }))).toBe(expected)
  })
})

test('a folder has its safetensors read first', async () => {
  expect(isTorch(await tensorsOf(folder))).toBe(false)
  expect(isTorch(await tensorsOf(`${host}/models`))).toBe(false)
  expect(isTorch(await tensorsOf(ID, { host, cacheFolder: null }))).toBe(false)
})

test.each([
  ['a.safetensors', 'model.safetensors'], ['a.safetensors.index.json', 'model.safetensors.index.json'], ['a.bin', 'pytorch_model.bin'], ['a.pt', 'pytorch_model.bin'],
  ['a.pth', 'pytorch_model.bin'], ['a.bin.index.json', 'pytorch_model.bin.index.json'], ['a.gguf', 'model.gguf'], ['a.json', undefined], ['bin', undefined], ['a', undefined]
])('the container of %s', (fileName, name) => {
  expect(checkpointName(fileName)).toBe(name)
})
