/** Rows of parameters, states and activations, four elements at a time; what is asked for beyond a row's end is zero. */

import { unroll } from './product.ts'

export interface Quads {
  /** Elements 4 · quad … of a row as a vec4f. */
  load(row: string, quad: string): string
  /** A statement. */
  store(row: string, quad: string, values: string): string
}

interface RowQuads {
  /** Elements of a row. */
  readonly width: number
  /** Those that are asked for in a row: quad is below. */
  readonly nQuads: number
}

/** Of (rows, width) in a buffer of its own, of elements of `type`. Where the width is a multiple of four, an access is one of 16 bytes. */
export function quadsCode(name: string, { width, nQuads }: RowQuads): Quads & { readonly type: string; readonly code: { readonly load: string; readonly store: string } } {
  const isWhole = width % 4 === 0
  const element = `${name}[row * ${width / 4}u + quad]`
  const scalar = (i: number): string => `${name}[row * ${width}u + 4u * quad + ${i}u]`
  /** Statements for what is inside of the row. */
  const inside = (whole: string, single: (i: number) => string): string => {
    if (4 * nQuads === width) return whole
    if (isWhole) return `if (quad < ${width / 4}u) { ${whole} }`
    return unroll(4, (i) => `if (4u * quad + ${i}u < ${width}u) { ${single(i)} }`)
  }
  return {
    type: isWhole ? 'vec4f' : 'f32',
    code: {
      load: `fn load_${name}(row: u32, quad: u32) -> vec4f {
  var values = vec4f();
  ${inside(`values = ${element};`, (i) => `values[${i}] = ${scalar(i)};`)}
  return values;
}`,
      store: `fn store_${name}(row: u32, quad: u32, values: vec4f) {
  ${inside(`${element} = values;`, (i) => `${scalar(i)} = values[${i}];`)}
}`
    },
    load: (row, quad) => `load_${name}(${row}, ${quad})`,
    store: (row, quad, values) => `store_${name}(${row}, ${quad}, ${values});`
  }
}

/** A function of WGSL: elements 4 · quad … of the `width` that start at an element of activations. */
export function activationQuads(name: string, { width, nQuads }: RowQuads): string {
  const at = (i: number): string => `activations[start + 4u * quad + ${i}u]`
  return `fn ${name}(start: u32, quad: u32) -> vec4f {
  ${4 * nQuads === width ? `return vec4f(${[0, 1, 2, 3].map(at).join(', ')});` : `var values = vec4f();
  ${unroll(4, (i) => `if (4u * quad + ${i}u < ${width}u) { values[${i}] = ${at(i)}; }`)}
  return values;`}
}`
}
