/**
 * Inputs as integers of 24 bits, so that products of bytes (dot4I8Packed) sum them with weights of 8 and 4 bits exactly: an input is
 * scale · (65536 high + 256 middle + low), three signed bytes, with a scale for each 16 inputs from the largest of them. What that loses is at most 2^-24 of the
 * largest, as float32 does; a product of four takes three instructions where unpacking and multiplying take some fourteen.
 */

import type { DeviceFacts } from '../kernel.ts'
import { unroll } from './product.ts'
import type { WeightReader } from './weight-reader.ts'

/** Less than 127 · 65536 + 127 · 256 + 127, by more than what is rounded. */
const LARGEST = 2 ** 23 - 2 ** 16

/** Of 1e-30. */
const LEAST_BITS = 0xda24260

/** Fours of inputs with one scale; each has a thread, and they are neighbours in a subgroup. */
const QUADS = 4

const NAMES = ['low', 'middle', 'high'] as const

export function sumsDigits({ bytes }: WeightReader, rows: number, { dotsBytes, subgroup }: DeviceFacts): boolean {
  return bytes !== null && rows === 1 && dotsBytes && subgroup !== null && subgroup.min === subgroup.max && subgroup.min % QUADS === 0
}

export interface Digits {
  /** Units at a time. */
  readonly chunk: number
  /** With one scale, of a unit. */
  readonly groups: number
  /** Whether there are sums of the inputs, which minima are multiplied with. */
  readonly hasSums: boolean
}

export function digitsOf({ unitElements, hasMinimum }: WeightReader, chunk: number): Digits {
  return { chunk, groups: unitElements / (4 * QUADS), hasSums: hasMinimum }
}

/** Between the first groups of all units and their second ones: so eight neighbouring fours of a row go to as many banks. */
const PADDING = 4

function strideOf({ chunk, groups }: Digits): number {
  return groups === 1 ? chunk : chunk + PADDING
}

/** Before main: digits of all units' first groups, then of their second ones, the low digits first; the scales and scaled sums of groups in the same order. */
export function digitsCode(digits: Digits): string {
  const count = digits.groups * strideOf(digits)
  return `
var<workgroup> digits: array<vec4<u32>, ${NAMES.length * count}>;
var<workgroup> digitScales: array<f32, ${count}>;
${digits.hasSums ? `var<workgroup> inputSums: array<f32, ${count}>;` : ''}`
}

/** Statements, for all threads at once: they make digits of `value`. */
export function makeDigits(value: string, { hasSums }: Digits): string {
  const steps = [1, 2]
  return `let sizes = bitcast<vec4<u32>>(${value}) & vec4<u32>(0x7fffffffu);
      var bits = max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
      ${steps.map((step) => `bits = max(bits, subgroupShuffleXor(bits, ${step}u));`).join('\n')}
      // As integers NaN is above infinity, and neither is lost. Of zeros, too, there is an inverse.
      let size = bitcast<f32>(max(bits, ${LEAST_BITS}u));
      let integers = vec4<i32>(round(${value} * (${LARGEST}.0 / size)));
      // Bytes of a word are 128 more than the digits, and all bits but the highest the same; bytes of the four words change places.
      let words = vec4<u32>(integers + 0x808080);
      let ends = (words.xz & vec2<u32>(0x00ff00ffu)) | ((words.yw & vec2<u32>(0x00ff00ffu)) << vec2<u32>(8u));
      let middles = ((words.xz >> vec2<u32>(8u)) & vec2<u32>(0xffu)) | (words.yw & vec2<u32>(0xff00u));
      let low = ((ends.x & 0xffffu) | (ends.y << 16u)) ^ 0x80808080u;
      let middle = (middles.x | (middles.y << 16u)) ^ 0x80808080u;
      let high = ((ends.x >> 16u) | (ends.y & 0xffff0000u)) ^ 0x80808080u;
      ${hasSums ? `var total = integers.x + integers.y + integers.z + integers.w;
      ${steps.map((step) => `total += subgroupShuffleXor(total, ${step}u);`).join('\n')}` : ''}`
}

/** Statements: the quad `quad` to workgroup memory. */
export function putDigits(digits: Digits): string {
  const { groups, hasSums } = digits
  const stride = strideOf(digits)
  return `let group = ${groups === 1 ? `quad / ${QUADS}u` : `quad / ${QUADS}u % ${groups}u * ${stride}u + quad / ${groups * QUADS}u`};
      let place = quad % ${QUADS}u;
      ${NAMES.map((name, i) => `digits[${i * groups * stride}u + group][place] = ${name};`).join('\n')}
      if (place == 0u) {
        digitScales[group] = size / ${LARGEST}.0;
        ${hasSums ? `inputSums[group] = f32(total) * (size / ${LARGEST}.0);` : ''}
      }`
}

/** Statements: adds the products of unit `at` with weights of some outputs, `sum0` for the first. */
export function addDigits({ bytes }: WeightReader, digits: Digits, weights: readonly { readonly unit: string; readonly factors: string }[]): string {
  const { groups, hasSums } = digits
  const stride = strideOf(digits)
  const perGroup = (line: (g: number) => string): string => unroll(groups, line)
  const product = (g: number, name: string): string =>
    Array.from({ length: QUADS }, (_, j) => `dot4I8Packed(bytes${g * QUADS + j}, ${name}${g}.${'xyzw'[j]})`).join(' + ')
  return `
        ${perGroup((g) => `let scale${g} = digitScales[${g * stride}u + at];
        ${unroll(NAMES.length, (i) => `let ${NAMES[i]}${g} = digits[${(i * groups + g) * stride}u + at];`)}`)}
        ${hasSums ? `let plain = ${Array.from({ length: groups }, (_, g) => `inputSums[${g * stride}u + at]`).join(' + ')};` : ''}
        ${unroll(weights.length, (o) => `{
          ${unroll(groups * QUADS, (j) => `let bytes${j} = ${bytes?.(weights[o].unit, j)};`)}
          ${perGroup((g) => `let upper${g} = 256 * (${product(g, 'high')}) + ${product(g, 'middle')};
          let lower${g} = ${product(g, 'low')};
          let part${g} = fma(256.0, f32(upper${g}), f32(lower${g}));`)}
          ${groups === 1 ? `let part = scale0 * part0;` : `let part = fma(scale1, part1, scale0 * part0);`}
          sum${o} = fma(${weights[o].factors}.x, part, sum${o});
          ${hasSums ? `sum${o} = fma(${weights[o].factors}.y, plain, sum${o});` : ''}
        }`)}`
}
