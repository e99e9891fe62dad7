/**
 * Inputs as integers of 24 bits, so that products of bytes (dot4I8Packed) sum them with weights of 8 bits exactly: an input of a unit is
 * scale · (65536 high + 256 middle + low), three signed bytes, with the unit's scale from its largest input. What that loses is at most 2^-24 of the
 * largest, as float32 does; a product of four takes three instructions where unpacking and multiplying take some fourteen.
 */

import type { DeviceFacts } from '../kernel.ts'
import { unroll } from './product.ts'
import type { WeightReader } from './weight-reader.ts'

/** Less than 127 · 65536 + 127 · 256 + 127, by more than what is rounded. */
const LARGEST = 2 ** 23 - 2 ** 16

/** Of 1e-30. */
const LEAST_BITS = 0xda24260

/** Fours of inputs of a unit; each has a thread, and they are neighbours in a subgroup. */
const QUADS = 4

export function sumsDigits({ bytes, unitElements }: WeightReader, rows: number, { dotsBytes, subgroup }: DeviceFacts): boolean {
  return bytes !== null && unitElements === 4 * QUADS && rows === 1 && dotsBytes && subgroup !== null && subgroup.min === subgroup.max && subgroup.min % QUADS === 0
}

/** Before main: digits of all units, the low ones first, and their scales. */
export function digitsCode(chunk: number): string {
  return `
var<workgroup> digits: array<vec4<u32>, ${3 * chunk}>;
var<workgroup> digitScales: array<f32, ${chunk}>;`
}

/** Statements, for all threads at once: they make digits of `value`. */
export function makeDigits(value: string): string {
  return `let sizes = bitcast<vec4<u32>>(${value}) & vec4<u32>(0x7fffffffu);
      var bits = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
      ${[1, 2].map((step) => `bits = max(bits, subgroupShuffleXor(bits, ${step}u));`).join('\n')}
      // As integers NaN is above infinity, and neither is lost. Of zeros, too, there is an inverse.
      let size = bitcast<f32>(max(bits, ${LEAST_BITS}u));
      let low = vec4<i32>(round(${value} * (${LARGEST}.0 / size)));
      let middle = (low + 128) >> vec4<u32>(8u);
      let high = (middle + 128) >> vec4<u32>(8u);`
}

/** Statements: the quad `quad` to workgroup memory. */
export function putDigits(chunk: number): string {
  return `let unit = quad / ${QUADS}u;
      let place = quad % ${QUADS}u;
      ${['low', 'middle', 'high'].map((name, i) => `digits[${i * chunk}u + unit][place] = pack4xI8(${name});`).join('\n')}
      if (place == 0u) { digitScales[unit] = size / ${LARGEST}.0; }`
}

/** Statements: adds the products of unit `at` with weights of some outputs, `sum0` for the first. */
export function addDigits({ bytes }: WeightReader, chunk: number, weights: readonly { readonly unit: string; readonly factors: string }[]): string {
  const names = ['low', 'middle', 'high']
  const product = (unit: string, name: string): string => Array.from({ length: QUADS }, (_, j) => `dot4I8Packed(${bytes?.(unit, j)}, ${name}.${'xyzw'[j]})`).join(' + ')
  return `
        let scale = digitScales[at];
        ${unroll(names.length, (i) => `let ${names[i]} = digits[${i * chunk}u + at];`)}
        ${unroll(weights.length, (o) => `{
          let upper = 256 * (${product(weights[o].unit, 'high')}) + ${product(weights[o].unit, 'middle')};
          let lower = ${product(weights[o].unit, 'low')};
          sum${o} = fma(scale * ${weights[o].factors}.x, fma(256.0, f32(upper), f32(lower)), sum${o});
        }`)}`
}
