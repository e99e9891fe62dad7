/** Attention in the shape of a hybrid of 7 B parameters with experts (Granite 4 H Tiny): a token far into a text, a chunk at its start and at its end. */

import { reachOf, workOf } from '../../src/profile.ts'
import { createOpBackend } from '../op-backend.ts'
import { type Core, elements, type Group, type Line, type Suite } from '../suite.ts'

interface AttentionShape {
  readonly nHeads: number
  readonly nKvHeads: number
  readonly headDim: number
  readonly nLayers: number
  readonly nRows: number
  readonly contextLength: number
}

/** Four layers, as the model has them. */
const SHAPE: AttentionShape = { nHeads: 12, nKvHeads: 4, headDim: 128, nLayers: 4, nRows: 256, contextLength: 4096 }
const SMALL_HEADS: AttentionShape = { ...SHAPE, nHeads: 8, nKvHeads: 8, headDim: 64 }
const QUICK_SHAPE: AttentionShape = { nHeads: 4, nKvHeads: 2, headDim: 8, nLayers: 2, nRows: 8, contextLength: 64 }

export const attentionSuite: Suite = {
  name: 'attention',
  summary: 'grouped-query attention over the cache: a token at several positions, a chunk at the start and at the end of a context',
  isKernel: true,
  groups: ({ isQuick }) => (isQuick ? [QUICK_SHAPE] : [SHAPE, SMALL_HEADS]).map((shape) => (core) => createGroup(core, shape))
}

async function createGroup(core: Core, shape: AttentionShape): Promise<Group> {
  const { nHeads, nKvHeads, headDim, nLayers, nRows, contextLength } = shape
  const { backend, run } = await createOpBackend((builder) => {
    const [q, out] = ['q', 'out'].map((name) => builder.buffer(name, nHeads * headDim))
    for (let i = 0; i < nLayers; i++) {
      builder.add({ kind: 'attention', q, headDim, scale: 1 / Math.sqrt(headDim), cache: builder.keyValue(`layer ${i}`, nKvHeads * headDim), out })
    }
  }, { core, maxRows: nRows, contextLength })
  const line = (rows: number, layers: number, position: number): Line => {
    const reach = reachOf({ tokens: new Int32Array(rows), segments: [{ slot: 0, position, firstRow: 0, nRows: rows, logits: 'none' }] })
    return {
      name: `${rows} ${rows === 1 ? 'row' : 'rows'} at ${position}`, run: () => run(rows, layers, position), amounts: [elements(layers * reach.nScores * nHeads * headDim)],
      works: backend.program.ops.slice(0, layers).map((op) => workOf(op, rows, () => 'f32', reach))
    }
  }
  return {
    name: `${nHeads} heads over ${nKvHeads} × ${headDim}`, workingBytes: 4 * contextLength * backend.program.keyValueWidth,
    lines: [
      ...[contextLength / 8, contextLength / 2, contextLength - 1].map((position) => line(1, nLayers, position)),
      ...[0, contextLength - nRows].map((position) => line(nRows, 1, position))
    ]
  }
}
