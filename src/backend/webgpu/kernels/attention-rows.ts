/**
 * Attention of segments of few rows. A workgroup takes one row, the query heads of one head of keys and values (8 at most), and a share of the positions:
 *
 *   1  a lane each position of a block: its scores with all of the heads, the key read once
 *   2  the heads' largest scores so far, by which what is there is scaled down, then the weights exp(score − largest) into workgroup memory
 *   3  a lane each vector of columns and part of the block: Σ weight · value in registers, neighbours reading neighbouring columns
 *
 * A context longer than SHARE is shared by several workgroups, so that one token keeps a large GPU busy; a second kernel joins their sums.
 * Where the shares end depends on the row's own position alone.
 */

import type { AttentionOp } from '../../../program/ops.ts'
import type { BatchCounts, Kernel, KernelContext } from '../kernel.ts'
import { float } from './elements.ts'
import { type KeyValueReader, keyValueReader, NO_SCORE } from './key-value-reader.ts'

/** Rows of a segment that still go by themselves. */
export const FEW_ROWS = 4
/** Positions of a block, one a lane. */
const BLOCK = 128
/** Positions that are not shared out. */
const SHARE = 256
const MOST_SHARES = 16
const MOST_HEADS = 8
const MOST_SCRATCH_BYTES = 2 ** 25
/** Lanes for the largest score of a head. */
const MAX_LANES = BLOCK / MOST_HEADS

interface Plan extends KeyValueReader {
  /** Query heads of a workgroup; of the last one for a head of keys perhaps fewer. */
  readonly nOwnHeads: number
  /** Workgroups for a head of keys and values. */
  readonly nHeadSets: number
  readonly nShares: number
  /** vec4 of one head's share: the sum of its columns, then (largest score, sum of weights). */
  readonly shareQuads: number
  readonly scratchBytes: number
}

export function attentionRows(op: AttentionOp, context: KernelContext): readonly Kernel[] {
  const plan = planOf(op, context)
  if (plan.nQuads > BLOCK) throw new RangeError(`attention: expected heads of at most ${4 * BLOCK} columns, got ${op.headDim}`)
  return plan.nShares === 1 ? [sumKernel(op, plan)] : [sumKernel(op, plan), joinKernel(plan)]
}

function planOf(op: AttentionOp, context: KernelContext): Plan {
  const reader = keyValueReader(op, context)
  const { nSlots, contextLength } = context.capacity
  const headBytes = 16 * reader.nQuads + 4 * (BLOCK + MAX_LANES)
  const fitting = Math.floor((context.device.maxWorkgroupStorageBytes - 20 * BLOCK) / headBytes)
  const nOwnHeads = Math.max(1, Math.min(MOST_HEADS, reader.nHeads / reader.nKvHeads, fitting))
  const shareQuads = reader.nQuads + 1
  const bytesOfShares = nSlots * FEW_ROWS * reader.nHeads * shareQuads * 16
  const nShares = contextLength <= SHARE ? 1 : Math.max(1, Math.min(MOST_SHARES, Math.ceil(contextLength / SHARE), Math.floor(MOST_SCRATCH_BYTES / bytesOfShares)))
  return { ...reader, nOwnHeads, nHeadSets: Math.ceil(reader.nHeads / reader.nKvHeads / nOwnHeads), nShares, shareQuads, scratchBytes: nShares * bytesOfShares }
}

/** Of a workgroup's y: a row of a segment of few, each with as many places as the longest of them may need. */
const ROW_CODE = `
  let perSegment = groups.y / nSegments();
  let segment = segmentAt(group.y / perSegment);
  let t = group.y % perSegment;
  if (t >= segment.nRows || segment.nRows > ${FEW_ROWS}u) { return; }
  let row = segment.firstRow + t;
  let nPositions = segment.position + t + 1u;`

function rowGroups({ nSegments, maxSegmentRows }: BatchCounts): number {
  return nSegments === 1 && maxSegmentRows > FEW_ROWS ? 0 : nSegments * Math.min(FEW_ROWS, maxSegmentRows)
}

/** How many positions a share has, the same in both kernels. */
function shareCode(nShares: number): string {
  if (nShares === 1) return 'fn shareOf(nPositions: u32) -> u32 { return nPositions; }'
  return `fn shareOf(nPositions: u32) -> u32 {
  let even = (nPositions + ${nShares - 1}u) / ${nShares}u;
  return max(${SHARE}u, (even + ${BLOCK - 1}u) / ${BLOCK}u * ${BLOCK}u);
}`
}

function sumKernel({ scale }: AttentionOp, plan: Plan): Kernel {
  const { nHeads, nKvHeads, nQuads, nOwnHeads, nHeadSets, nShares, shareQuads, bindings, scratchBytes } = plan
  const groupHeads = nHeads / nKvHeads
  const nParts = Math.floor(BLOCK / nQuads)
  const heads = Array.from({ length: nOwnHeads }, (_, h) => h)
  /** One line for each head. */
  const each = (line: (h: number) => string): string => heads.map(line).join('\n    ')
  const hasShares = nShares > 1
  return {
    label: 'attention, rows',
    bindings: hasShares ? [...bindings, { kind: 'scratch', bytes: scratchBytes }] : bindings,
    code: `${plan.cacheCode}${plan.queryCode}${plan.outCode}
${hasShares ? '@group(0) @binding(4) var<storage, read_write> shares: array<vec4<f32>>;' : ''}
var<workgroup> queries: array<vec4<f32>, ${nOwnHeads * nQuads}>;
/** Scores, then weights, by head. */
var<workgroup> weights: array<f32, ${nOwnHeads * BLOCK}>;
var<workgroup> maxima: array<f32, ${nOwnHeads * MAX_LANES}>;
var<workgroup> parts: array<vec4<f32>, ${BLOCK}>;
var<workgroup> partSums: array<f32, ${BLOCK}>;
${shareCode(nShares)}

fn largestOf(h: u32, before: f32) -> f32 {
  var largest = before;
  for (var i = h * ${MAX_LANES}u; i < (h + 1u) * ${MAX_LANES}u; i++) { largest = max(largest, maxima[i]); }
  return largest;
}

@compute @workgroup_size(${BLOCK})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  ${ROW_CODE}
  let share = shareOf(nPositions);
  let start = group.x * share;
  if (start >= nPositions) { return; }
  let end = min(start + share, nPositions);
  let kvHead = group.z / ${nHeadSets}u;
  let firstOwn = (group.z % ${nHeadSets}u) * ${nOwnHeads}u;
  let firstHead = kvHead * ${groupHeads}u + firstOwn;
  let nOwn = min(${nOwnHeads}u, ${groupHeads}u - firstOwn);
  for (var i = lane; i < nOwn * ${nQuads}u; i += ${BLOCK}u) { queries[i] = queryQuad(row, firstHead + i / ${nQuads}u, i % ${nQuads}u); }

  let column = lane % ${nQuads}u;
  let part = lane / ${nQuads}u;
  ${heads.map((h) => `var sum${h} = vec4<f32>(); var total${h} = 0.0; var largest${h} = f32(${NO_SCORE});`).join('\n  ')}
  for (var first = start; first < end; first += ${BLOCK}u) {
    workgroupBarrier();
    let count = min(${BLOCK}u, end - first);
    ${each((h) => `var score${h} = f32(${NO_SCORE});`)}
    if (lane < count) {
    ${each((h) => `score${h} = 0.0;`)}
    for (var k = 0u; k < ${nQuads}u; k++) {
      let key = keyQuad(segment.cacheSlot, first + lane, kvHead, k);
      ${each((h) => `score${h} += dot(key, queries[${h * nQuads}u + k]);`)}
    }
    ${each((h) => `score${h} *= ${float(scale)};`)}
    }
    ${each((h) => `weights[${h * BLOCK}u + lane] = score${h};`)}
    workgroupBarrier();
    if (lane < ${nOwnHeads * MAX_LANES}u) {
      let place = (lane / ${MAX_LANES}u) * ${BLOCK}u + lane % ${MAX_LANES}u;
      var largest = weights[place];
      for (var i = ${MAX_LANES}u; i < ${BLOCK}u; i += ${MAX_LANES}u) { largest = max(largest, weights[place + i]); }
      maxima[lane] = largest;
    }
    workgroupBarrier();
    ${each((h) => `let next${h} = largestOf(${h}u, largest${h});
    let shrink${h} = exp(largest${h} - next${h});
    largest${h} = next${h};
    sum${h} *= shrink${h};
    total${h} *= shrink${h};
    weights[${h * BLOCK}u + lane] = exp(score${h} - next${h});`)}
    workgroupBarrier();
    if (part < ${nParts}u) {
      for (var i = part; i < count; i += ${nParts}u) {
        let value = valueQuad(segment.cacheSlot, first + i, kvHead, column);
        ${each((h) => `let weight${h} = weights[${h * BLOCK}u + i]; sum${h} += weight${h} * value; total${h} += weight${h};`)}
      }
    }
  }
  ${heads.map((h) => `
  workgroupBarrier();
  parts[lane] = sum${h};
  partSums[lane] = total${h};
  workgroupBarrier();
  if (part == 0u && ${h}u < nOwn) {
    var sum = sum${h};
    var total = total${h};
    for (var i = 1u; i < ${nParts}u; i++) { sum += parts[i * ${nQuads}u + lane]; total += partSums[i * ${nQuads}u + lane]; }
    let head = firstHead + ${h}u;
    ${hasShares ? `if (nPositions > share) {
      let place = ((group.y * ${nHeads}u + head) * ${nShares}u + group.x) * ${shareQuads}u;
      shares[place + lane] = sum;
      if (lane == 0u) { shares[place + ${nQuads}u] = vec4<f32>(largest${h}, total, 0.0, 0.0); }
    } else { setOut(row, head, lane, sum / total); }` : 'setOut(row, head, lane, sum / total);'}
  }`).join('\n')}
}
`,
    workgroups(counts) {
      const nRows = rowGroups(counts)
      return nRows === 0 ? null : [sharesOf(counts, nShares), nRows, nKvHeads * nHeadSets]
    }
  }
}

function sharesOf({ maxPositions }: BatchCounts, nShares: number): number {
  return Math.min(nShares, Math.ceil(maxPositions / SHARE))
}

/** Σ of the shares, each scaled by exp(its largest score − the largest of all). */
function joinKernel({ nHeads, nQuads, nShares, shareQuads, scratchBytes, outCode }: Plan): Kernel {
  return {
    label: 'attention, joined',
    bindings: [{ kind: 'scratch', bytes: scratchBytes }],
    code: `
@group(0) @binding(2) var<storage, read> shares: array<vec4<f32>>;
${shareCode(nShares)}
${outCode}
@compute @workgroup_size(${BLOCK})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  ${ROW_CODE}
  let share = shareOf(nPositions);
  if (nPositions <= share || lane >= ${nQuads}u) { return; }
  let place = (group.y * ${nHeads}u + group.x) * ${nShares * shareQuads}u;
  let nShares = (nPositions + share - 1u) / share;
  var largest = f32(${NO_SCORE});
  for (var i = 0u; i < nShares; i++) { largest = max(largest, shares[place + i * ${shareQuads}u + ${nQuads}u].x); }
  var sum = vec4<f32>();
  var total = 0.0;
  for (var i = 0u; i < nShares; i++) {
    let facts = shares[place + i * ${shareQuads}u + ${nQuads}u];
    let factor = exp(facts.x - largest);
    sum += factor * shares[place + i * ${shareQuads}u + lane];
    total += factor * facts.y;
  }
  setOut(row, group.x, lane, sum / total);
}
`,
    workgroups(counts) {
      const nRows = rowGroups(counts)
      return nRows === 0 || sharesOf(counts, nShares) === 1 ? null : [nHeads, nRows, 1]
    }
  }
}
