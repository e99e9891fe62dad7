/**
 * Mamba-2's state space on a GPU by length, as its recurrence and by chunks: time of the GPU for one sequence.
 *
 *   node --conditions=source bench/webgpu/ssd.ts [--heads 80] [--states 128] [--lengths 1,64,512,…] [--shapes 8x256,16x128,…]
 *
 * Shapes of the recurrence: tokens at a time and threads of a workgroup.
 */

import { parseArgs } from 'node:util'
import { adapterName } from '../../src/backend/webgpu/device.ts'
import { planSsd } from '../../src/backend/webgpu/kernels/ssd-plan.ts'
import { ssdScan } from '../../src/backend/webgpu/kernels/ssd-scan.ts'
import { ssdShapeFor, ssdSteps } from '../../src/backend/webgpu/kernels/ssd-steps.ts'
import { columns, ProgramBuilder } from '../../src/program/builder.ts'
import type { SsdScanOp } from '../../src/program/ops.ts'
import { openBench, placeOp } from './op-on-gpu.ts'

const { values: options } = parseArgs({ options: {
  heads: { type: 'string', default: '80' },
  states: { type: 'string', default: '128' },
  lengths: { type: 'string', default: '1,64,512,2048,8192' },
  shapes: { type: 'string', default: '' }
} })
const [nHeads, headDim, dState] = [Number(options.heads), 64, Number(options.states)]
const parameters = {
  A: Float32Array.from({ length: nHeads }, (_, i) => -1 - (i % 16)), D: new Float32Array(nHeads).fill(1), dtBias: new Float32Array(nHeads).fill(-4)
}
const bench = await openBench()
console.log(`${adapterName(bench.device)}, ${nHeads} heads of ${headDim} channels, ${dState} states`)
for (const length of options.lengths.split(',').map(Number)) {
  const builder = new ProgramBuilder()
  const width = nHeads * headDim
  const xBC = builder.buffer('xBC', width + 2 * dState)
  const perHead = (name: string) => builder.parameter(name, [nHeads])
  const op: SsdScanOp = {
    kind: 'ssdScan', dState, dtLimit: [0, Infinity], state: builder.state('ssm', [nHeads, headDim, dState]),
    x: columns(xBC, 0, width), B: columns(xBC, width, dState), C: columns(xBC, width + dState, dState), dt: builder.buffer('dt', nHeads),
    A: perHead('A'), D: perHead('D'), dtBias: perHead('dtBias'), out: builder.buffer('y', width)
  }
  builder.add(op)
  const program = builder.build(null, 0)
  const parts: string[] = []
  for (const ssd of ['recurrent', 'chunked'] as const) {
    const placed = await placeOp(bench, program, { length, ssd, parameters })
    if (placed === null) continue
    const dispatches = await placed.record(ssdScan(op, placed.context))
    const each: number[] = []
    for (const dispatch of dispatches) each.push(await bench.timer.time([dispatch]))
    parts.push(`${ssd} ${(await bench.timer.time(dispatches)).toFixed(1)} us (kernels ${each.map((time) => time.toFixed(1)).join(' + ')})`)
    if (ssd === 'recurrent' && options.shapes !== '') {
      const plan = planSsd(op, placed.context)
      for (const name of options.shapes.split(',')) {
        const [mostTokens, mostThreads] = name.split('x').map(Number)
        const kernel = ssdSteps(plan, placed.context, { mostRows: Infinity, shape: ssdShapeFor(plan, placed.context.device, { mostTokens, mostThreads }) })
        parts.push(`${name} ${(await bench.timer.time(await placed.record([kernel]))).toFixed(1)} us`)
      }
    }
    placed.destroy()
  }
  console.log(`${String(length).padStart(6)}: ${parts.join('; ')}`)
}
process.exit(0)
