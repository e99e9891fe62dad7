/**
 * The selective scan on a GPU by length, beside a sequential and an unfused one (baselines.ts): the paper's figure 8.
 *
 *   node --conditions=source bench/webgpu/scan.ts [--channels 2048] [--lengths 512,1024,…] [--tiles 16x8x8,16x8x8u,…]
 *
 * Tiles are channels, slices and tokens of a slice of a workgroup; u: with loops written out. One sequence, 16 states. The time of a run is the GPU's own, by timestamps around as many of them as take some milliseconds; the median of five.
 * Also: how far y is from a float64 recurrence. Needs the package `webgpu` alone.
 */

import { parseArgs } from 'node:util'
import { factsOf, openDevice } from '../../src/backend/webgpu/device.ts'
import { BATCH_HEADER_WORDS, type Kernel, type KernelContext, prelude, SEGMENT_WORDS } from '../../src/backend/webgpu/kernel.ts'
import { planScan } from '../../src/backend/webgpu/kernels/scan-plan.ts'
import { scanTiles, type Tile, tileFor } from '../../src/backend/webgpu/kernels/scan-tiles.ts'
import { layOutViews } from '../../src/backend/webgpu/memory.ts'
import { columns, ProgramBuilder } from '../../src/program/builder.ts'
import type { SelectiveScanOp } from '../../src/program/ops.ts'
import { type Baseline, baselines, type Name } from './baselines.ts'
import { createTimer, type Dispatch } from './timer.ts'

const { values: options } = parseArgs({ options: {
  channels: { type: 'string', default: '2048' },
  lengths: { type: 'string', default: '512,1024,2048,4096,8192,16384,32768,65536' },
  tiles: { type: 'string', default: '' },
  baselines: { type: 'string', default: 'true' }
} })
const [D, N] = [Number(options.channels), 16]
const LENGTHS = options.lengths.split(',').map(Number)

// Not a literal: the types of this package are another edition of TypeScript's.
const dawn: string = 'webgpu'
const { create } = await import(dawn) as { create: (options: string[]) => GPU }
const gpu = create(['enable-dawn-features=disable_workgroup_init', 'disable-dawn-features=timestamp_quantization'])
const device = await openDevice(gpu)
device.addEventListener('uncapturederror', ({ error }) => console.error(error.message))
console.log(`${device.adapterInfo.description || device.adapterInfo.vendor}, ${D} channels, ${N} states, subgroups ${JSON.stringify(factsOf(device).subgroup)}, workgroup memory ${factsOf(device).maxWorkgroupStorageBytes}`)

function scanOf(length: number) {
  const builder = new ProgramBuilder()
  const xz = builder.buffer('xz', 2 * D)
  const dtBC = builder.buffer('dtBC', 2 * N)
  const op: SelectiveScanOp = {
    kind: 'selectiveScan', dState: N, dtSoftplus: true, state: builder.state('ssm', [D, N]),
    x: columns(xz, 0, D), z: columns(xz, D, D), dt: builder.buffer('dt', D), B: columns(dtBC, 0, N), C: columns(dtBC, N, N),
    A: builder.parameter('A', [D, N]), D: builder.parameter('D', [D]), dtBias: builder.parameter('dtBias', [D]), out: builder.buffer('y', D)
  }
  builder.add(op)
  const capacity = { maxRows: length, maxLogitRows: 0, nSlots: 1, contextLength: 0 }
  const { view, bytes } = layOutViews(builder.build(null, 0), capacity)
  const context: KernelContext = { device: factsOf(device), capacity, ssd: 'recurrent', view, formatOf: () => 'f32' }
  return { op, context, bytes, capacity }
}

/** The i-th of uniform numbers in [-1, 1); the shader below makes the same bits. */
function uniform(i: number): number {
  let bits = Math.imul(i, 747796405) + 2891336453
  bits = Math.imul((bits >>> ((bits >>> 28) + 4)) ^ bits, 277803737)
  bits = (bits >>> 22) ^ bits
  return (bits >>> 8) / 2 ** 23 - 1
}

const FILL = `
@group(0) @binding(0) var<storage, read_write> values: array<f32>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 256u + id.x;
  if (i >= arrayLength(&values)) { return; }
  var bits = i * 747796405u + 2891336453u;
  bits = ((bits >> ((bits >> 28u) + 4u)) ^ bits) * 277803737u;
  bits = (bits >> 22u) ^ bits;
  values[i] = f32(bits >> 8u) / 8388608.0 - 1.0;
}`

const usage = 0x80 | 0x8 | 0x4
const bufferOf = (bytes: number): GPUBuffer => device.createBuffer({ size: bytes, usage })
const filled = (values: Float32Array<ArrayBuffer>): GPUBuffer => {
  const buffer = bufferOf(values.byteLength)
  device.queue.writeBuffer(buffer, 0, values)
  return buffer
}
// As Mamba starts: A is -1 … -N, dt from 0.001 to 0.1 by its bias.
const A = Float32Array.from({ length: D * N }, (_, i) => -1 - (i % N))
const ones = new Float32Array(D).fill(1)
const bias = Float32Array.from({ length: D }, (_, d) => Math.log(Math.expm1(0.001 * 100 ** (d / D))))
const parameters: Record<Exclude<Name, 'decays' | 'inputs'>, GPUBuffer> = { A: filled(A), D: filled(ones), dtBias: filled(bias), state: bufferOf(4 * D * N) }

const timer = createTimer(device)

async function measure(length: number): Promise<Record<string, number>> {
  const { op, context, bytes, capacity } = scanOf(length)
  const most = factsOf(device).maxBindingBytes
  if (bytes > most) {
    console.log(`${length}: ${bytes} bytes are more than a binding may have, ${most}`)
    return {}
  }
  const activations = bufferOf(bytes)
  const fill = await timer.compile(FILL, [activations])
  const nGroups = Math.ceil(bytes / 1024)
  const batch = new Uint32Array(BATCH_HEADER_WORDS + SEGMENT_WORDS + 2 * length)
  batch.set([length, 0, 1, 0, 0, 0, 0, length])
  const batchBuffer = bufferOf(batch.byteLength)
  device.queue.writeBuffer(batchBuffer, 0, batch)
  timer.run([{ ...fill, workgroups: [Math.min(nGroups, 65535), Math.ceil(nGroups / 65535), 1] }])
  const counts = { nTokens: length, nLogitRows: 0, nSegments: 1, maxSegmentRows: length, maxPositions: 0 }
  const ready = async (code: string, buffers: readonly GPUBuffer[], workgroups: readonly [number, number, number]): Promise<Dispatch> => (
    { ...await timer.compile(`${prelude(capacity)}${code}`, [activations, batchBuffer, ...buffers]), workgroups })
  const ofKernel = (kernel: Kernel): Promise<Dispatch> => {
    const names = kernel.bindings.map((binding) => (binding.kind === 'parameters' ? binding.parameters[0].name : 'state') as 'A' | 'D' | 'dtBias' | 'state')
    const enables = (kernel.enables ?? []).map((name) => `enable ${name};\n`).join('')
    const workgroups = kernel.workgroups(counts) ?? [0, 0, 0]
    return timer.compile(`${enables}${prelude(capacity)}${kernel.code}`, [activations, batchBuffer, ...names.map((name) => parameters[name])]).then((compiled) => ({ ...compiled, workgroups }))
  }
  const times: Record<string, number> = {}
  const take = async (name: string, dispatches: readonly Dispatch[]): Promise<void> => {
    times[name] = await timer.time(dispatches)
    if (length <= 4096) times[`${name} error`] = await errorOf(op, context, activations, length, dispatches)
  }
  const plan = planScan(op, context)
  const own = tileFor(plan, context.device)
  const tiles = options.tiles === '' ? [{ name: 'ours', tile: own }] : options.tiles.split(',').map((name) => {
    const [channels, nSlices, sliceTokens] = name.split('x').map(parseFloat)
    return { name, tile: { channels, nSlices, sliceTokens } satisfies Tile }
  })
  for (const { name, tile } of tiles) {
    const made = scanTiles(plan, context, tile)
    const kernel = name.endsWith('u') ? { ...made, code: unrolled(made.code) } : made
    try {
      await take(name, [await ofKernel(kernel)])
    } catch (error) {
      console.log(`${name}: ${String(error).slice(0, 300)}`)
    }
  }
  if (options.baselines === 'true') {
    const { sequential, unfused } = baselines(op, context)
    const expanded = 4 * length * D * N
    const wide = expanded <= most ? { decays: bufferOf(expanded), inputs: bufferOf(expanded) } : null
    const record = async (kernels: readonly Baseline[]): Promise<Dispatch[]> => Promise.all(kernels.map(({ code, bindings, workgroups }) => (
      ready(code, bindings.map((name) => ({ ...parameters, ...wide } as Record<Name, GPUBuffer>)[name]), workgroups(length)))))
    await take('sequential', await record(sequential))
    if (wide) {
      await take('unfused', await record(unfused))
      wide.decays.destroy()
      wide.inputs.destroy()
    }
  }
  activations.destroy()
  batchBuffer.destroy()
  return times
}

/** Loops of `repeat` written out, the inner ones first. */
function unrolled(code: string): string {
  const more = code.replace(/for \(var (\w) = 0u; \1 < (\d+)u; \1\+\+\) {\n((?:(?!for \(var)[\s\S])*?)\n}/g, (_, name: string, count: string, body: string) => (
    Array.from({ length: Number(count) }, (_, j) => `{ ${body.replace(new RegExp(`\\b${name}\\b`, 'g'), `${j}u`)} }`).join('\n')))
  return more === code ? code : unrolled(more)
}

/** Largest error of some channels of y from a zero state, of the largest value there. */
async function errorOf({ x, dt, z, B, C, out }: SelectiveScanOp, { view }: KernelContext, activations: GPUBuffer, length: number, dispatches: readonly Dispatch[]): Promise<number> {
  device.queue.writeBuffer(parameters.state, 0, new Float32Array(D * N))
  timer.run(dispatches)
  const got = await timer.read(activations, view(out).offset, length * view(out).stride)
  const at = (from: typeof x, t: number, i: number): number => uniform(view(from).offset + t * view(from).stride + i)
  let [error, largest] = [0, 0]
  for (let d = 0; d < D; d += Math.floor(D / 16) + 1) {
    const h = new Float64Array(N)
    for (let t = 0; t < length; t++) {
      const step = Math.log1p(Math.exp(at(dt, t, d) + bias[d]))
      const input = at(x, t, d)
      let y = input
      for (let n = 0; n < N; n++) {
        h[n] = Math.exp(step * A[d * N + n]) * h[n] + step * input * at(B as typeof x, t, n)
        y += at(C as typeof x, t, n) * h[n]
      }
      const gate = at(z as typeof x, t, d)
      y *= gate / (1 + Math.exp(-gate))
      error = Math.max(error, Math.abs(got[t * view(out).stride + d] - y))
      largest = Math.max(largest, Math.abs(y))
    }
  }
  return error / largest
}

for (const length of LENGTHS) {
  const { ours, sequential, unfused, ...others } = await measure(length)
  const ratio = (time: number | undefined): string => (time === undefined ? 'does not fit' : `${time.toFixed(0)} us${ours ? ` (${(time / ours).toFixed(1)} x)` : ''}`)
  const rate = ours ? `ours ${ours.toFixed(1)} us, ${((16 * length * D) / ours / 1e3).toFixed(0)} GB/s, ${((length * D * N) / ours / 1e3).toFixed(0)} G states/s; ` : ''
  const rest = Object.entries(others).map(([name, value]) => `${name} ${name.endsWith('error') ? value.toExponential(1) : `${value.toFixed(1)} us`}`).join('; ')
  console.log(`${String(length).padStart(6)}: ${rate}${options.baselines === 'true' ? `sequential ${ratio(sequential)}; unfused ${ratio(unfused)}; ` : ''}${rest}`)
}
process.exit(0)
