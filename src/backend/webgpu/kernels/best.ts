/**
 * The likeliest token of each row of logits, ties to the lowest id; NaN and ∞, of which no token can be drawn, come before all others:
 *
 *   1  a workgroup for each row and block of columns: its best
 *   2  a workgroup for each row: the best of its blocks
 *
 * They leave the rows' (id, bits of the logit) at the start of the scratch, for the host to read before any other op runs; the blocks' are behind.
 */

import type { Best } from '../../backend.ts'
import type { View } from '../../../program/ops.ts'
import type { DeviceFacts, Kernel, KernelContext } from '../kernel.ts'
import { elementOf, rowCount, rowsOf } from './elements.ts'

/** A software adapter pays for each thread. */
const LANES = { hardware: 256, software: 4 } as const
/** Columns of a workgroup of the first kernel: few enough that a row of 50280 logits has 25 of them under way. */
const BLOCK = 2048

/** Of a row: its id, and the logit. */
export const BEST_WORDS = 2
/** Where they are. */
export const BEST = { kind: 'scratch', bytes: 0 } as const

/** What the host makes of the rows' words. */
export function bestOf(words: Float32Array): Best[] {
  const ids = new Uint32Array(words.buffer, words.byteOffset)
  return Array.from({ length: words.length / BEST_WORDS }, (_, row) => ({ id: ids[BEST_WORDS * row], logit: words[BEST_WORDS * row + 1] }))
}

export function bestKernels(logits: View, context: KernelContext): readonly Kernel[] {
  const { device, capacity } = context
  const lanes = LANES[device.isSoftware ? 'software' : 'hardware']
  const nBlocks = Math.ceil(logits.width / BLOCK)
  const logit = elementOf(context, logits)
  const at = (block: string): string => `best[${capacity.maxLogitRows}u + row * ${nBlocks}u + ${block}]`
  const kernel = (label: string, body: string, nGroups: number): Kernel => ({
    label,
    bindings: [{ ...BEST, bytes: 8 * capacity.maxLogitRows * (1 + nBlocks) }],
    code: `
@group(0) @binding(2) var<storage, read_write> best: array<vec2<u32>>;
${ORDER}
${bestOfWorkgroup(lanes)}
@compute @workgroup_size(${lanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.z * groups.y + group.y;
  if (row >= ${rowCount(logits)}) { return; }
  var own = vec2<u32>(0u, 0xffffffffu);
  ${body}
}
`,
    workgroups: (counts) => gridOf(nGroups, rowsOf(logits, counts), device)
  })
  return [
    kernel('best of blocks', `
  let end = min((group.x + 1u) * ${BLOCK}u, ${logits.width}u);
  for (var i = group.x * ${BLOCK}u + lane; i < end; i += ${lanes}u) { own = better(own, vec2<u32>(orderOf(${logit('row', 'i')}), i)); }
  let found = bestOfWorkgroup(own, lane);
  if (lane == 0u) { ${at('group.x')} = found; }`, nBlocks),
    kernel('best of rows', `
  for (var i = lane; i < ${nBlocks}u; i += ${lanes}u) { own = better(own, ${at('i')}); }
  let found = bestOfWorkgroup(own, lane);
  if (lane == 0u) { best[row] = vec2<u32>(found.y, bitcast<u32>(${logit('row', 'found.y')})); }`, 1)
  ]
}

/** By their bits, since comparisons with NaN and ∞ may be taken for granted: greater for a greater logit, the same for both zeros, greatest for NaN and ∞. */
const ORDER = `
fn orderOf(logit: f32) -> u32 {
  let bits = bitcast<u32>(logit);
  let size = bits & 0x7fffffffu;
  if (size > 0x7f800000u || bits == 0x7f800000u) { return 0xffffffffu; }
  if (size == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}
/** Of two (order, id). */
fn better(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
  return select(a, b, b.x > a.x || (b.x == a.x && b.y < a.y));
}
`

function bestOfWorkgroup(nLanes: number): string {
  return `
var<workgroup> partials: array<vec2<u32>, ${nLanes}>;
fn bestOfWorkgroup(own: vec2<u32>, lane: u32) -> vec2<u32> {
  partials[lane] = own;
  workgroupBarrier();
  for (var half = ${nLanes / 2}u; half > 0u; half /= 2u) {
    if (lane < half) { partials[lane] = better(partials[lane], partials[lane + half]); }
    workgroupBarrier();
  }
  return partials[0];
}
`
}

function gridOf(nGroups: number, nRows: number, { maxWorkgroups }: DeviceFacts): readonly [number, number, number] | null {
  return nRows === 0 ? null : [nGroups, Math.min(nRows, maxWorkgroups), Math.ceil(nRows / maxWorkgroups)]
}
