/** `mamba-wasm convert`: what is written loads again, with the same numbers. */
import { cpSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { randomCheckpoint } from '../../bench/peers/random-checkpoint.ts'
import { convertToGguf } from '../../src/convert.ts'
import { Mamba } from '../../src/index.ts'
import { folderFiles } from '../../src/platform/node-files.ts'
import { expectSameBits } from '../support/compare.ts'
import { resultOf, ROOT, runCli, startOnTerminal, temporaryFolder, tinyModel } from './run-cli.ts'

const TEXT = 'Hello, world'

async function logitsOf(source: string, dtype: 'auto' | 'f32' | 'f16' | 'q8_0' = 'auto'): Promise<Float32Array> {
  await using mamba = await Mamba.load(source, { dtype })
  return mamba.forward(TEXT, { allLogits: true })
}

/** 7.8 M parameters and the tokenizer of bytes. */
const folder = join(ROOT, 'test/models/classics-8m')

describe('a checkpoint as a GGUF file', () => {

  test.each([['f32', 'f32'], ['f16', 'f16'], ['q8_0', 'q8_0']] as const)('%s: the same bits as rounding while loading', async (type, dtype) => {
    const output = join(temporaryFolder(), `tiny-${type}.gguf`)
    const { code, stderr } = await runCli(['convert', folder, '--output', output, '--type', type])
    expect([code, stderr]).toEqual([0, expect.stringContaining(output)])
    // The dt projection is exact in a GGUF file and in what dtype makes of the folder.
    expectSameBits(await logitsOf(output), await logitsOf(folder, dtype), type)
  })

  test.each(['q4_k', 'q6_k'])('%s, and q8_0 where rows are no multiple of 256, said in the output', async (type) => {
    const output = join(temporaryFolder(), `tiny-${type}.gguf`)
    const { code, stderr } = await runCli(['convert', folder, '--output', output, '--type', type])
    // Rows of 384: the embedding and in_proj; of 768: x_proj and out_proj.
    expect([code, stderr]).toEqual([0, expect.stringContaining(`9 × Q8_0`)])
    expect(stderr).toContain(`16 × ${type.toUpperCase()}`)
    const [own, plain] = [await logitsOf(output), await logitsOf(folder, 'f32')]
    const largest = Math.max(...plain.map(Math.abs))
    const error = Math.max(...own.map((value, i) => Math.abs(value - plain[i]))) / largest
    console.log(`${type}: ${error.toExponential(1)} of the largest logit`)
    expect(error).toBeLessThan(type === 'q4_k' ? 0.2 : 0.05)
  })

  test('the tokenizer goes along, and generate runs it', async () => {
    const output = join(temporaryFolder(), 'tiny.gguf')
    expect((await runCli(['convert', folder, '-o', output])).code).toBe(0)
    const { code, stdout } = await runCli(['generate', TEXT, '--model', output, '--max-tokens', '4', '--seed', '1', '--quiet'])
    expect([code, stdout.startsWith(TEXT)]).toEqual([0, true])
  })
})

describe('progress', () => {
  test('counts the bytes of the file, from none to all', async () => {
    const folderModel = join(ROOT, 'test/fixtures/models/mamba')
    const seen: number[] = []
    let written = 0
    const sink = { write: async (bytes: Uint8Array) => void (written += bytes.byteLength) }
    const total = await convertToGguf(folderFiles(folderModel), {
      type: 'F32', name: 'tiny', sink,
      onProgress({ doneBytes, totalBytes }) {
        seen.push(doneBytes)
        expect([doneBytes, totalBytes >= doneBytes]).toEqual([written, true])
      }
    })
    expect([seen[0], seen.at(-1), written]).toEqual([0, total, total])
    expect(seen.length).toBeGreaterThan(10)
  })

  test('a bar on a terminal, erased at the end; none with --quiet', async () => {
    // Some 0.5 s of work on a fast machine: a bar is drawn after 0.2.
    const config = { ...JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>, num_hidden_layers: 64 }
    const large = temporaryFolder()
    for (const name of ['tokenizer.json', 'tokenizer_config.json']) cpSync(join(folder, name), join(large, name))
    for (const [name, bytes] of Object.entries(randomCheckpoint(config))) writeFileSync(join(large, name), bytes)
    for (const quiet of [false, true]) {
      const child = startOnTerminal(['convert', large, '--output', join(temporaryFolder(), 'out.gguf'), '--type', 'q4_0', ...(quiet ? ['--quiet'] : [])])
      const { code, stdout } = await resultOf(child)
      expect(code).toBe(0)
      const bar = stdout.indexOf('converting [')
      expect([bar >= 0, stdout.indexOf('\r\u001B[K', bar + 1) > bar]).toEqual(quiet ? [false, false] : [true, true])
    }
  })
})

test('--norm-groups: what a config in transformers’ form does not say', async () => {
  const { time_step_limit: _, ...config } = JSON.parse(readFileSync(join(ROOT, 'test/fixtures/models/mamba2_groups/config.json'), 'utf8'))
  const model = temporaryFolder()
  cpSync(join(ROOT, 'test/fixtures/models/mamba2_groups/model.safetensors'), join(model, 'model.safetensors'))
  writeFileSync(join(model, 'config.json'), JSON.stringify(config))
  const output = join(temporaryFolder(), 'groups.gguf')
  const { code, stderr } = await runCli(['convert', model, '--output', output, '--type', 'f32'])
  expect([code, stderr]).toEqual([1, expect.stringContaining('n_groups: expected a gated norm of each of the 2 groups by itself')])
  expect((await runCli(['convert', model, '--output', output, '--type', 'f32', '--norm-groups', '2'])).code).toBe(0)
  await using ours = await Mamba.load(model, { normGroups: 2 })
  await using written = await Mamba.load(output)
  expectSameBits(await written.forward([3, 1, 4, 1, 5]), await ours.forward([3, 1, 4, 1, 5]), 'logits')
})

describe('failures', () => {
  test('--norm-groups goes to the config: refused where there is no gated norm', async () => {
    const { code, stderr } = await runCli(['convert', tinyModel(), '--output', join(temporaryFolder(), 'out.gguf'), '--norm-groups', '2'])
    expect([code, stderr]).toEqual([1, expect.stringContaining('normGroups: expected a model with a gated norm')])
  })

  test.each([[[]], [['--output', 'model.bin']]])('no place to write to: exit code 2 %j', async (args) => {
    const { code, stderr } = await runCli(['convert', tinyModel(), ...args])
    expect([code, stderr]).toEqual([2, expect.stringContaining('.gguf')])
  })

  test('a damaged checkpoint leaves no file', async () => {
    const place = temporaryFolder()
    const { code, stderr } = await runCli(['convert', tinyModel({ 'config.json': '{"model_type": "mamba"}' }), '--output', join(place, 'out.gguf')])
    expect([code, stderr]).toEqual([1, expect.stringContaining('vocab_size')])
    expect(readdirSync(place)).toEqual([])
  })

  test('an output that is there is replaced only by a complete one', async () => {
    const output = join(temporaryFolder(), 'tiny.gguf')
    expect((await runCli(['convert', folder, '--output', output])).code).toBe(0)
    const { size } = statSync(output)
    expect((await runCli(['convert', tinyModel({ 'model.safetensors': new Uint8Array(40) }), '--output', output])).code).toBe(1)
    expect([existsSync(output), statSync(output).size]).toEqual([true, size])
  })
})
