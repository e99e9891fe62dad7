/** The kernel alone against the float64 reference. */
import { expect, test } from 'vitest'
import { columns } from '../../../src/program/builder.ts'
import { segment, type OpSpec } from '../../support/op-rig.ts'
import { compareGpu } from '../../support/op-sweep.ts'

test.each([[1, false], [63, true], [64, false], [65, true], [200, true]])('scaledAdd of %i columns, accumulate %s', async (width, accumulate) => {
  const spec: OpSpec = {
    seed: width, capacity: { maxRows: 9, maxLogitRows: 9, nSlots: 2, contextLength: 0 },
    build: (builder) => ({
      kind: 'scaledAdd', accumulate, factor: -0.7,
      x: columns(builder.buffer('x', width + 5), 3, width),
      out: columns(builder.buffer('out', width + 2), 1, width)
    })
  }
  const error = await compareGpu(spec, [[segment(0, 0, 1)], [segment(1, 0, 4), segment(0, 4, 5)]], { tolerance: 1e-7, place: 'scaledAdd' })
  expect(error).toBeLessThan(1e-7)
})
