/**
 * Matrix products within a kernel: a workgroup of 256 threads makes 64 × 64 outputs, each thread 4 × 4 of them in registers. Operands go through workgroup
 * memory, 16 of the inner dimension at a time, four outputs together in a vec4f.
 */

import { unroll } from './product.ts'

export const TILE = 64
export const TILE_THREADS = 256
const DEPTH = 16
/** Of workgroup memory, in vec4f: one more than there are, so that neighbouring threads write to different banks. */
const STRIDE = TILE / 4 + 1

/** Before main. */
export const TILE_DECLARATIONS = `
var<workgroup> tileLeft: array<vec4f, ${DEPTH * STRIDE}>;
var<workgroup> tileRight: array<vec4f, ${DEPTH * STRIDE}>;
`

/** Statements: the tile's sums, zero at first. Then those of `product`, then `stored`. `thread` is in scope. */
export const TILE_START = `let tileRow = thread / ${TILE / 4}u;
let tileColumn = thread % ${TILE / 4}u;
${unroll(4, (r) => `var sum${r} = vec4f();`)}`

interface Operand {
  /** WGSL: the element at an output's row or column and an inner index; zero outside of the matrix. */
  readonly at: (output: string, inner: string) => string
  /** Whether neighbours along the inner dimension are neighbours in memory; otherwise those along the outputs are. */
  readonly isInnerFirst: boolean
}

/** Statements, in uniform control flow: sums += left · right over `depth` (an expression, uniform). */
export function product({ depth, left, right }: { depth: string; left: Operand; right: Operand }): string {
  const stage = (tile: string, { at, isInnerFirst }: Operand): string => {
    const [inner, quad] = isInnerFirst ? [`thread % ${DEPTH}u`, `thread / ${DEPTH}u`] : [`thread / ${TILE / 4}u`, `thread % ${TILE / 4}u`]
    return `{
    let k = ${inner};
    let quad = ${quad};
    ${tile}[k * ${STRIDE}u + quad] = vec4f(${[0, 1, 2, 3].map((i) => at(`(4u * quad + ${i}u)`, '(first + k)')).join(', ')});
  }`
  }
  return `for (var first = 0u; first < ${depth}; first += ${DEPTH}u) {
  workgroupBarrier();
  ${stage('tileLeft', left)}
  ${stage('tileRight', right)}
  workgroupBarrier();
  for (var k = 0u; k < ${DEPTH}u; k++) {
    let left = tileLeft[k * ${STRIDE}u + tileRow];
    let right = tileRight[k * ${STRIDE}u + tileColumn];
    ${unroll(4, (r) => `sum${r} += left[${r}] * right;`)}
  }
}`
}

/** A statement for each output of the thread. */
export function stored(store: (row: string, column: string, value: string) => string): string {
  return unroll(4, (r) => `for (var c = 0u; c < 4u; c++) {
  ${store(`(4u * tileRow + ${r}u)`, '(4u * tileColumn + c)', `sum${r}[c]`)}
}`)
}
