/**
 * The selective scan of many tokens, parallel over channels, states and time: section 3.3.2 of the paper. A workgroup takes a few channels through
 * a segment, tile by tile. A thread has four states of a channel for a slice of consecutive tokens:
 *
 *   1. h_t = a_t h_(t−1) + b_t over its slice from zero; a_t = exp(dt_t A) stays in registers, the slice's own decay is exp(A Σ dt)
 *   2. one thread for each four states goes over the slices: what each of them starts from. This is the associative scan of (a, b), with one pair a slice
 *   3. h_t again, from there; y_t = C_t h_t, summed over the channel's lanes; D, the gate, out
 *
 *   paper: HBM   here: GPU memory        rows of x, dt, z, B, C and out; the state at either end
 *   paper: SRAM  here: workgroup memory  of a tile's tokens dt and dt · x by channel, B and C; of each slice its h and its decay
 *                registers               a, dt, dt · x and y of a slice; the state between tiles
 */

import type { DeviceFacts, Kernel, KernelContext } from '../kernel.ts'
import { laneSums } from './lane-sums.ts'
import { unroll } from './product.ts'
import { repeat } from './scan-math.ts'
import type { ScanPlan, ScanQuads } from './scan-plan.ts'
import { STEP_ROWS } from './scan-steps.ts'

/** What a workgroup takes. */
interface Tile {
  readonly channels: number
  readonly nSlices: number
  /** Tokens of a slice. */
  readonly sliceTokens: number
}

const CHANNELS = 16
const SLICE_TOKENS = 8
const MAX_THREADS = 512

function tileFor({ lanes }: ScanPlan, { maxWorkgroupInvocations, maxWorkgroupStorageBytes }: DeviceFacts): Tile {
  const [channels, sliceTokens] = [CHANNELS, SLICE_TOKENS]
  const sliceBytes = 8 * sliceTokens * channels + 32 * sliceTokens * lanes + 32 * channels * lanes
  const most = Math.min(maxWorkgroupStorageBytes / sliceBytes, Math.min(MAX_THREADS, maxWorkgroupInvocations) / (channels * lanes))
  return { channels, sliceTokens, nSlices: 2 ** Math.floor(Math.log2(most)) }
}

export function scanTiles(plan: ScanPlan, { device }: KernelContext): Kernel {
  const { dInner, lanes, nGroups, bindings, declarations, x, out, timeStep, output, decayRates, state } = plan
  const { channels, nSlices, sliceTokens } = tileFor(plan, device)
  const teamThreads = channels * lanes
  const threads = teamThreads * nSlices
  const tokens = nSlices * sliceTokens
  const rest = sliceTokens / lanes
  const sums = laneSums({ count: sliceTokens, lanes, threads, subgroup: device.subgroup })
  const quads = { lanes, tokens, channels, dInner, threads, sliceTokens }
  const [B, C] = [quadsOfTile('B', plan.B, quads), quadsOfTile('C', plan.C, quads)]
  const perToken = (code: (j: string) => string): string => repeat(sliceTokens, code)

  const code = `${declarations}
${sums.declarations}
var<workgroup> steps: array<vec2f, ${tokens * channels}>;
var<workgroup> ends: array<vec4f, ${threads}>;
var<workgroup> decays: array<vec4f, ${threads}>;
${B.declaration}
${C.declaration}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let segment = segmentAt(group.y);
  if (segment.nRows <= ${STEP_ROWS}u) { return; }
  let lane = thread % ${lanes}u;
  let team = thread % ${teamThreads}u;
  let slice = thread / ${teamThreads}u;
  let firstChannel = group.x * ${channels}u;
  let channel = firstChannel + team / ${lanes}u;
  let isInside = channel < ${dInner}u;
  let d = min(channel, ${dInner - 1}u);
  let stateRow = segment.slot * ${dInner}u + d;
  let lastRow = segment.firstRow + segment.nRows - 1u;
  let isCarrier = slice == 0u;
  var carry: array<vec4f, ${nGroups}>;
  if (isCarrier) {
    for (var g = 0u; g < ${nGroups}u; g++) { carry[g] = ${state.load('stateRow', `g * ${lanes}u + lane`)}; }
  }
  for (var first = segment.firstRow; first <= lastRow; first += ${tokens}u) {
    for (var i = thread; i < ${tokens * channels}u; i += ${threads}u) {
      let row = first + i / ${channels}u;
      let channel = min(firstChannel + i % ${channels}u, ${dInner - 1}u);
      var step = vec2f();
      if (row <= lastRow) {
        let dt = ${timeStep('row', 'channel')};
        step = vec2f(dt, dt * ${x('row', 'channel')});
      }
      steps[i] = step;
    }
    var y = array<f32, ${sliceTokens}>();
    for (var g = 0u; g < ${nGroups}u; g++) {
      let quad = g * ${lanes}u + lane;
      ${B.stage}
      ${C.stage}
      workgroupBarrier();
      let A = ${decayRates('d', 'quad')};
      ${B.ready}
      ${C.ready}
      var slices: array<vec2f, ${sliceTokens}>;
      var a: array<vec4f, ${sliceTokens}>;
      var h = vec4f();
      var elapsed = 0.0;
      ${perToken((j) => `let step = steps[(slice * ${sliceTokens}u + ${j}) * ${channels}u + team / ${lanes}u];
      slices[${j}] = step;
      a[${j}] = exp2(step.x * A);
      elapsed += step.x;
      h = a[${j}] * h + step.y * ${B.at(j)};`)}
      ends[thread] = h;
      decays[thread] = exp2(elapsed * A);
      workgroupBarrier();
      if (isCarrier) {
        var start = carry[g];
        for (var i = team; i < ${threads}u; i += ${teamThreads}u) {
          let end = ends[i];
          ends[i] = start;
          start = decays[i] * start + end;
        }
        carry[g] = start;
      }
      workgroupBarrier();
      h = ends[thread];
      ${perToken((j) => `h = a[${j}] * h + slices[${j}].y * ${B.at(j)};
      y[${j}] += dot(${C.at(j)}, h);`)}
      ${nGroups > 1 ? 'workgroupBarrier();' : ''}
    }
    ${sums.of('y')}
    let firstOut = first + slice * ${sliceTokens}u + lane * ${rest}u;
    ${unroll(rest, (i) => `if (isInside && firstOut + ${i}u <= lastRow) {
      let row = firstOut + ${i}u;
      let x = ${x('row', 'd')};
      ${out('row', 'd')} = ${output(`sum${i}`, 'x', 'row', 'd')};
    }`)}
    workgroupBarrier();
  }
  if (isCarrier && isInside) {
    for (var g = 0u; g < ${nGroups}u; g++) { ${state.store('stateRow', `g * ${lanes}u + lane`, 'carry[g]')} }
  }
}`
  return {
    label: `selectiveScan tiles of ${tokens}`,
    enables: sums.enables,
    code,
    bindings,
    workgroups: ({ nSegments, maxSegmentRows }) => (maxSegmentRows > STEP_ROWS ? [Math.ceil(dInner / channels), nSegments, 1] : null)
  }
}

interface TileQuads {
  readonly declaration: string
  /** Statements: into workgroup memory, before a barrier; into registers, after it. */
  readonly stage: string
  readonly ready: string
  /** Of token j of the slice. */
  readonly at: (j: string) => string
}

/** B or C: through workgroup memory where all channels of a workgroup have the same, in a register where all tokens have. */
function quadsOfTile(name: string, { groupChannels, isParameter, load }: ScanQuads, { lanes, tokens, channels, dInner, threads, sliceTokens }: {
  lanes: number; tokens: number; channels: number; dInner: number; threads: number; sliceTokens: number
}): TileQuads {
  if (isParameter) return { declaration: '', stage: '', ready: `let own${name} = ${load('', 'd', 'quad')};`, at: () => `own${name}` }
  if (groupChannels !== dInner && groupChannels % channels !== 0) {
    return { declaration: '', stage: '', ready: '', at: (j) => load(`min(first + slice * ${sliceTokens}u + ${j}, lastRow)`, 'd', 'quad') }
  }
  return {
    declaration: `var<workgroup> tile${name}: array<vec4f, ${tokens * lanes}>;`,
    stage: `for (var i = thread; i < ${tokens * lanes}u; i += ${threads}u) {
        let row = first + i / ${lanes}u;
        var values = vec4f();
        if (row <= lastRow) { values = ${load('row', 'firstChannel', `g * ${lanes}u + i % ${lanes}u`)}; }
        tile${name}[i] = values;
      }`,
    ready: '',
    at: (j) => `tile${name}[(slice * ${sliceTokens}u + ${j}) * ${lanes}u + lane]`
  }
}
