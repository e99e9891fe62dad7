/**
 * The selective scan of a token or a few: parallel over channels and states, sequential over time (algorithm 2 of the paper, fused).
 *
 *   paper: HBM   here: GPU memory   rows of x, dt, z, B, C and out; the state, read once and written once
 *   paper: SRAM  here: registers    the state: four elements of each group in a thread; `lanes` neighbouring threads are a channel
 */

import type { LinearOp, RmsNormOp, ScanInput, SelectiveScanOp } from '../../../program/ops.ts'
import type { Kernel, KernelContext } from '../kernel.ts'
import { elementOf, float } from './elements.ts'
import { laneSums } from './lane-sums.ts'
import { unroll } from './product.ts'
import { planScan, type ScanPlan } from './scan-plan.ts'

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

/** Of dt's matrix, in registers of a lane. */
const MOST_UNITS = 16

/** What makes the scan's dt, B and C of what is left of a token: norms in place, without weights, and the product of dt. */
export interface ScanInputs {
  readonly norms: readonly RmsNormOp[]
  readonly product: LinearOp
}

/**
 * The scan of segments of a single row, with what makes its inputs: a channel's lanes share its row of dt's matrix, too. The inputs of dt come to workgroup memory,
 * and each channel has the sums of squares for itself.
 */
export function fusedScan(op: SelectiveScanOp, context: KernelContext, { norms, product }: ScanInputs): Kernel {
  const { dInner, lanes, nGroups, bindings, declarations, x, z, out, constants, timeStep, output, decayRates, B, C, state, dtReader: reader } = planScan(op, context, product)
  if (reader === null) throw new TypeError('a scan that makes dt: expected a reader of its matrix')
  const channels = THREADS / lanes
  const sums = laneSums({ count: 1, lanes, threads: THREADS, subgroup: context.device.subgroup })
  const quad = (g: number): string => `lane + ${g * lanes}u`
  const rank = product.x.width
  const quads = reader.unitElements / 4
  const nRankQuads = reader.nUnits * quads
  const rankAt = elementOf(context, product.x)
  const units = (code: (k: number) => string): string => unroll(Math.ceil(reader.nUnits / lanes), code)
  const unitAt = (k: number): string => `lane + ${k * lanes}u`
  const isShort = reader.nUnits / lanes <= MOST_UNITS
  const ask = (k: number): string => `var words${k} = vec4<u32>();
  ${reader.hasFactors ? `var factors${k} = vec2<f32>();` : ''}
  ${isThere(k)}{
    words${k} = weightUnit(d, ${unitAt(k)});
    ${reader.hasFactors ? `factors${k} = weightFactors(d, ${unitAt(k)});` : ''}
  }`
  const isThere = (k: number): string => ((k + 1) * lanes <= reader.nUnits ? '' : `if (${unitAt(k)} < ${reader.nUnits}u) `)
  const normOf = (input: ScanInput): RmsNormOp | undefined => norms.find(({ out: view }) => 'buffer' in input && view.buffer === input.buffer && view.offset === input.offset)
  /** Sums over the lanes, each of which has its own in the variable `part`. */
  const sumLanes = (into: string): string => `var ${into} = 0.0;
  {
    let parts = array<f32, 1>(part);
    ${sums.of('parts')}
    ${into} = sum0;
  }`
  const scaleCode = (name: string, norm: RmsNormOp | undefined, squares: string): string => (norm ? `{
    var part = ${squares};
    ${sumLanes('squares')}
    ${name} = 1.0 / sqrt(squares / ${float(norm.groupWidth)} + ${float(norm.eps)});
  }` : '')
  const [dtNorm, normB, normC] = [product.x, op.B, op.C].map(normOf)
  const code = `${declarations}
${sums.declarations}
var<workgroup> ranks: array<vec4<f32>, ${nRankQuads}>;
@compute @workgroup_size(${THREADS})
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let lane = thread % ${lanes}u;
  let channel = group.x * ${channels}u + thread / ${lanes}u;
  let isInside = channel < ${dInner}u;
  let d = min(channel, ${dInner - 1}u);
  // What depends on nothing is asked for first.
  ${isShort ? units(ask) : ''}
  ${constants('d')}
  ${unroll(nGroups, (g) => `let A${g} = ${decayRates('d', quad(g))};`)}
  let segment = segmentAt(group.y);
  if (segment.nRows == 0u) { return; }
  let row = segment.firstRow;
  let oldState = segment.stateFrom * ${dInner}u + d;
  let newState = segment.stateTo * ${dInner}u + d;
  for (var i = thread; i < ${nRankQuads}u; i += ${THREADS}u) {
    ranks[i] = vec4<f32>(${[0, 1, 2, 3].map((i) => {
      const value = rankAt('row', rank % 4 === 0 && nRankQuads * 4 === rank ? `4u * i + ${i}u` : `min(4u * i + ${i}u, ${rank - 1}u)`)
      return nRankQuads * 4 === rank ? value : `select(0.0, ${value}, 4u * i + ${i}u < ${rank}u)`
    }).join(', ')});
  }
  ${unroll(nGroups, (g) => `var h${g} = ${state.load('oldState', quad(g))};
  let B${g} = ${B.load('row', 'd', quad(g))};
  let C${g} = ${C.load('row', 'd', quad(g))};`)}
  let x = ${x('row', 'd')};
  ${z ? `let z = ${z('row', 'd')};` : ''}
  var scaleDt = 1.0;
  var scaleB = 1.0;
  var scaleC = 1.0;
  workgroupBarrier();
  var part = 0.0;
  var square = 0.0;
  ${units((k) => `${isShort ? '' : ask(k)}
  ${isThere(k)}{
    var sum = 0.0;
    var plain = 0.0;
    ${unroll(quads, (j) => `{
      let inputs = ranks[${quads}u * (${unitAt(k)}) + ${j}u];
      sum += dot(${reader.quad(`words${k}`, j)}, inputs);
      ${dtNorm ? 'square += dot(inputs, inputs);' : ''}
      ${reader.hasMinimum ? 'plain += dot(inputs, vec4<f32>(1.0));' : ''}
    }`)}
    part += ${reader.hasFactors ? `fma(factors${k}.x, sum, factors${k}.y * plain)` : 'sum'};
  }`)}
  ${sumLanes('rawDt')}
  ${scaleCode('scaleDt', dtNorm, 'square')}
  ${scaleCode('scaleB', normB, Array.from({ length: nGroups }, (_, g) => `dot(B${g}, B${g})`).join(' + '))}
  ${scaleCode('scaleC', normC, Array.from({ length: nGroups }, (_, g) => `dot(C${g}, C${g})`).join(' + '))}
  let dt = ${timeStep('scaleDt * rawDt')};
  part = 0.0;
  ${unroll(nGroups, (g) => `h${g} = exp2(dt * A${g}) * h${g} + (dt * x * scaleB) * B${g};
  part += dot(C${g}, h${g});`)}
  ${sumLanes('y')}
  if (isInside && lane == 0u) { ${out('row', 'd')} = ${output('scaleC * y', 'x', 'z')}; }
  if (isInside) {
    ${unroll(nGroups, (g) => state.store('newState', quad(g), `h${g}`))}
  }
}`
  return {
    label: ['selectiveScan', ...norms.map(({ kind }) => kind), 'linear'].join(' + '),
    enables: sums.enables,
    code,
    bindings,
    workgroups: ({ nSegments }) => [Math.ceil(dInner / channels), nSegments, 1]
  }
}
