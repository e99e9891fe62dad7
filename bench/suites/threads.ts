/** From which size of a model on a second thread gains: below which COST_PER_THREAD of src/load.ts should not be. */

import { availableParallelism } from 'node:os'
import { opCost, type Program } from '../../src/program/ops.ts'
import { createModelLines, type ModelLines, threadsLabel } from '../model-lines.ts'
import { createRandomBackend, createRandomModel, type Shape } from '../random-model.ts'
import type { Result } from '../results.ts'
import type { Group, Line, Suite } from '../suite.ts'

const SHAPES: readonly Shape[] = [
  { vocabSize: 256, dModel: 64, nLayers: 2 },
  { vocabSize: 256, dModel: 128, nLayers: 2 },
  { vocabSize: 256, dModel: 128, nLayers: 4 },
  { vocabSize: 256, dModel: 192, nLayers: 4 },
  { vocabSize: 256, dModel: 256, nLayers: 6 },
  // The embedded model.
  { vocabSize: 256, dModel: 384, nLayers: 8 },
  { vocabSize: 256, dModel: 512, nLayers: 12 },
  { vocabSize: 256, dModel: 768, nLayers: 24 }
]
const QUICK_SHAPES: readonly Shape[] = [{ vocabSize: 64, dModel: 32, nLayers: 1 }, { vocabSize: 64, dModel: 64, nLayers: 1 }]

/** A second core is worth having where it makes decoding this much faster. */
const WORTH = 1.15

export const threadsSuite: Suite = {
  name: 'threads',
  summary: 'tokens/s by threads over sizes of models: from where on a second thread gains',
  isKernel: false,
  groups: ({ isQuick }) => (isQuick ? QUICK_SHAPES : SHAPES).map((shape) => () => createGroup(shape, isQuick)),
  conclude
}

/** 1, 2, 4 … up to the cores. */
function threadCounts(isQuick: boolean): number[] {
  if (isQuick) return [1, 2]
  return [1, 2, ...[4, 8, 16].filter((count) => count <= availableParallelism())]
}

async function createGroup(shape: Shape, isQuick: boolean): Promise<Group> {
  const model = createRandomModel(shape)
  const cost = costOf(model.program)
  const models: (ModelLines & { readonly threads: number })[] = []
  for (const threads of threadCounts(isQuick)) models.push({ threads, ...createModelLines(await createRandomBackend(model, { format: 'f32', threads })) })
  // Some 2 ms of tokens: for a single one the event loop would count.
  const nSteps = Math.max(1, Math.min(64, Math.round(4e7 / cost)))
  const nTokens = isQuick ? 8 : 64
  const lines = ['decode', `prefill ${nTokens}`].flatMap((kind) =>
    models.map((lines): Line => {
      const name = threadsLabel(kind, lines.threads)
      const line = kind === 'decode' ? lines.decode(nSteps, name) : lines.prefill(nTokens, name)
      return lines.threads === 1 ? line : { ...line, against: threadsLabel(kind, 1) }
    })
  )
  return {
    name: `${groupName(shape)}: cost ${cost.toExponential(2)}`, lines, workingBytes: models[0].weightBytes,
    async dispose() {
      for (const { dispose } of models) await dispose()
    }
  }
}

function groupName({ vocabSize, dModel, nLayers }: Shape): string {
  return `${nLayers} layers of ${dModel}, vocabulary ${vocabSize}`
}

function costOf({ ops }: Program): number {
  return ops.reduce((sum, op) => sum + opCost(op), 0)
}

/**
 * Two threads are taken from 2 · COST_PER_THREAD on: at least half the cost at which decoding with two is `WORTH` the trouble. By the best
 * samples, since whoever else is at work takes the second core away.
 */
function conclude(results: readonly Result[]): string[] {
  const best = (group: string, line: string): number => results.find((result) => result.group === group && result.line === line)?.ms.min ?? NaN
  const points = [...new Set(results.map(({ group }) => group))].map((group) => ({
    cost: Number(group.split(' ').at(-1)), gain: best(group, 'decode, 1 thread') / best(group, 'decode, 2 threads')
  }))
  points.sort((a, b) => a.cost - b.cost)
  const text = points.map(({ cost, gain }) => `${cost.toExponential(1)}: ${gain.toFixed(2)}`).join(', ')
  // The last size that does not gain enough, so that one lucky figure among the small ones decides nothing.
  const last = points.findLastIndex(({ gain }) => gain < WORTH)
  const head = `decode with 2 threads over 1, best samples, by a token's cost: ${text}`
  if (last === points.length - 1) return [head, `no size gains ${WORTH}: others were at work, or there is one core`]
  if (last < 0) return [head, `every size gains ${WORTH}: COST_PER_THREAD may be ${(points[0].cost / 2).toExponential(1)}`]
  const [below, above] = [points[last], points[last + 1]]
  const part = (WORTH - below.gain) / (above.gain - below.gain)
  const crossing = below.cost * (above.cost / below.cost) ** part
  return [head, `a gain of ${WORTH} from ${crossing.toExponential(1)} on: COST_PER_THREAD at least ${(crossing / 2).toExponential(0)}`]
}
