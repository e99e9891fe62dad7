/**
 * The selective scan on a GPU by length, beside a sequential and an unfused one (baselines.ts): the paper's figure 8.
 *
 *   node --conditions=source bench/webgpu/scan.ts [--channels 2048] [--lengths 512,1024,…] [--tiles 16x8x8,…] [--baselines false]
 *
 * Tiles are channels, slices and tokens of a slice of a workgroup. One sequence, 16 states. The time of a run is
 * the GPU's own, by timestamps around as many of them as take some milliseconds; the median of five. Also: how far y is from a float64
 * recurrence. Needs the package `webgpu` alone.
 */

import { parseArgs } from 'node:util'
import { adapterName, factsOf } from '../../src/backend/webgpu/device.ts'
import { planScan } from '../../src/backend/webgpu/kernels/scan-plan.ts'
import { scanTiles, type Tile, tileFor } from '../../src/backend/webgpu/kernels/scan-tiles.ts'
import { columns, ProgramBuilder } from '../../src/program/builder.ts'
import type { Program, SelectiveScanOp, View } from '../../src/program/ops.ts'
import { type Baseline, baselines } from './baselines.ts'
import { openBench, type OpOnGpu, placeOp, uniform } from './op-on-gpu.ts'
import type { Dispatch } from './timer.ts'

const { values: options } = parseArgs({ options: {
  channels: { type: 'string', default: '2048' },
  lengths: { type: 'string', default: '512,1024,2048,4096,8192,16384,32768,65536' },
  tiles: { type: 'string', default: '' },
  baselines: { type: 'string', default: 'true' }
} })
const [D, N] = [Number(options.channels), 16]

// As Mamba starts: A is -1 … -N, dt from 0.001 to 0.1 by its bias.
const A = Float32Array.from({ length: D * N }, (_, i) => -1 - (i % N))
const dtBias = Float32Array.from({ length: D }, (_, d) => Math.log(Math.expm1(0.001 * 100 ** (d / D))))
const parameters = { A, dtBias, D: new Float32Array(D).fill(1) }

/** x and z side by side, as in a model, and so are B and C. */
function scanProgram(): { program: Program; op: SelectiveScanOp; B: View; C: View; z: View } {
  const builder = new ProgramBuilder()
  const [xz, BC] = [builder.buffer('xz', 2 * D), builder.buffer('BC', 2 * N)]
  const [z, B, C] = [columns(xz, D, D), columns(BC, 0, N), columns(BC, N, N)]
  const op: SelectiveScanOp = {
    kind: 'selectiveScan', dState: N, dtSoftplus: true, state: builder.state('ssm', [D, N]), x: columns(xz, 0, D), z, dt: builder.buffer('dt', D), B, C,
    A: builder.parameter('A', [D, N]), D: builder.parameter('D', [D]), dtBias: builder.parameter('dtBias', [D]), out: builder.buffer('y', D)
  }
  builder.add(op)
  return { program: builder.build(null, 0), op, B, C, z }
}

const bench = await openBench()
const { device, timer } = bench
console.log(`${adapterName(device)}, ${D} channels, ${N} states, subgroups ${JSON.stringify(factsOf(device).subgroup)}, workgroup memory ${factsOf(device).maxWorkgroupStorageBytes}`)

/** Microseconds by name, and errors. */
async function measure(length: number): Promise<Record<string, number>> {
  const scan = scanProgram()
  const placed = await placeOp(bench, scan.program, { length, parameters })
  if (placed === null) return {}
  const results: Record<string, number> = {}
  const take = async (name: string, dispatches: readonly Dispatch[]): Promise<void> => {
    results[name] = await timer.time(dispatches)
    if (length <= 4096) results[`${name} error`] = await errorOf(scan, placed, length, dispatches)
  }
  const plan = planScan(scan.op, placed.context)
  for (const { name, tile } of tilesOf(tileFor(plan, placed.context.device))) {
    const kernel = scanTiles(plan, placed.context, tile)
    try {
      await take(name, await placed.record([kernel]))
    } catch (error) {
      console.log(`${name}: ${String(error).slice(0, 300)}`)
    }
  }
  if (options.baselines === 'true') {
    const { sequential, unfused } = baselines(scan.op, placed.context)
    const expanded = 4 * length * D * N
    const wide = expanded <= placed.context.device.maxBindingBytes ? { decays: bench.buffer(expanded), inputs: bench.buffer(expanded) } : null
    const record = (kernels: readonly Baseline[]): Promise<Dispatch[]> => Promise.all(kernels.map(({ code, bindings, workgroups }) => {
      const buffers = bindings.map((name) => (name === 'state' ? placed.state : name === 'decays' || name === 'inputs' ? (wide as NonNullable<typeof wide>)[name] : placed.parameter(name)))
      return placed.compile(code, buffers, workgroups(length))
    }))
    await take('sequential', await record(sequential))
    if (wide) {
      await take('unfused', await record(unfused))
      wide.decays.destroy()
      wide.inputs.destroy()
    }
  }
  placed.destroy()
  return results
}

function tilesOf(own: Tile): { name: string; tile: Tile }[] {
  if (options.tiles === '') return [{ name: 'ours', tile: own }]
  return options.tiles.split(',').map((name) => {
    const [channels, nSlices, sliceTokens] = name.split('x').map(Number)
    return { name, tile: { channels, nSlices, sliceTokens } }
  })
}

/** Largest error of some channels of y from a zero state, of the largest value there. */
async function errorOf({ op, B, C, z }: ReturnType<typeof scanProgram>, { context: { view }, activations, state }: OpOnGpu, length: number, dispatches: readonly Dispatch[]): Promise<number> {
  device.queue.writeBuffer(state, 0, new Float32Array(D * N))
  timer.run(dispatches)
  const out = view(op.out)
  const got = await timer.read(activations, out.offset, length * out.stride)
  const at = (from: View, t: number, i: number): number => uniform(view(from).offset + t * view(from).stride + i)
  let [error, largest] = [0, 0]
  for (let d = 0; d < D; d += Math.floor(D / 16) + 1) {
    const h = new Float64Array(N)
    for (let t = 0; t < length; t++) {
      const dt = Math.log1p(Math.exp(at(op.dt, t, d) + dtBias[d]))
      const [x, gate] = [at(op.x, t, d), at(z, t, d)]
      let y = x
      for (let n = 0; n < N; n++) {
        h[n] = Math.exp(dt * A[d * N + n]) * h[n] + dt * x * at(B, t, n)
        y += at(C, t, n) * h[n]
      }
      y *= gate / (1 + Math.exp(-gate))
      error = Math.max(error, Math.abs(got[t * out.stride + d] - y))
      largest = Math.max(largest, Math.abs(y))
    }
  }
  return error / largest
}

for (const length of options.lengths.split(',').map(Number)) {
  const results = await measure(length)
  const ours = results['ours']
  const parts = Object.entries(results).map(([name, value]) => {
    if (name.endsWith('error')) return `${name} ${value.toExponential(1)}`
    if (name === 'ours') return `ours ${value.toFixed(1)} us (${((16 * length * D) / value / 1e3).toFixed(0)} GB/s, ${((length * D * N) / value / 1e3).toFixed(0)} G states/s)`
    return `${name} ${value.toFixed(1)} us${ours ? ` (${(value / ours).toFixed(1)} x)` : ''}`
  })
  console.log(`${String(length).padStart(6)}: ${parts.join('; ')}`)
}
process.exit(0)
