/** How large a chunk may be, and what happens to models beyond wasm's memory: planned from configs alone, of sizes that are published. */
import { describe, expect, test } from 'vitest'
import { capacityOf } from '../../src/load.ts'
import { buildModel, readModelConfig } from '../support/architectures.ts'
import { opCost, type Program } from '../../src/program/ops.ts'
import { createBackend } from '../support/backends.ts'
import { reasonOf } from '../support/anything.ts'

const SIZES = [
  ['mamba-130m', 768, 24], ['mamba-370m', 1024, 48], ['mamba-790m', 1536, 48], ['mamba-1.4b', 2048, 48], ['mamba-2.8b', 2560, 64]
] as const

function programOf(dModel: number, nLayers: number, vocabSize = 50_280): Program {
  const config = readModelConfig({ model_type: 'mamba', hidden_size: dModel, num_hidden_layers: nLayers, vocab_size: vocabSize })
  return buildModel(config, () => true).program
}

/** 50 ms between two turns of the event loop, on a core of 20 GFLOP/s: what the plan itself reckons with. */
const MOST_COST = 1e9

describe.each(SIZES)('%s', (_, dModel, nLayers) => {
  const program = programOf(dModel, nLayers)

  // Ops are not interrupted: the longest of a forward is the longest time without a turn.
  test('no op of a chunk takes longer than the event loop may wait', () => {
    const { maxRows, maxLogitRows } = capacityOf(program, 1)
    for (const op of program.ops) {
      const rows = op.out.buffer.rows === 'token' ? maxRows : maxLogitRows
      expect(rows * opCost(op), `${op.kind} of ${op.out.buffer.name}, ${rows} rows`).toBeLessThanOrEqual(MOST_COST)
    }
  })

  test('a batch has a row for every slot', () => {
    for (const nSlots of [1, 4, 300]) {
      const capacity = capacityOf(program, nSlots)
      expect(capacity.maxRows).toBeGreaterThanOrEqual(nSlots)
      expect(capacity.maxLogitRows).toBeGreaterThanOrEqual(nSlots)
    }
  })
})

describe('a model that does not fit 4 GiB', () => {
  const program = programOf(2560, 64)
  const nParameters = program.parameters.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0)

  test('is a RangeError with the bytes that it needs', async () => {
    expect(nParameters).toBeGreaterThan(2.7e9)
    const error = await reasonOf(() => createBackend('simd', program, capacityOf(program, 1)))
    expect(error).toBeInstanceOf(RangeError)
    const needed = Number(/needs (\d+)/.exec(String(error))?.[1])
    expect(needed).toBeGreaterThan(4 * nParameters)
    expect(needed).toBeLessThan(4.1 * nParameters)
  })

  test('is told in which dtype it would fit', async () => {
    expect(String(await reasonOf(() => createBackend('simd', program, capacityOf(program, 1))))).toMatch(/q8_0/)
  })
})
