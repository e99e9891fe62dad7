/**
 * The selective scan of many tokens, parallel over channels, states and time: section 3.3.2 of the paper. A workgroup takes a few channels through
 * a segment, tile by tile. A thread has four states of a channel for a slice of consecutive tokens:
 *
 *   1. h_t = a_t h_(t−1) + b_t over its slice from zero; a_t = exp(dt_t A) stays in registers, the slice's own decay is exp(A Σ dt)
 *   2. the associative scan of (a, b), with one pair a slice: from the state at the start of the tile over the slices before its own
 *   3. h_t again, from there; y_t = C_t h_t, summed over the channel's lanes; D, the gate, out. The last slice's h is the state of the next tile
 *
 * The lanes of a channel share its tokens, too: each loads dt, x and z of some and writes their outputs. What a tile needs is loaded while the one before it
 * is computed: nothing waits for memory.
 *
 *   paper: HBM   here: GPU memory        rows of x, dt, z, B, C and out, each read or written once; the state, in L2 from tile to tile
 *   paper: SRAM  here: workgroup memory  B and C of a tile; of each slice its h and its decay
 *                registers               a, dt · x and y of a slice
 */

import type { DeviceFacts, Kernel, KernelContext } from '../kernel.ts'
import { laneSums } from './lane-sums.ts'
import { unroll } from './product.ts'
import { repeat } from './scan-math.ts'
import type { ScanPlan, ScanQuads } from './scan-plan.ts'
import { STEP_ROWS } from './scan-steps.ts'

/** What a workgroup takes. */
export interface Tile {
  readonly channels: number
  readonly nSlices: number
  /** Tokens of a slice. */
  readonly sliceTokens: number
}

const CHANNELS = 16
const SLICE_TOKENS = 16
const MAX_THREADS = 512
/** With so many threads for one slice, it keeps a large GPU busy (an H200 takes 32 threads on each of 528 units at a time), and has nothing to join. */
const MANY_THREADS = 16384

/**
 * Measured on an H200, microseconds (bench/webgpu/scan.ts --tiles, clock warm):
 *
 *   channels × slices × tokens     16x8x8  16x8x16  16x4x16  16x2x16  16x1x32  32x1x32
 *   1536 channels,  512 tokens       25.6     21.3     22.2     26.4     30.6     31.7
 *   2048 channels, 2048 tokens      110.0     84.6     96.9    133.4    130.0    127.9
 *   4096 channels,  512 tokens       52.0     41.5     45.0     37.0     35.1     32.4
 *   4096 channels, 4096 tokens      431.9    327.0    377.2    319.9    272.8    251.9
 */
export function tileFor({ lanes, dInner }: ScanPlan, { isSoftware, maxWorkgroupInvocations, maxWorkgroupStorageBytes }: DeviceFacts): Tile {
  // On a CPU every barrier costs.
  if (isSoftware) return { channels: CHANNELS, nSlices: 1, sliceTokens: SLICE_TOKENS }
  if (dInner * lanes >= MANY_THREADS) return { channels: 2 * CHANNELS, nSlices: 1, sliceTokens: 2 * SLICE_TOKENS }
  // B and C of a slice, h and decays of its threads.
  const sliceBytes = 32 * (SLICE_TOKENS + 1) * lanes + 32 * CHANNELS * lanes
  const most = Math.min(maxWorkgroupStorageBytes / sliceBytes, Math.min(MAX_THREADS, maxWorkgroupInvocations) / (CHANNELS * lanes))
  return { channels: CHANNELS, sliceTokens: SLICE_TOKENS, nSlices: 2 ** Math.floor(Math.log2(most)) }
}

/** In tiles as given: for measurements. */
export function scanTiles(plan: ScanPlan, { device }: KernelContext, tile: Tile = tileFor(plan, device)): Kernel {
  const { dInner, lanes, nGroups, bindings, declarations, x, dt, z, out, constants, timeStep, output, decayRates, state } = plan
  const { channels, nSlices, sliceTokens } = tile
  const teamThreads = channels * lanes
  const threads = teamThreads * nSlices
  const tokens = nSlices * sliceTokens
  /** Tokens of a slice that are a lane's own. */
  const ownTokens = sliceTokens / lanes
  const sums = laneSums({ count: sliceTokens, lanes, threads, subgroup: device.subgroup })
  const staging = stage(plan, { ...tile, threads })
  const perOwn = (code: (i: string) => string): string => repeat(ownTokens, code, 'i')
  /** For the tokens of a slice in their order: token i of lane l. */
  const perToken = (code: (j: string, i: string, l: string) => string): string => repeat(lanes, (l) => repeat(ownTokens, (i) => code(`${l} * ${ownTokens}u + ${i}`, i, l), 'i'), 'l')
  const ofLane = (value: string, l: string): string => (lanes === 1 ? value : `subgroupShuffle(${value}, firstLane + ${l})`)
  const load = (first: string): string => perOwn((i) => `let row = min(${first} + ownToken + ${i}, lastRow);
    nextDt[${i}] = ${dt('row', 'd')};
    nextX[${i}] = ${x('row', 'd')};
    ${z ? `nextZ[${i}] = ${z('row', 'd')};` : ''}`)

  const token = (i: string, l: string): string => `let step = ${ofLane(`steps[${i}]`, l)};
      let input = step * ${ofLane(`x[${i}]`, l)};`
  /** Slices beside each other. */
  const parallel = `var a = array<vec4f, ${sliceTokens}>();
      var inputs = array<f32, ${sliceTokens}>();
      let start = ${state.load('stateRow', 'quad')};
      var h = vec4f();
      var elapsed = 0.0;
      ${perToken((j, i, l) => `${token(i, l)}
      inputs[${j}] = input;
      a[${j}] = exp2(step * A);
      elapsed += step;
      h = a[${j}] * h + input * ${staging.B(j)};`)}
      ends[thread] = h;
      decays[thread] = exp2(elapsed * A);
      workgroupBarrier();
      h = start;
      for (var i = team; i < slice * ${teamThreads}u; i += ${teamThreads}u) { h = decays[i] * h + ends[i]; }
      ${perToken((j) => `h = a[${j}] * h + inputs[${j}] * ${staging.B(j)};
      y[${j}] += dot(${staging.C(j)}, h);`)}
      if (slice == ${nSlices - 1}u && isInside) { ${state.store('stateRow', 'quad', 'h')} }
      storageBarrier();`
  /** One slice: there is nothing to join, and its state stays in a register where it has four elements. */
  const keepsState = nGroups === 1
  const sequential = `${keepsState ? '' : `var h = ${state.load('stateRow', 'quad')};`}
      ${perToken((j, i, l) => `${token(i, l)}
      h = exp2(step * A) * h + input * ${staging.B(j)};
      y[${j}] += dot(${staging.C(j)}, h);`)}
      ${keepsState ? '' : `if (isInside) { ${state.store('stateRow', 'quad', 'h')} }`}`
  const isSequential = nSlices === 1

  const code = `${declarations}
${sums.declarations}
${isSequential ? '' : `var<workgroup> ends: array<vec4f, ${threads}>;
var<workgroup> decays: array<vec4f, ${threads}>;`}
${staging.declaration}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32${lanes === 1 ? '' : ', @builtin(subgroup_invocation_id) subgroupLane: u32'}) {
  let segment = segmentAt(group.y);
  if (segment.nRows <= ${STEP_ROWS}u) { return; }
  let lane = thread % ${lanes}u;
  ${lanes === 1 ? '' : 'let firstLane = subgroupLane - lane;'}
  let team = thread % ${teamThreads}u;
  let slice = thread / ${teamThreads}u;
  let ownToken = slice * ${sliceTokens}u + lane * ${ownTokens}u;
  let firstChannel = group.x * ${channels}u;
  let channel = firstChannel + team / ${lanes}u;
  let isInside = channel < ${dInner}u;
  let d = min(channel, ${dInner - 1}u);
  let stateRow = segment.stateTo * ${dInner}u + d;
  let lastRow = segment.firstRow + segment.nRows - 1u;
  ${constants('d')}
  var nextDt = array<f32, ${ownTokens}>();
  var nextX = array<f32, ${ownTokens}>();
  ${z ? `var nextZ = array<f32, ${ownTokens}>();` : ''}
  ${staging.registers}
  ${isSequential && keepsState ? `var h = ${state.load('stateRow', 'lane')};` : ''}
  ${load('segment.firstRow')}
  ${staging.load('segment.firstRow', '0u')}
  for (var first = segment.firstRow; first <= lastRow; first += ${tokens}u) {
    var steps = array<f32, ${ownTokens}>();
    var x = nextX;
    ${z ? 'var z = nextZ;' : ''}
    ${perOwn((i) => `steps[${i}] = select(0.0, ${timeStep(`nextDt[${i}]`)}, first + ownToken + ${i} <= lastRow);`)}
    ${load(`first + ${tokens}u`)}
    var y = array<f32, ${sliceTokens}>();
    for (var g = 0u; g < ${nGroups}u; g++) {
      let quad = g * ${lanes}u + lane;
      ${staging.store}
      workgroupBarrier();
      ${nGroups === 1 ? staging.load(`first + ${tokens}u`, '0u') : staging.load(`select(first, first + ${tokens}u, g == ${nGroups - 1}u)`, `select(g + 1u, 0u, g == ${nGroups - 1}u)`)}
      let A = ${decayRates('d', 'quad')};
      ${staging.ready}
${isSequential ? sequential : parallel}
      workgroupBarrier();
    }
    ${sums.of('y')}
    ${unroll(ownTokens, (i) => `if (isInside && first + ownToken + ${i}u <= lastRow) { ${out(`first + ownToken + ${i}u`, 'd')} = ${output(`sum${i}`, `x[${i}]`, `z[${i}]`)}; }`)}
  }
  ${isSequential && keepsState ? `if (isInside) { ${state.store('stateRow', 'lane', 'h')} }` : ''}
}`
  return {
    label: `selectiveScan tiles of ${tokens}`,
    enables: sums.enables,
    code,
    bindings,
    workgroups: ({ nSegments, maxSegmentRows }) => (maxSegmentRows > STEP_ROWS ? [Math.ceil(dInner / channels), nSegments, 1] : null)
  }
}

/**
 * B and C of a tile and a group of states. In workgroup memory a lane's are together, as many as a slice has tokens and one more: the lanes of
 * a channel read from different banks, and a token is a constant offset.
 */
interface Staging {
  readonly declaration: string
  /** Variables of main. */
  readonly registers: string
  /** Statements: from GPU memory to registers, from there to workgroup memory, and what is to be done after a barrier. */
  readonly load: (first: string, g: string) => string
  readonly store: string
  readonly ready: string
  /** Expressions: of token j of the slice. */
  readonly B: (j: string) => string
  readonly C: (j: string) => string
}

/** Through workgroup memory where all channels of a workgroup have the same; in a register where all tokens have; or from GPU memory by each thread. */
function stage({ lanes, dInner, B, C }: ScanPlan, { channels, nSlices, sliceTokens, threads }: Tile & { readonly threads: number }): Staging {
  const isStaged = ({ isParameter, groupChannels }: ScanQuads): boolean => !isParameter && (groupChannels === dInner || groupChannels % channels === 0)
  const quads = nSlices * sliceTokens * lanes
  const staged = [B, C].filter(isStaged)
  const own = Math.ceil((staged.length * quads) / threads)
  const isExact = own * threads === staged.length * quads
  const places = (code: (i: number) => string): string => unroll(own, (i) => {
    const body = code(i)
    return isExact ? `{ ${body} }` : `if (thread + ${i * threads}u < ${staged.length * quads}u) { ${body} }`
  })
  const of = (name: string, { isParameter, load, ...input }: ScanQuads) => (j: string): string => {
    const token = `slice * ${sliceTokens}u + ${j}`
    if (isParameter) return `own${name}`
    const index = staged.findIndex((other) => other.load === load)
    return isStaged({ isParameter, load, ...input }) ? `tile[${index * nSlices * lanes}u + slice * ${lanes}u + lane][${j}]` : load(`min(first + ${token}, lastRow)`, 'd', 'quad')
  }
  const load = (first: string, g: string): string => places((i) => {
    const loads = staged.map((input) => `next${i} = ${input.load('row', 'firstChannel', 'quad')};`)
    return `let place = thread + ${i * threads}u;
      let row = min(${first} + place % ${quads}u / ${lanes}u, lastRow);
      let quad = ${g} * ${lanes}u + place % ${lanes}u;
      ${loads.length === 1 ? loads[0] : `if (place < ${quads}u) { ${loads[0]} } else { ${loads[1]} }`}`
  })
  return {
    declaration: staged.length > 0 ? `var<workgroup> tile: array<array<vec4f, ${sliceTokens + 1}>, ${staged.length * nSlices * lanes}>;` : '',
    registers: unroll(own, (i) => `var next${i} = vec4f();`),
    load,
    store: places((i) => `let place = thread + ${i * threads}u;
      let token = place / ${lanes}u;
      tile[token / ${sliceTokens}u * ${lanes}u + place % ${lanes}u][token % ${sliceTokens}u] = next${i};`),
    ready: [['B', B] as const, ['C', C] as const].filter(([, { isParameter }]) => isParameter).map(([name, { load }]) => `let own${name} = ${load('', 'd', 'quad')};`).join('\n'),
    B: of('B', B),
    C: of('C', C)
  }
}
