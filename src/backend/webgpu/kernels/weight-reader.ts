/** WGSL that reads a matrix of any format as weights.ts lays it out, 16 bytes of a row at a time, and makes float32 of it. */

import { BLOCK_TYPES, type BlockFormat, isBlockFormat } from '../../../ggml-blocks.ts'
import type { WeightFormat } from '../../../program/formats.ts'
import type { DeviceFacts } from '../kernel.ts'
import { NIBBLE_ZERO, rowForm } from '../weights.ts'

/**
 * weight = scale · quad + minimum, with factors = (scale, minimum) of a unit of 16 bytes, or the quad itself where there are no factors.
 * A kernel that sums products over a unit multiplies by its factors once.
 */
export interface WeightReader {
  /** Inputs of a unit, and of a row in units. */
  readonly unitElements: number
  readonly nUnits: number
  readonly rowUnits: number
  readonly hasFactors: boolean
  /** Where not, the minimum is 0. */
  readonly hasMinimum: boolean
  /**
   * The binding `weights` and, of row `row` of what is bound:
   *   fn weightUnit(row: u32, unit: u32) -> vec4<u32>
   *   fn weightFactors(row: u32, unit: u32) -> vec2<f32>   where there are any
   *   fn weightQuad(row: u32, quad: u32) -> vec4<f32>      the weights of inputs 4 · quad to 4 · quad + 3
   */
  readonly code: string
  /** An expression: inputs 4 j to 4 j + 3 of a unit, which the variable `unit` holds, as vec4<f32>. */
  quad(unit: string, j: number): string
  /** The same as a word of signed bytes, before the factors; null where there are none. */
  readonly bytes: ((unit: string, j: number) => string) | null
}

/** `device`: what is known of it decides how halves are read. */
export function weightReader(format: WeightFormat, nIn: number, binding: number, device: DeviceFacts): WeightReader {
  const { unitElements, nUnits, regions, rowUnits } = rowForm(format, nIn)
  const hasFactors = isBlockFormat(format)
  return {
    unitElements, nUnits, rowUnits, hasFactors,
    hasMinimum: hasFactors && (BLOCK_TYPES[format].hasMinimum || BLOCK_TYPES[format].bits === 4),
    quad: (unit, j) => quadOf(format, unit, j),
    bytes: hasFactors ? (unit, j) => wordOf(format, unit, j) : null,
    code: `
${!hasHalves(format) ? '' : device.unpacksHalves ? HALVES_UNPACKED : HALVES_BY_BITS}
@group(0) @binding(${binding}) var<storage, read> weights: array<vec4<u32>>;
${COMPONENT}
fn weightUnit(row: u32, unit: u32) -> vec4<u32> { return weights[row * ${rowUnits}u + unit]; }
${hasFactors ? factorsCode(format, { unitElements, regions, rowUnits }) : ''}
fn weightQuad(row: u32, quad: u32) -> vec4<f32> {
  let unit = weights[row * ${rowUnits}u + quad / ${unitElements / 4}u];
  ${quadCode(format)}
}
`
  }
}

/** A vector that is indexed by what is not known may have to go through memory. */
const COMPONENT = `
fn component(v: vec4<u32>, i: u32) -> u32 {
  let pair = select(v.xy, v.zw, i >= 2u);
  return select(pair.x, pair.y, i % 2u == 1u);
}`

function hasHalves(format: WeightFormat): boolean {
  return format === 'f16' || isBlockFormat(format)
}

const HALVES_UNPACKED = `
fn halves(word: u32) -> vec2<f32> { return unpack2x16float(word); }`

/**
 * unpack2x16float may lose what is subnormal, and a bitcast to the device's own half floats gives other numbers on wgpu with Mesa's llvmpipe:
 * the exponent rebased, and the hidden one taken from where there is none.
 */
const HALVES_BY_BITS = `
fn halves(word: u32) -> vec2<f32> {
  let bits = vec2<u32>(word << 13u, word >> 3u) & vec2<u32>(0x0fffe000u);
  let sizes = bitcast<vec2<f32>>(bits + 0x38000000u);
  let exact = select(sizes, 2.0 * sizes - ${2 ** -14}, bits < vec2<u32>(0x00800000u));
  return bitcast<vec2<f32>>(bitcast<vec2<u32>>(exact) | (vec2<u32>(word << 16u, word) & vec2<u32>(0x80000000u)));
}`

const HALVES = (word: string): string => `halves(${word})`
/** The upper halves of float32. */
const WIDE = (word: string): string => `bitcast<vec2<f32>>(vec2<u32>(${word} << 16u, ${word} & 0xffff0000u))`

function quadOf(format: WeightFormat, unit: string, j: number): string {
  const component = (i: number): string => `${unit}.${'xyzw'[i]}`
  if (format === 'f32') return `bitcast<vec4<f32>>(${unit})`
  if (!isBlockFormat(format)) {
    const pair = format === 'f16' ? HALVES : WIDE
    return `vec4<f32>(${pair(component(2 * j))}, ${pair(component(2 * j + 1))})`
  }
  if (BLOCK_TYPES[format].bits !== 4) return bytesOf(component(j))
  return nibblesOf(component(j >> 1), `${4 * (j % 2)}u`)
}

function wordOf(format: BlockFormat, unit: string, j: number): string {
  if (BLOCK_TYPES[format].bits !== 4) return `${unit}.${'xyzw'[j]}`
  const word = `${unit}.${'xyzw'[j >> 1]}`
  return `(${j % 2 === 0 ? word : `(${word} >> 4u)`} & 0x0f0f0f0fu)`
}

/** The four signed bytes of a word. */
function bytesOf(word: string): string {
  return integersOf(word, { shift: '0u', mask: 0xff, flip: 0x80 })
}

/** The low halves of the four bytes of a word, which `shift` may make of the high ones. */
function nibblesOf(word: string, shift: string): string {
  return integersOf(word, { shift, mask: 0x0f, flip: 0 })
}

/**
 * The bits of `mask` of each byte, `flip` of them flipped and taken off again: as the last digits of 2^23 and, where they stand eight bits further up, of 2^15.
 * Cheaper than conversions of integers, and two of four need no shift.
 */
function integersOf(word: string, { shift, mask, flip }: { shift: string; mask: number; flip: number }): string {
  const alternating = (even: number | string, odd: number | string, type: string): string => `vec4<${type}>(${even}, ${odd}, ${even}, ${odd})`
  const pair = `(vec2<u32>(${word}) >> vec2<u32>(${shift}, ${shift} + 16u)).xxyy`
  const bits = `(${pair} & ${alternating(`${mask}u`, `${mask << 8}u`, 'u32')}) ^ ${alternating(`${0x4b000000 | flip}u`, `${0x47000000 | (flip << 8)}u`, 'u32')}`
  return `(bitcast<vec4<f32>>(${bits}) - ${alternating(`${2 ** 23 + flip}.0`, `${2 ** 15 + flip}.0`, 'f32')})`
}

/** Rest of the body of weightQuad, of its `unit`. */
function quadCode(format: WeightFormat): string {
  if (format === 'f32') return 'return bitcast<vec4<f32>>(unit);'
  if (!isBlockFormat(format)) {
    const pair = format === 'f16' ? HALVES : WIDE
    return `let words = select(unit.xy, unit.zw, quad % 2u == 1u);
  return vec4<f32>(${pair('words.x')}, ${pair('words.y')});`
  }
  const nibbles = BLOCK_TYPES[format].bits === 4
  const integers = nibbles ? nibblesOf('component(unit, (quad % 8u) / 2u)', '4u * (quad % 2u)') : bytesOf('component(unit, quad % 4u)')
  return `let factors = weightFactors(row, quad / ${nibbles ? 8 : 4}u);
  return factors.x * ${integers} + factors.y;`
}

interface Places {
  readonly unitElements: number
  readonly regions: readonly number[]
  readonly rowUnits: number
}

/** What of a group of inputs is where: see ggml-blocks.ts for the blocks' drawings. */
function factorsCode(format: BlockFormat, { unitElements, regions, rowUnits }: Places): string {
  const unitsOf = (i: number): string => `row * ${rowUnits}u + ${regions[i]}u`
  const group = unitElements === 32 ? 'unit' : 'unit / 2u'
  const bodies: Readonly<Record<'half' | 'pair' | 'k' | 'q6', string>> = {
    half: `
  let group = ${group};
  let scale = halves(weights[${unitsOf(0)} + group / 8u][(group / 2u) % 4u] >> (16u * (group % 2u))).x;
  return vec2<f32>(scale, ${unitElements === 32 ? `${-NIBBLE_ZERO}.0 * scale` : '0.0'});`,
    pair: `
  let group = ${group};
  return halves(weights[${unitsOf(0)} + group / 4u][group % 4u]);`,
    k: `
  let group = ${group};
  let block = weights[${unitsOf(0)} + group / 8u];
  let d = halves(block.x);
  let bytes = block.yzw >> vec3<u32>(8u * (group % 4u));
  let low = bytes.xy & vec2<u32>(63u);
  let high = vec2<u32>(bytes.z & 15u, (bytes.z >> 4u) & 15u) | ((bytes.xy >> vec2<u32>(2u)) & vec2<u32>(48u));
  let integers = vec2<f32>(select(low, high, group % 8u >= 4u));
  return vec2<f32>(d.x * integers.x, -d.y * integers.y);`,
    q6: `
  let word = component(weights[${unitsOf(0)} + unit / 16u], (unit / 4u) % 4u);
  let scale = bitcast<i32>(word << (24u - 8u * (unit % 4u))) >> 24u;
  let block = unit / 16u;
  let factor = halves(component(weights[${unitsOf(1)} + block / 8u], (block / 2u) % 4u) >> (16u * (block % 2u))).x;
  return vec2<f32>(factor * f32(scale), 0.0);`
  }
  const kinds = { q8_0: 'half', q4_0: 'half', q5_0: 'half', q4_1: 'pair', q5_1: 'pair', q4_k: 'k', q5_k: 'k', q6_k: 'q6' } as const
  return `fn weightFactors(row: u32, unit: u32) -> vec2<f32> {${bodies[kinds[format]]}
}`
}
