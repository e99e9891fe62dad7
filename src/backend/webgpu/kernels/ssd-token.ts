/**
 * The recurrence of Mamba-2's state space for segments of a single row, of which nothing need be shared: a few neighbouring threads have a channel's states, and
 * all they need of the row they read themselves.
 *
 *   paper: HBM   here: GPU memory  x, dt, B, C and out of the row; the state, read once and written once
 *   paper: SRAM  here: registers   the state
 */

import type { Kernel, KernelContext } from '../kernel.ts'
import { hasLanes, laneSums } from './lane-sums.ts'
import { unroll } from './product.ts'
import { activationQuads } from './quads.ts'
import type { SsdPlan } from './ssd-plan.ts'

const THREADS = 128
const MOST_LANES = 8
/** States of a thread where a channel has enough. */
const LANE_STATES = 16

export function ssdToken(plan: SsdPlan, { device }: KernelContext): Kernel {
  const { nHeads, headDim, dState, x, out, startOfB, startOfC, groupOf } = plan
  let lanes = 1
  while (lanes < MOST_LANES && lanes * LANE_STATES < dState && hasLanes(device.subgroup, 2 * lanes)) lanes *= 2
  const nQuads = Math.ceil(dState / (4 * lanes))
  const channels = THREADS / lanes
  const sums = laneSums({ count: 1, lanes, threads: THREADS, subgroup: device.subgroup })
  const row = { width: dState, nQuads: lanes * nQuads }
  const binder = plan.binder()
  const { timeStep, decayRate } = binder.steps()
  const withSkip = binder.skip()
  const state = binder.quads('state', plan.state, row)
  binder.declare(activationQuads('quadOfToken', row))
  binder.declare(sums.declarations)
  const quad = (v: number): string => `lane + ${v * lanes}u`
  const code = `${binder.declarations()}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
  let segment = segmentAt(workgroup.z);
  if (segment.nRows == 0u) { return; }
  let row = segment.firstRow;
  let head = workgroup.y;
  let group = ${groupOf('head')};
  let lane = thread % ${lanes}u;
  let p = workgroup.x * ${channels}u + thread / ${lanes}u;
  let isInside = p < ${headDim}u;
  let column = head * ${headDim}u + min(p, ${headDim - 1}u);
  let oldState = segment.stateFrom * ${nHeads * headDim}u + column;
  let newState = segment.stateTo * ${nHeads * headDim}u + column;
  ${unroll(nQuads, (v) => `var h${v} = ${state.load('oldState', quad(v))};
  let B${v} = quadOfToken(${startOfB('row', 'group')}, ${quad(v)});
  let C${v} = quadOfToken(${startOfC('row', 'group')}, ${quad(v)});`)}
  let x = ${x('row', 'column')};
  let dt = ${timeStep('row', 'head')};
  let decay = exp2(dt * ${decayRate('head')});
  var y = array<f32, 1>();
  ${unroll(nQuads, (v) => `h${v} = decay * h${v} + (dt * x) * B${v};
  y[0] += dot(C${v}, h${v});`)}
  ${sums.of('y')}
  if (isInside) {
    if (lane == 0u) { ${out('row', 'column')} = ${withSkip('sum0', 'x', 'head')}; }
    ${unroll(nQuads, (v) => state.store('newState', quad(v), `h${v}`))}
  }
}`
  return {
    label: 'ssdScan token',
    enables: sums.enables,
    code,
    bindings: binder.bindings,
    workgroups: ({ nSegments, maxSegmentRows }) => (maxSegmentRows === 1 ? [Math.ceil(headDim / channels), nHeads, nSegments] : null)
  }
}
