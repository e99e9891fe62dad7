/** WGSL that reads the key-value cache and the queries in vectors of four columns, whatever the width of a head. */

import type { AttentionOp } from '../../../program/ops.ts'
import type { Binding, KernelContext } from '../kernel.ts'
import { elementOf } from './elements.ts'

/** Of a score that does not count: far below all others, and far from overflow. */
export const NO_SCORE = '-1e30'

export interface KeyValueReader {
  readonly nHeads: number
  readonly nKvHeads: number
  /** Vectors of a head; columns beyond it are 0. */
  readonly nQuads: number
  /** Keys and values, at bindings 2 and 3. */
  readonly bindings: readonly Binding[]
  /** fn keyQuad(slot: u32, position: u32, kvHead: u32, quad: u32) -> vec4<f32>, and valueQuad. */
  readonly cacheCode: string
  /** fn queryQuad(row: u32, head: u32, quad: u32) -> vec4<f32> */
  readonly queryCode: string
  /** fn setOut(row: u32, head: u32, quad: u32, values: vec4<f32>) */
  readonly outCode: string
}

export function keyValueReader({ q, headDim, cache, out }: AttentionOp, context: KernelContext): KeyValueReader {
  const nQuads = Math.ceil(headDim / 4)
  const isWhole = headDim % 4 === 0
  const type = isWhole ? 'vec4<f32>' : 'f32'
  const places = [0, 1, 2, 3]
  /** Of the last vector of a head not all columns are there. */
  const guarded = (i: number, value: string): string => (isWhole || i === 0 ? value : `select(0.0, ${value}, 4u * quad + ${i}u < ${headDim}u)`)
  const reader = (name: string, memory: string): string => `
fn ${name}(slot: u32, position: u32, kvHead: u32, quad: u32) -> vec4<f32> {
  ${isWhole
    ? `return ${memory}[(slot * ${context.capacity.contextLength}u + position) * ${cache.width / 4}u + kvHead * ${nQuads}u + quad];`
    : `let first = (slot * ${context.capacity.contextLength}u + position) * ${cache.width}u + kvHead * ${headDim}u + 4u * quad;
  return vec4<f32>(${places.map((i) => guarded(i, `${memory}[first + ${i}u]`)).join(', ')});`}
}`
  const query = elementOf(context, q)
  const target = elementOf(context, out)
  return {
    nHeads: q.width / headDim, nKvHeads: cache.width / headDim, nQuads,
    bindings: [{ kind: 'keys', cache }, { kind: 'values', cache }],
    cacheCode: `
@group(0) @binding(2) var<storage, read> keys: array<${type}>;
@group(0) @binding(3) var<storage, read> values: array<${type}>;
${reader('keyQuad', 'keys')}
${reader('valueQuad', 'values')}
`,
    // Rows of activations start anywhere: one column at a time.
    queryCode: `
fn queryQuad(row: u32, head: u32, quad: u32) -> vec4<f32> {
  let column = head * ${headDim}u + 4u * quad;
  return vec4<f32>(${places.map((i) => guarded(i, query('row', `column + ${i}u`))).join(', ')});
}
`,
    outCode: `
fn setOut(row: u32, head: u32, quad: u32, values: vec4<f32>) {
  let column = head * ${headDim}u + 4u * quad;
  ${places.map((i) => `${isWhole || i === 0 ? '' : `if (4u * quad + ${i}u < ${headDim}u) `}{ ${target('row', `column + ${i}u`)} = values[${i}]; }`).join('\n  ')}
}
`
  }
}
