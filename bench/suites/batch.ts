/** Many sequences at once: the weights are read once for all of them, so tokens/s must grow with the batch until arithmetic is the limit. */

import { createEngine } from '../../src/engine.ts'
import { capacityOf } from '../../src/load.ts'
import { type Work, worksOf } from '../../src/profile.ts'
import type { WeightFormat } from '../../src/program/formats.ts'
import { threadsLabel } from '../model-lines.ts'
import { createNumbers } from '../numbers.ts'
import { createRandomBackend, createRandomModel, MAMBA_130M, type RandomModel } from '../random-model.ts'
import type { Result } from '../results.ts'
import { type Core, type Group, type Suite, tokens } from '../suite.ts'

const QUICK_SHAPE = { vocabSize: 96, dModel: 64, nLayers: 2 }

/** 3 and 6 too: the kernels take two, three or four rows at a time. */
const SIZES = [1, 2, 3, 4, 6, 8, 16, 32]
const QUICK_SIZES = [1, 2, 3]

export const batchSuite: Suite = {
  name: 'batch',
  summary: 'steps of 1 to 32 sequences at once, mamba-130m shape: tokens/s, over a lone sequence, of the arithmetic limit (minutes)',
  isKernel: true,
  groups({ isQuick, isComparing }) {
    const model = createRandomModel(isQuick ? QUICK_SHAPE : MAMBA_130M)
    const threadCounts = isComparing ? [1] : [1, 2]
    return (['f32', 'q8_0'] as const).flatMap((format) =>
      threadCounts.map((threads) => (core: Core) => createGroup(model, { format, threads, core, name: isQuick ? 'small' : 'mamba-130m', sizes: isQuick ? QUICK_SIZES : SIZES }))
    )
  },
  conclude
}

interface GroupOptions {
  readonly format: WeightFormat
  readonly threads: number
  readonly core: Core
  readonly name: string
  readonly sizes: readonly number[]
}

async function createGroup(model: RandomModel, { format, threads, core, name, sizes }: GroupOptions): Promise<Group> {
  const nSlots = Math.max(...sizes)
  const backend = await createRandomBackend(model, { format, threads, capacity: capacityOf(model.program, nSlots), ...(threads === 1 && { core }) })
  const engine = createEngine(backend)
  const numbers = createNumbers(12)
  const steps = Array.from({ length: nSlots }, () => ({ sequence: engine.sequence(), ids: Int32Array.of(numbers.below(backend.program.vocabSize)) }))
  const ignore = { onLogits() {} }
  return {
    name: threadsLabel(`${name}, ${format}`, threads),
    workingBytes: backend.info.memoryBytes.weights,
    lines: sizes.map((size) => {
      const rows = steps.slice(0, size)
      const segments = rows.map((_, i) => ({ slot: i, position: 0, firstRow: i, nRows: 1, logits: 'last' as const }))
      return {
        name: lineName(size), threads, isAsync: true,
        amounts: [tokens(size)],
        // Arithmetic alone: what reading the weights takes is what a batch shares.
        works: worksOf(backend, { tokens: new Int32Array(size), segments }).map((work): Work => ({ ...work, byte: 0 })),
        ...(size > 1 && { against: lineName(1) }),
        async run() {
          await Promise.all(rows.map(({ sequence, ids }) => engine.run(sequence, ids, 'last', ignore)))
        }
      }
    }),
    dispose: () => engine.dispose()
  }
}

function lineName(size: number): string {
  return size === 1 ? 'a lone sequence' : `${size} sequences`
}

function conclude(results: readonly Result[]): string[] {
  return [...new Set(results.map(({ group }) => group))].map((group) => {
    const figures = results.filter((result) => result.group === group).map(({ line, rates, against, ofLimit }) =>
      `${line} ${rates[0].perSecond.toFixed(1)} tokens/s${against ? ` (${against.median.toFixed(2)} ×)` : ''}, ${((ofLimit?.median ?? NaN) * 100).toFixed(0)} %`
    )
    return `${group}, over a lone sequence, of the arithmetic limit: ${figures.join('; ')}`
  })
}
