/** `mamba-wasm inspect` tells what is in a checkpoint, whether this version can run it or not. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { openCheckpoint } from '../../src/checkpoint/open-checkpoint.ts'
import { resolveSource } from '../../src/source.ts'
import { serve, startServer, type TestServer } from '../checkpoint/http-server.ts'
import { EMBEDDED_MODEL, ROOT, runCli, temporaryFolder, tinyModel } from './run-cli.ts'

async function tensorsOf(folder: string) {
  const checkpoint = await openCheckpoint(await resolveSource(folder, {}))
  const tensors = [...checkpoint.tensors.values()].map(({ name, dtype, shape, byteLength }) => ({ name, dtype, shape, bytes: byteLength }))
  await checkpoint.close()
  return { tensors, totalBytes: checkpoint.totalBytes }
}

const MODELS = ['mamba', 'mamba_bf16', 'mamba_bias_untied', 'mamba_sharded', 'mamba_original'].map((name) => join(ROOT, 'test/fixtures/models', name))

describe('lists every tensor', () => {
  test.each(MODELS)('of %s as a table and as JSON', async (folder) => {
    const { tensors, totalBytes } = await tensorsOf(folder)
    const [table, json] = await Promise.all([runCli(['inspect', folder]), runCli(['inspect', '--json', folder])])
    expect([table.code, json.code, table.stderr, json.stderr]).toEqual([0, 0, '', ''])
    const report = JSON.parse(json.stdout)
    expect(report.tensors).toHaveLength(tensors.length)
    expect(report.tensors).toEqual(expect.arrayContaining(tensors.map((tensor) => expect.objectContaining(tensor))))
    expect(report).toMatchObject({ modelType: 'mamba', supported: true, reason: null, bytes: totalBytes })
    expect(report.config).toEqual(JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')))
    const lines = table.stdout.split('\n')
    for (const { name, dtype, shape, bytes } of tensors) {
      const cells = [name, dtype, `(${shape.join(', ')})`, bytes.toLocaleString('en-US')]
      expect(lines.filter((line) => line.trim().split(/ {2,}/).join('|') === cells.join('|'))).toHaveLength(1)
    }
  })

  test('of the embedded model, where none is named', async () => {
    const { tensors } = await tensorsOf(EMBEDDED_MODEL)
    const { code, stdout } = await runCli(['inspect'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^parameters +7,812,480$/m)
    for (const { name } of tensors) expect(stdout).toContain(`  ${name} `)
    // All rows of the table end in the same column.
    const rows = stdout.trimEnd().split('\n').slice(-tensors.length)
    expect(new Set(rows.map((row) => row.length)).size).toBe(1)
  })
})

test('of a hybrid’s GGUF file: what it is, by the names and with the shapes of a checkpoint', async () => {
  const output = join(temporaryFolder(), 'granite.gguf')
  const folder = join(ROOT, 'test/fixtures/models/granitemoehybrid_moe')
  expect((await runCli(['convert', folder, '--output', output, '--type', 'q8_0'])).code).toBe(0)
  const { code, stdout } = await runCli(['inspect', '--json', output])
  const { modelType, supported, config, tensors } = JSON.parse(stdout)
  expect([code, modelType, supported]).toEqual([0, 'granitemoehybrid', true])
  expect(config).toMatchObject({ layer_types: ['mamba', 'attention', 'mamba'], num_local_experts: 4, residual_multiplier: 0.22, norm_groups: 1 })
  expect(tensors).toEqual(expect.arrayContaining([
    expect.objectContaining({ name: 'model.layers.1.self_attn.q_proj.weight', dtype: 'Q8_0', shape: [32, 32], bytes: 1088 }),
    expect.objectContaining({ name: 'model.layers.0.mamba.conv1d.weight', dtype: 'F32', shape: [96, 1, 4] }),
    expect.objectContaining({ name: 'model.layers.0.block_sparse_moe.gate_proj.weight', dtype: 'Q8_0', shape: [4, 24, 32] })
  ]))
})

describe('an architecture that is not built', () => {
  const folder = tinyModel({ 'config.json': JSON.stringify({ model_type: 'not_a_mamba', hidden_size: 32 }) })

  test('is shown all the same, and said to be unsupported', async () => {
    const [table, json] = await Promise.all([runCli(['inspect', folder]), runCli(['inspect', '--json', folder])])
    expect([table.code, json.code]).toEqual([0, 0])
    expect(table.stdout).toMatch(/^model_type +not_a_mamba \(not supported by this version\)$/m)
    expect(table.stdout).toContain('backbone.embeddings.weight')
    expect(JSON.parse(json.stdout)).toMatchObject({ modelType: 'not_a_mamba', supported: false, parameters: 35008 })
  })
})

describe('failures', () => {
  test('a model that is not there: exit code 1 and its name', async () => {
    const { code, stdout, stderr } = await runCli(['inspect', './no-such-model'])
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(/^mamba-wasm: .*no-such-model/)
    expect(stderr).not.toMatch(/^ +at /m)
  })

  test.each([[['--debug'], {}], [[], { DEBUG: '1' }]])('a stack trace is shown on demand: %j %j', async (args, env) => {
    const { code, stderr } = await runCli(['inspect', './no-such-model', ...args], { env })
    expect(code).toBe(1)
    expect(stderr).toMatch(/^ +at /m)
  })

  test('a file that is cut short: exit code 1, naming it', async () => {
    const bytes = readFileSync(join(ROOT, 'test/fixtures/models/mamba/model.safetensors'))
    const { code, stderr } = await runCli(['inspect', tinyModel({ 'model.safetensors': bytes.subarray(0, -100) })])
    expect(code).toBe(1)
    expect(stderr).toMatch(/^mamba-wasm: .*model\.safetensors.*: expected .*, got /)
  })
})

describe('tokens', () => {
  let server: TestServer
  beforeEach(async () => {
    server = await startServer((request, response) => {
      const name = request.url?.split('/').at(-1) ?? ''
      const isThere = ['config.json', 'model.safetensors'].includes(name)
      if (isThere) serve(request, response, { bytes: readFileSync(join(MODELS[0], name)), etag: '"1"' })
      else response.writeHead(404).end()
    })
  })
  afterEach(() => server.close())

  const sent = () => [...new Set(server.asked.map(({ headers }) => headers.authorization))]

  test('HF_TOKEN goes to no other host', async () => {
    const { code } = await runCli(['inspect', `http://localhost:${server.port}/mamba`], { env: { HF_TOKEN: 'secret' } })
    expect(code).toBe(0)
    expect(sent()).toEqual([undefined])
  })

  test('--token goes where it is told to go', async () => {
    const { code } = await runCli(
      ['inspect', 'someone/mamba', '--host', `http://localhost:${server.port}`, '--cache-folder', temporaryFolder(), '--token', 'given'],
      { env: { HF_TOKEN: 'secret' } }
    )
    expect(code).toBe(0)
    expect(sent()).toEqual(['Bearer given'])
  })
})
