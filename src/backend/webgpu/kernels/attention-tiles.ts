/**
 * Attention of segments of many rows. A workgroup takes one head and a tile of queries, and walks over the keys in tiles: keys, then values, pass through
 * workgroup memory, once for all queries of the tile; scores and the sums of values are in registers:
 *
 *   lane (x, y)   scores of queries y, y + Y, … with keys x, x + X, …; sums of the same queries in column vectors x, x + X, …
 *
 * Rows in workgroup memory are one vector longer than a head, so that lanes with neighbouring keys read different banks.
 */

import { messageOf } from '../../../errors.ts'
import type { AttentionOp } from '../../../program/ops.ts'
import type { Kernel, KernelContext } from '../kernel.ts'
import { FEW_ROWS } from './attention-rows.ts'
import { float } from './elements.ts'
import { keyValueReader, NO_SCORE } from './key-value-reader.ts'

interface Tile {
  /** Lanes along the keys and along the queries. */
  readonly lanesX: number
  readonly lanesY: number
  /** Keys and queries of a lane. */
  readonly ownKeys: number
  readonly ownQueries: number
}

/** The largest that fits workgroup memory is taken: the last for heads of 256 columns in the 16 KB that every device has. */
const TILES: readonly Tile[] = [
  { lanesX: 16, lanesY: 16, ownKeys: 2, ownQueries: 2 },
  { lanesX: 16, lanesY: 16, ownKeys: 1, ownQueries: 1 },
  { lanesX: 16, lanesY: 8, ownKeys: 1, ownQueries: 1 },
  { lanesX: 8, lanesY: 4, ownKeys: 1, ownQueries: 1 }
]

/** Vectors and numbers of a tile in workgroup memory. */
function sizesOf({ lanesX, lanesY, ownKeys, ownQueries }: Tile, nQuads: number): { nKeys: number; nQueries: number; stride: number; bytes: number } {
  const [nKeys, nQueries] = [lanesX * ownKeys, lanesY * ownQueries]
  const stride = nQuads + 1
  return { nKeys, nQueries, stride, bytes: 16 * stride * (nKeys + nQueries) + 4 * nQueries * (nKeys + 1 + lanesX + 1) }
}

export function attentionTiles(op: AttentionOp, context: KernelContext): Kernel {
  const { headDim, scale } = op
  const { nHeads, nKvHeads, nQuads, bindings, cacheCode, queryCode, outCode } = keyValueReader(op, context)
  const { maxWorkgroupStorageBytes, maxWorkgroupInvocations } = context.device
  const tile = TILES.find((tile) => sizesOf(tile, nQuads).bytes <= maxWorkgroupStorageBytes && tile.lanesX * tile.lanesY <= maxWorkgroupInvocations)
  if (tile === undefined) {
    const needed = sizesOf(TILES[TILES.length - 1], nQuads).bytes
    throw new RangeError(messageOf({ place: 'maxComputeWorkgroupStorageSize of the device', expected: `${needed} for attention with heads of ${headDim} columns`, got: `${maxWorkgroupStorageBytes}` }))
  }
  const { lanesX, lanesY, ownKeys, ownQueries } = tile
  const { nKeys, nQueries, stride } = sizesOf(tile, nQuads)
  const nLanes = lanesX * lanesY
  const queries = Array.from({ length: ownQueries }, (_, i) => i)
  const keys = Array.from({ length: ownKeys }, (_, j) => j)
  const columns = Array.from({ length: Math.ceil(nQuads / lanesX) }, (_, j) => j)
  const each = (list: readonly number[], line: (i: number) => string): string => list.map(line).join('\n    ')
  const eachPair = (list: readonly number[], line: (i: number, j: number) => string): string => queries.flatMap((i) => list.map((j) => line(i, j))).join('\n    ')
  const load = (reader: string): string => `
    for (var i = lane; i < ${nKeys * nQuads}u; i += ${nLanes}u) {
      let position = first + i / ${nQuads}u;
      var loaded = vec4<f32>();
      if (position < nPositions) { loaded = ${reader}(segment.cacheSlot, position, kvHead, i % ${nQuads}u); }
      cached[(i / ${nQuads}u) * ${stride}u + i % ${nQuads}u] = loaded;
    }`
  return {
    label: 'attention, tiles',
    bindings,
    code: `${cacheCode}${queryCode}${outCode}
var<workgroup> queries: array<vec4<f32>, ${nQueries * stride}>;
/** Keys, then values. */
var<workgroup> cached: array<vec4<f32>, ${nKeys * stride}>;
var<workgroup> weights: array<f32, ${nQueries * (nKeys + 1)}>;
var<workgroup> maxima: array<f32, ${nQueries * (lanesX + 1)}>;

fn largestOf(query: u32, before: f32) -> f32 {
  var largest = before;
  for (var i = query * ${lanesX + 1}u; i < query * ${lanesX + 1}u + ${lanesX}u; i++) { largest = max(largest, maxima[i]); }
  return largest;
}

@compute @workgroup_size(${nLanes})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let segment = segmentAt(group.z);
  let firstT = group.x * ${nQueries}u;
  if (segment.nRows <= ${FEW_ROWS}u || firstT >= segment.nRows) { return; }
  let head = group.y;
  let kvHead = head / ${nHeads / nKvHeads}u;
  let x = lane % ${lanesX}u;
  let y = lane / ${lanesX}u;
  for (var i = lane; i < ${nQueries * nQuads}u; i += ${nLanes}u) {
    let t = firstT + i / ${nQuads}u;
    var loaded = vec4<f32>();
    if (t < segment.nRows) { loaded = queryQuad(segment.firstRow + t, head, i % ${nQuads}u); }
    queries[(i / ${nQuads}u) * ${stride}u + i % ${nQuads}u] = loaded;
  }
  ${queries.map((i) => `let query${i} = y + ${i * lanesY}u; let own${i} = segment.position + firstT + query${i}; var total${i} = 0.0; var largest${i} = f32(${NO_SCORE});`).join('\n  ')}
  ${eachPair(columns, (i, j) => `var sum${i}_${j} = vec4<f32>();`)}
  let nPositions = segment.position + min(firstT + ${nQueries}u, segment.nRows);
  for (var first = 0u; first < nPositions; first += ${nKeys}u) {
    workgroupBarrier();
    ${load('keyQuad')}
    workgroupBarrier();
    ${eachPair(keys, (i, j) => `var score${i}_${j} = 0.0;`)}
    for (var k = 0u; k < ${nQuads}u; k++) {
      ${each(keys, (j) => `let key${j} = cached[(x + ${j * lanesX}u) * ${stride}u + k];`)}
      ${each(queries, (i) => `let q${i} = queries[query${i} * ${stride}u + k];`)}
      ${eachPair(keys, (i, j) => `score${i}_${j} += dot(q${i}, key${j});`)}
    }
    ${eachPair(keys, (i, j) => `score${i}_${j} = select(f32(${NO_SCORE}), ${float(scale)} * score${i}_${j}, first + x + ${j * lanesX}u <= own${i});`)}
    ${each(queries, (i) => `maxima[query${i} * ${lanesX + 1}u + x] = ${keys.map((j) => `score${i}_${j}`).reduce((a, b) => `max(${a}, ${b})`)};`)}
    workgroupBarrier();
    ${each(queries, (i) => `let next${i} = largestOf(query${i}, largest${i});
    let shrink${i} = exp(largest${i} - next${i});
    largest${i} = next${i};
    total${i} *= shrink${i};`)}
    ${eachPair(keys, (i, j) => `weights[query${i} * ${nKeys + 1}u + x + ${j * lanesX}u] = exp(score${i}_${j} - next${i});`)}
    ${eachPair(columns, (i, j) => `sum${i}_${j} *= shrink${i};`)}
    ${load('valueQuad')}
    workgroupBarrier();
    for (var key = 0u; key < ${nKeys}u; key++) {
      ${each(columns, (j) => `let value${j} = cached[key * ${stride}u + x + ${j * lanesX}u];`)}
      ${each(queries, (i) => `let weight${i} = weights[query${i} * ${nKeys + 1}u + key]; total${i} += weight${i};`)}
      ${eachPair(columns, (i, j) => `sum${i}_${j} += weight${i} * value${j};`)}
    }
  }
  ${eachPair(columns, (i, j) => `if (firstT + query${i} < segment.nRows && x + ${j * lanesX}u < ${nQuads}u) { setOut(segment.firstRow + firstT + query${i}, head, x + ${j * lanesX}u, sum${i}_${j} / total${i}); }`)}
}
`,
    workgroups: ({ nSegments, maxSegmentRows }) => (maxSegmentRows <= FEW_ROWS ? null : [Math.ceil(maxSegmentRows / nQueries), nHeads, nSegments])
  }
}
