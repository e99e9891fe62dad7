/** The convolution's shader alone against the float64 reference: taps, channels, segments shorter and longer than the state and than a block. */
import { expect, test } from 'vitest'
import { columns } from '../../../src/program/builder.ts'
import { type OpSpec, segment, segmentsOf } from '../../support/op-rig.ts'
import { compareGpu } from '../../support/op-sweep.ts'

const BATCHES = [
  ...[1, 2, 3, 4, 5, 15, 16, 17, 19, 32, 33, 40].map((nRows) => [segment(1, 0, nRows)]),
  segmentsOf([1, 1, 1]), segmentsOf([2, 0, 17]), [segment(3, 0, 18, 'none', 100), segment(1, 18, 2, 'none', 5)]
]

test.each([[1, 5, 'silu'], [2, 63, 'silu'], [3, 64, 'none'], [4, 65, 'silu'], [4, 130, 'none'], [20, 9, 'silu']] as const)('%i taps, %i channels, %s', async (dConv, width, activation) => {
  for (const hasBias of [true, false]) {
    const spec: OpSpec = {
      seed: width, capacity: { maxRows: 40, maxLogitRows: 40, nSlots: 4, contextLength: 0 }, ranges: { x: [-3, 3] },
      build(builder) {
        builder.state('before', [3])
        const state = builder.state('conv', [width, dConv - 1])
        builder.state('after', [2, 2])
        return {
          kind: 'conv1d', activation, state,
          x: columns(builder.buffer('x', width + 5), 3, width),
          weight: builder.parameter('conv.weight', [width, 1, dConv]),
          bias: hasBias ? builder.parameter('conv.bias', [width]) : null,
          out: columns(builder.buffer('out', width + 3), 1, width)
        }
      }
    }
    expect(await compareGpu(spec, BATCHES, { tolerance: 1e-6, place: `bias ${hasBias}` })).toBeLessThan(1e-6)
  }
})
