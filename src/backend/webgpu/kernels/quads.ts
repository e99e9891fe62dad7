/** Rows of parameters, states and activations, four elements at a time; what is asked for beyond a row's end is zero. */

import { unroll } from './product.ts'

export interface Quads {
  /** Before main. */
  readonly declaration: string
  /** Elements 4 · quad … of a row as a vec4f. */
  load(row: string, quad: string): string
  /** A statement. */
  store(row: string, quad: string, values: string): string
}

interface QuadsOptions {
  /** Elements of a row. */
  readonly width: number
  /** Those that are asked for in a row: quad is below. */
  readonly nQuads: number
  readonly binding: number
  readonly access?: 'read' | 'read_write'
}

/** (rows, width) in a buffer of its own. Where the width is a multiple of four, an access is one of 16 bytes. */
export function quadsOf(name: string, { width, nQuads, binding, access = 'read' }: QuadsOptions): Quads {
  const isWhole = width % 4 === 0
  const element = isWhole ? `${name}[row * ${width / 4}u + quad]` : ''
  const isInside = (i: number): string => `4u * quad + ${i}u < ${width}u`
  const scalar = (i: number): string => `${name}[row * ${width}u + 4u * quad + ${i}u]`
  const load = isWhole
    ? `if (quad < ${width / 4}u) { values = ${element}; }`
    : unroll(4, (i) => `if (${isInside(i)}) { values[${i}] = ${scalar(i)}; }`)
  const store = isWhole
    ? `if (quad < ${width / 4}u) { ${element} = values; }`
    : unroll(4, (i) => `if (${isInside(i)}) { ${scalar(i)} = values[${i}]; }`)
  const isExact = 4 * nQuads === width
  return {
    declaration: `
@group(0) @binding(${binding}) var<storage, ${access}> ${name}: array<${isWhole ? 'vec4f' : 'f32'}>;
fn load_${name}(row: u32, quad: u32) -> vec4f {
  ${isExact ? `return ${element};` : `var values = vec4f();
  ${load}
  return values;`}
}
${access === 'read' ? '' : `fn store_${name}(row: u32, quad: u32, values: vec4f) {
  ${isExact ? `${element} = values;` : store}
}`}`,
    load: (row, quad) => `load_${name}(${row}, ${quad})`,
    store: (row, quad, values) => `store_${name}(${row}, ${quad}, ${values});`
  }
}

/** A function of WGSL: elements 4 · quad … of the `width` that start at an element of activations. */
export function activationQuads(name: string, { width, nQuads }: { width: number; nQuads: number }): string {
  const at = (i: number): string => `activations[start + 4u * quad + ${i}u]`
  return `
fn ${name}(start: u32, quad: u32) -> vec4f {
  ${4 * nQuads === width ? `return vec4f(${[0, 1, 2, 3].map(at).join(', ')});` : `var values = vec4f();
  ${unroll(4, (i) => `if (4u * quad + ${i}u < ${width}u) { values[${i}] = ${at(i)}; }`)}
  return values;`}
}`
}
