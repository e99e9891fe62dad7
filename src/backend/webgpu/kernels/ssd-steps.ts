/**
 * The recurrence of Mamba-2's state space, parallel over heads, channels and states: h = exp(dt · A) · h + dt · x ⊗ B, y = h · C + D · x.
 * A workgroup has a few channels of a head; neighbouring threads share a channel's states, which stay in registers through the whole segment.
 *
 *   paper: HBM   here: GPU memory        rows of x, dt, B, C and out; the state, read once and written once
 *   paper: SRAM  here: workgroup memory  dt, decay, B and C of a few tokens
 *                registers               the state, y of those tokens
 */

import type { DeviceFacts, Kernel, KernelContext } from '../kernel.ts'
import { hasLanes, laneSums } from './lane-sums.ts'
import { activationQuads } from './quads.ts'
import { repeat } from './scan-math.ts'
import type { SsdPlan } from './ssd-plan.ts'

export interface SsdShape {
  /** Threads of a channel. */
  readonly lanes: number
  /** Times four states of each of them. */
  readonly nQuads: number
  readonly channels: number
  readonly tokens: number
  /** Whether B and C go through workgroup memory. */
  readonly isStaged: boolean
}

/** States of a thread where a channel has enough. */
const LANE_STATES = 16
const USUAL = { mostTokens: 8, mostThreads: 256 }

/** As many tokens at a time as workgroup memory has room for, `mostTokens` at most. */
export function ssdShapeFor({ dState, headDim }: SsdPlan, { subgroup, maxWorkgroupStorageBytes }: DeviceFacts, { mostTokens, mostThreads }: { mostTokens: number; mostThreads: number }): SsdShape {
  let shape: SsdShape | undefined
  for (let tokens = mostTokens; tokens >= 1; tokens /= 2) {
    const lanes = Math.min(8, tokens, 2 ** Math.ceil(Math.log2(Math.max(1, dState / LANE_STATES))))
    const threads = hasLanes(subgroup, lanes) ? mostThreads : 128
    const channels = Math.min(headDim, threads / lanes)
    const nQuads = Math.ceil(dState / (4 * lanes))
    const stepBytes = tokens * (8 + (hasLanes(subgroup, lanes) || lanes === 1 ? 0 : 4 * lanes * channels))
    const isStaged = stepBytes + 32 * tokens * lanes * nQuads <= maxWorkgroupStorageBytes
    shape = { lanes, nQuads, channels, tokens, isStaged }
    if (isStaged) break
  }
  return shape as SsdShape
}

/** Takes segments of up to `mostRows`, unless all are shorter than `leastRows`. The shape is given for measurements. */
export function ssdSteps(plan: SsdPlan, { device }: KernelContext, { mostRows, leastRows = 0, shape = ssdShapeFor(plan, device, USUAL) }: {
  mostRows: number; leastRows?: number; shape?: SsdShape
}): Kernel {
  const { nHeads, headDim, dState, x, out, startOfB, startOfC, groupOf } = plan
  const { lanes, nQuads, channels, tokens, isStaged } = shape
  const threads = channels * lanes
  const rowQuads = lanes * nQuads
  const sums = laneSums({ count: tokens, lanes, threads, subgroup: device.subgroup })
  const rest = tokens / lanes
  const binder = plan.binder()
  const { timeStep, decayRate } = binder.steps()
  const withSkip = binder.skip()
  const state = binder.quads('state', plan.state, { width: dState, nQuads: rowQuads })
  binder.declare(activationQuads('quadOfToken', { width: dState, nQuads: rowQuads }))
  binder.declare(sums.declarations)
  binder.declare(`var<workgroup> steps: array<vec2f, ${tokens}>;`)
  if (isStaged) for (const name of ['B', 'C']) binder.declare(`var<workgroup> tile${name}: array<vec4f, ${tokens * rowQuads}>;`)
  const starts = { B: startOfB, C: startOfC }
  const load = (name: 'B' | 'C', row: string, quad: string): string => `quadOfToken(${starts[name](row, 'group')}, ${quad})`
  const at = (name: 'B' | 'C', t: string, v: string): string =>
    isStaged ? `tile${name}[${t} * ${rowQuads}u + ${v} * ${lanes}u + lane]` : load(name, `first + ${t}`, `${v} * ${lanes}u + lane`)
  const isMine = mostRows === Infinity ? 'segment.nRows > 0u' : `segment.nRows > 0u && segment.nRows <= ${mostRows}u`
  const code = `${binder.declarations()}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let segment = segmentAt(workgroup.z);
  if (!(${isMine})) { return; }
  let head = workgroup.y;
  let group = ${groupOf('head')};
  let lane = thread % ${lanes}u;
  let p = workgroup.x * ${channels}u + thread / ${lanes}u;
  let isInside = p < ${headDim}u;
  let column = head * ${headDim}u + min(p, ${headDim - 1}u);
  let oldState = segment.stateFrom * ${nHeads * headDim}u + column;
  let newState = segment.stateTo * ${nHeads * headDim}u + column;
  let lastRow = segment.firstRow + segment.nRows - 1u;
  let rate = ${decayRate('head')};
  var h = array<vec4f, ${nQuads}>();
  ${repeat(nQuads, (v) => `h[${v}] = ${state.load('oldState', `${v} * ${lanes}u + lane`)};`)}
  for (var first = segment.firstRow; first <= lastRow; first += ${tokens}u) {
    for (var i = thread; i < min(${tokens}u, lastRow - first + 1u); i += ${threads}u) {
      let dt = ${timeStep('first + i', 'head')};
      steps[i] = vec2f(dt, exp2(dt * rate));
    }
    ${isStaged ? `for (var i = thread; i < ${tokens * rowQuads}u; i += ${threads}u) {
      let row = first + i / ${rowQuads}u;
      if (row <= lastRow) {
        tileB[i] = ${load('B', 'row', `i % ${rowQuads}u`)};
        tileC[i] = ${load('C', 'row', `i % ${rowQuads}u`)};
      }
    }` : ''}
    var inputs = array<f32, ${tokens}>();
    ${repeat(tokens, (t) => `inputs[${t}] = ${x(`min(first + ${t}, lastRow)`, 'column')};`, 't')}
    workgroupBarrier();
    var y = array<f32, ${tokens}>();
    ${repeat(tokens, (t) => `if (first + ${t} <= lastRow) {
      let input = steps[${t}].x * inputs[${t}];
      let decay = steps[${t}].y;
      ${repeat(nQuads, (v) => `h[${v}] = decay * h[${v}] + input * ${at('B', t, v)};
      y[${t}] += dot(${at('C', t, v)}, h[${v}]);`)}
    }`, 't')}
    ${sums.of('y')}
    let firstOut = first + lane * ${rest}u;
    ${Array.from({ length: rest }, (_, i) => `if (isInside && firstOut + ${i}u <= lastRow) {
      let row = firstOut + ${i}u;
      ${out('row', 'column')} = ${withSkip(`sum${i}`, x('row', 'column'), 'head')};
    }`).join('\n')}
    workgroupBarrier();
  }
  if (isInside) {
    ${repeat(nQuads, (v) => state.store('newState', `${v} * ${lanes}u + lane`, `h[${v}]`))}
  }
}`
  return {
    label: 'ssdScan steps',
    enables: sums.enables,
    code,
    bindings: binder.bindings,
    workgroups: ({ nSegments, maxSegmentRows }) => (maxSegmentRows >= leastRows && (maxSegmentRows <= mostRows || nSegments > 1) ? [Math.ceil(headDim / channels), nHeads, nSegments] : null)
  }
}
