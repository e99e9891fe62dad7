/**
 * Mamba-2's state space as matrix products over chunks of 64 tokens (Dao & Gu, section 6): what ssd-steps.ts computes, but for rounding. With
 * l_t = Σ_{s ≤ t} dt_s · A over the tokens of a chunk, four kernels:
 *
 *   scores   C · Bᵀ                                                      (token t, token j), of each chunk and group of heads
 *   states   (exp(l_end − l_j) · dt_j · x_j)ᵀ · B                        (headDim, dState), of each chunk and head: what its tokens add to the state
 *   carry    h = exp(l_end) · h + that, chunk after chunk                in each one's place is left what it starts from; the state is written
 *   outputs  exp(l_t) ∘ C · hᵀ + (scores ∘ exp(l_t − l_j) · dt_j) · x + D · x
 *
 *   scratch: │ scores (chunks, nGroups, 64, 64) │ states (chunks, nHeads, headDim, dState) │ exp(l_end) (chunks, nHeads) │
 *
 * The difference of two large sums is what counts: each l is also kept in units of 2^-24 as an integer, whose differences are exact as long
 * as they are below 128; beyond them a decay is zero.
 */

import type { Binding, BatchCounts, Kernel, KernelContext } from '../kernel.ts'
import { SSD_LEAST_ROWS, type SsdBinder, type SsdPlan } from './ssd-plan.ts'
import { product, stored, TILE, TILE_DECLARATIONS, TILE_START, TILE_THREADS } from './tile-product.ts'

/** Tokens of a chunk: a tile. */
const CHUNK = TILE

/** Chunks that a batch may have. */
function mostChunks(nTokens: number, nSegments: number): number {
  return Math.floor(nTokens / CHUNK) + nSegments
}

interface Layout {
  readonly states: number
  readonly decays: number
  readonly bytes: number
}

function layoutOf({ nHeads, headDim, dState, nGroups }: SsdPlan, { capacity: { maxRows, nSlots } }: KernelContext): Layout {
  const nChunks = mostChunks(maxRows, nSlots)
  const states = nChunks * nGroups * CHUNK * CHUNK
  const decays = states + nChunks * nHeads * headDim * dState
  return { states, decays, bytes: 4 * (decays + nChunks * nHeads) }
}

const CHUNKS = `
struct Chunk { firstRow: u32, nRows: u32 }
fn chunksOf(segment: Segment) -> u32 { return select(0u, (segment.nRows + ${CHUNK - 1}u) / ${CHUNK}u, segment.nRows >= ${SSD_LEAST_ROWS}u); }
/** No rows beyond the last one. */
fn chunkAt(index: u32) -> Chunk {
  var rest = index;
  for (var i = 0u; i < nSegments(); i++) {
    let segment = segmentAt(i);
    let count = chunksOf(segment);
    if (rest < count) { return Chunk(segment.firstRow + rest * ${CHUNK}u, min(${CHUNK}u, segment.nRows - rest * ${CHUNK}u)); }
    rest -= count;
  }
  return Chunk(0u, 0u);
}
fn inside(isInside: bool, element: u32) -> f32 {
  if (isInside) { return activations[element]; }
  return 0.0;
}
`

/** Of a head: steps, and the sums of their exponents in both forms. */
const DECAYS = `
var<workgroup> steps: array<f32, ${CHUNK}>;
var<workgroup> exponents: array<f32, ${CHUNK}>;
var<workgroup> sums: array<f32, ${CHUNK}>;
var<workgroup> exactSums: array<i32, ${CHUNK}>;
fn decayBy(sum: f32, exact: i32) -> f32 {
  if (abs(sum) > 126.0) { return exp2(sum); }
  return exp2(f32(exact) * ${2 ** -24});
}
fn decayFromStart(t: u32) -> f32 { return decayBy(sums[t], exactSums[t]); }
fn decayBetween(j: u32, t: u32) -> f32 { return decayBy(sums[t] - sums[j], exactSums[t] - exactSums[j]); }
`

function prepare({ timeStep, decayRate }: ReturnType<SsdBinder['steps']>): string {
  return `let rate = ${decayRate('head')};
  if (thread < ${CHUNK}u) {
    var dt = 0.0;
    if (thread < chunk.nRows) { dt = ${timeStep('chunk.firstRow + thread', 'head')}; }
    steps[thread] = dt;
    exponents[thread] = dt * rate;
  }
  workgroupBarrier();
  if (thread < ${CHUNK}u) {
    var sum = 0.0;
    var exact = 0i;
    for (var s = 0u; s <= thread; s++) {
      sum += exponents[s];
      exact += i32(round(clamp(exponents[s], -127.0, 127.0) * ${2 ** 24}));
    }
    sums[thread] = sum;
    exactSums[thread] = exact;
  }
  workgroupBarrier();`
}

function main(body: string): string {
  return `
@compute @workgroup_size(${TILE_THREADS})
fn main(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) thread: u32) {
${body}
}`
}

/** Null where the scratch is more than a binding may have. */
export function ssdChunks(plan: SsdPlan, context: KernelContext): readonly Kernel[] | null {
  const layout = layoutOf(plan, context)
  if (layout.bytes > context.device.maxBindingBytes) return null
  return [scores(plan, layout), states(plan, layout), carry(plan, layout), outputs(plan, layout)]
}

function perChunk(x: number, y: number): Kernel['workgroups'] {
  return ({ nTokens, nSegments, maxSegmentRows }: BatchCounts) => (maxSegmentRows >= SSD_LEAST_ROWS ? [x, y, mostChunks(nTokens, nSegments)] : null)
}

function scratch({ bytes }: Layout): Binding {
  return { kind: 'scratch', bytes }
}

function scores({ nGroups, dState, startOfB, startOfC, binder: bind }: SsdPlan, layout: Layout): Kernel {
  const binder = bind()
  const at = binder.values('scratch', scratch(layout))
  for (const code of [TILE_DECLARATIONS, CHUNKS]) binder.declare(code)
  const operand = (start: SsdPlan['startOfB']) => ({
    isInnerFirst: true,
    at: (t: string, n: string) => `inside(${t} < chunk.nRows && ${n} < ${dState}u, ${start(`chunk.firstRow + ${t}`, 'group')} + ${n})`
  })
  const code = main(`  let chunk = chunkAt(workgroup.z);
  if (chunk.nRows == 0u) { return; }
  let group = workgroup.y;
  ${TILE_START}
  ${product({ depth: `${dState}u`, left: operand(startOfC), right: operand(startOfB) })}
  let start = (workgroup.z * ${nGroups}u + group) * ${CHUNK * CHUNK}u;
  ${stored((t, j, value) => `${at(`start + ${t} * ${CHUNK}u + ${j}`)} = ${value};`)}`)
  return { label: 'ssdScan scores', code: binder.declarations() + code, bindings: binder.bindings, workgroups: perChunk(1, nGroups) }
}

function states({ nHeads, headDim, dState, startOfB, groupOf, x, binder: bind }: SsdPlan, layout: Layout): Kernel {
  const binder = bind()
  const at = binder.values('scratch', scratch(layout))
  const steps = binder.steps()
  for (const code of [TILE_DECLARATIONS, CHUNKS, DECAYS, `var<workgroup> weights: array<f32, ${CHUNK}>;`, WEIGHTED_INPUT]) binder.declare(code)
  const columns = Math.ceil(dState / TILE)
  const code = main(`  let chunk = chunkAt(workgroup.z);
  if (chunk.nRows == 0u) { return; }
  let head = workgroup.y;
  let group = ${groupOf('head')};
  let firstP = workgroup.x / ${columns}u * ${TILE}u;
  let firstN = workgroup.x % ${columns}u * ${TILE}u;
  ${prepare(steps)}
  if (thread < ${CHUNK}u) { weights[thread] = decayBetween(thread, ${CHUNK - 1}u) * steps[thread]; }
  ${TILE_START}
  ${product({
    depth: 'chunk.nRows',
    left: { isInnerFirst: false, at: (p, j) => `weightedInput(${j} < chunk.nRows && firstP + ${p} < ${headDim}u, ${j}, ${elementIndex(x(`chunk.firstRow + ${j}`, `head * ${headDim}u + firstP + ${p}`))})` },
    right: { isInnerFirst: false, at: (n, j) => `inside(${j} < chunk.nRows && firstN + ${n} < ${dState}u, ${startOfB(`chunk.firstRow + ${j}`, 'group')} + firstN + ${n})` }
  })}
  let start = ${layout.states}u + (workgroup.z * ${nHeads}u + head) * ${headDim * dState}u;
  ${stored((p, n, value) => `if (firstP + ${p} < ${headDim}u && firstN + ${n} < ${dState}u) { ${at(`start + (firstP + ${p}) * ${dState}u + firstN + ${n}`)} = ${value}; }`)}
  if (workgroup.x == 0u && thread == 0u) { ${at(`${layout.decays}u + workgroup.z * ${nHeads}u + head`)} = decayFromStart(${CHUNK - 1}u); }`)
  return { label: 'ssdScan states', code: binder.declarations() + code, bindings: binder.bindings, workgroups: perChunk(columns * Math.ceil(headDim / TILE), nHeads) }
}

const WEIGHTED_INPUT = `
fn weightedInput(isInside: bool, j: u32, element: u32) -> f32 {
  if (isInside) { return weights[j] * activations[element]; }
  return 0.0;
}
`

/** The index in `activations[index]`. */
function elementIndex(access: string): string {
  return access.slice('activations['.length, -1)
}

function carry({ nHeads, headDim, dState, state, binder: bind }: SsdPlan, layout: Layout): Kernel {
  const binder = bind()
  const at = binder.values('scratch', scratch(layout))
  const stateAt = binder.values('state', state)
  binder.declare(CHUNKS)
  const size = headDim * dState
  const code = main(`  let segment = segmentAt(workgroup.z);
  let element = workgroup.x * ${TILE_THREADS}u + thread;
  let head = workgroup.y;
  let nChunks = chunksOf(segment);
  if (element >= ${size}u || nChunks == 0u) { return; }
  var first = 0u;
  for (var i = 0u; i < workgroup.z; i++) { first += chunksOf(segmentAt(i)); }
  var h = ${stateAt(`(segment.stateFrom * ${nHeads}u + head) * ${size}u + element`)};
  for (var chunk = first; chunk < first + nChunks; chunk++) {
    let place = ${layout.states}u + (chunk * ${nHeads}u + head) * ${size}u + element;
    let added = ${at('place')};
    ${at('place')} = h;
    h = fma(${at(`${layout.decays}u + chunk * ${nHeads}u + head`)}, h, added);
  }
  ${stateAt(`(segment.stateTo * ${nHeads}u + head) * ${size}u + element`)} = h;`)
  return {
    label: 'ssdScan carry', code: binder.declarations() + code, bindings: binder.bindings,
    workgroups: ({ nSegments, maxSegmentRows }) => (maxSegmentRows >= SSD_LEAST_ROWS ? [Math.ceil(size / TILE_THREADS), nHeads, nSegments] : null)
  }
}

function outputs({ nHeads, headDim, dState, nGroups, startOfC, groupOf, x, out, binder: bind }: SsdPlan, layout: Layout): Kernel {
  const binder = bind()
  const at = binder.values('scratch', scratch(layout))
  const steps = binder.steps()
  const withSkip = binder.skip()
  const helpers = `
fn startState(isInside: bool, element: u32) -> f32 {
  if (isInside) { return ${at('element')}; }
  return 0.0;
}
fn mixed(start: u32, t: u32, j: u32) -> f32 {
  if (j > t) { return 0.0; }
  return ${at(`start + t * ${CHUNK}u + j`)} * decayBetween(j, t) * steps[j];
}
`
  for (const code of [TILE_DECLARATIONS, CHUNKS, DECAYS, helpers]) binder.declare(code)
  const column = (p: string): string => `head * ${headDim}u + firstP + ${p}`
  const code = main(`  let chunk = chunkAt(workgroup.z);
  if (chunk.nRows == 0u) { return; }
  let head = workgroup.y;
  let group = ${groupOf('head')};
  let firstP = workgroup.x * ${TILE}u;
  let startOfStates = ${layout.states}u + (workgroup.z * ${nHeads}u + head) * ${headDim * dState}u;
  let startOfScores = (workgroup.z * ${nGroups}u + group) * ${CHUNK * CHUNK}u;
  ${prepare(steps)}
  ${TILE_START}
  ${product({
    depth: `${dState}u`,
    left: { isInnerFirst: true, at: (t, n) => `inside(${t} < chunk.nRows && ${n} < ${dState}u, ${startOfC(`chunk.firstRow + ${t}`, 'group')} + ${n})` },
    right: { isInnerFirst: true, at: (p, n) => `startState(firstP + ${p} < ${headDim}u && ${n} < ${dState}u, startOfStates + (firstP + ${p}) * ${dState}u + ${n})` }
  })}
  ${[0, 1, 2, 3].map((r) => `sum${r} *= decayFromStart(4u * tileRow + ${r}u);`).join('\n  ')}
  ${product({
    depth: 'chunk.nRows',
    left: { isInnerFirst: true, at: (t, j) => `mixed(startOfScores, ${t}, ${j})` },
    right: { isInnerFirst: false, at: (p, j) => `inside(${j} < chunk.nRows && firstP + ${p} < ${headDim}u, ${elementIndex(x(`chunk.firstRow + ${j}`, column(p)))})` }
  })}
  ${stored((t, p, value) => `if (${t} < chunk.nRows && firstP + ${p} < ${headDim}u) {
    let row = chunk.firstRow + ${t};
    let column = ${column(p)};
    ${out('row', 'column')} = ${withSkip(value, x('row', 'column'), 'head')};
  }`)}`)
  return { label: 'ssdScan outputs', code: binder.declarations() + code, bindings: binder.bindings, workgroups: perChunk(Math.ceil(headDim / TILE), nHeads) }
}
