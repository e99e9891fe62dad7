/**
 * The selective scan of a token or a few: parallel over channels and states, sequential over time (algorithm 2 of the paper, fused).
 *
 *   paper: HBM   here: GPU memory   rows of x, dt, z, B, C and out; the state, read once and written once
 *   paper: SRAM  here: registers    the state: four elements of each group in a thread; `lanes` neighbouring threads are a channel
 */

import type { Kernel, KernelContext } from '../kernel.ts'
import { laneSums } from './lane-sums.ts'
import { unroll } from './product.ts'
import type { ScanPlan } from './scan-plan.ts'

/** Segments of more rows are taken by scan-tiles.ts, each by itself: what else is in a batch decides nothing. */
export const STEP_ROWS = 4

const THREADS = 64

export function scanSteps(plan: ScanPlan, { device }: KernelContext): Kernel {
  const { dInner, lanes, nGroups, bindings, declarations, x, dt, z, out, constants, timeStep, output, decayRates, B, C, state } = plan
  const channels = THREADS / lanes
  const sums = laneSums({ count: 1, lanes, threads: THREADS, subgroup: device.subgroup })
  const quad = (g: number): string => `lane + ${g * lanes}u`
  const code = `${declarations}
${sums.declarations}
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let segment = segmentAt(group.y);
  if (segment.nRows == 0u || segment.nRows > ${STEP_ROWS}u) { return; }
  let lane = thread % ${lanes}u;
  let channel = group.x * ${channels}u + thread / ${lanes}u;
  let isInside = channel < ${dInner}u;
  let d = min(channel, ${dInner - 1}u);
  let oldState = segment.stateFrom * ${dInner}u + d;
  let newState = segment.stateTo * ${dInner}u + d;
  ${constants('d')}
  ${unroll(nGroups, (g) => `let A${g} = ${decayRates('d', quad(g))};
  var h${g} = ${state.load('oldState', quad(g))};`)}
  for (var row = segment.firstRow; row < segment.firstRow + segment.nRows; row++) {
    let x = ${x('row', 'd')};
    let dt = ${timeStep(dt('row', 'd'))};
    var y = array<f32, 1>();
    ${unroll(nGroups, (g) => `h${g} = exp2(dt * A${g}) * h${g} + (dt * x) * ${B.load('row', 'd', quad(g))};
    y[0] += dot(${C.load('row', 'd', quad(g))}, h${g});`)}
    ${sums.of('y')}
    if (isInside && lane == 0u) { ${out('row', 'd')} = ${output('sum0', 'x', z ? z('row', 'd') : '')}; }
  }
  if (isInside) {
    ${unroll(nGroups, (g) => state.store('newState', quad(g), `h${g}`))}
  }
}`
  return {
    label: 'selectiveScan steps',
    enables: sums.enables,
    code,
    bindings,
    workgroups({ nSegments, maxSegmentRows }) {
      const mayHaveSteps = maxSegmentRows <= STEP_ROWS || nSegments > 1
      return mayHaveSteps ? [Math.ceil(dInner / channels), nSegments, 1] : null
    }
  }
}
