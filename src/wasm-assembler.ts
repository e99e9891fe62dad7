/**
 * A small assembler for kernels that are measured: functions (a: i32, b: i32) → i32 of one loop over vectors, whose result depends on all that it did.
 * Vectors are locals from SUM on: sums, and behind them an operand.
 */

/** Locals of every kernel. */
export const [A, B, SUM] = [0, 1, 2]

const unsigned = (value: number): number[] => (value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)])
const signed = (value: number): number[] => (value >= -64 && value < 64 ? [value & 0x7f] : [(value & 0x7f) | 0x80, ...signed(value >> 7)])
const sized = (bytes: readonly number[]): number[] => [...unsigned(bytes.length), ...bytes]
const text = (value: string): number[] => sized([...new TextEncoder().encode(value)])
const section = (id: number, items: readonly (readonly number[])[]): number[] => [id, ...sized([...unsigned(items.length), ...items.flat()])]

export const get = (local: number): number[] => [0x20, local]
export const set = (local: number): number[] => [0x21, local]
export const constant = (value: number): number[] => [0x41, ...signed(value)]
export const simd = (code: number): number[] => [0xfd, ...unsigned(code)]

/** A vector instruction that loads: 16 bytes at an address and an offset. */
export const load = (address: number, offset: number): number[] => [...get(address), ...simd(0x00), 4, ...unsigned(offset)]
const [I16_SPLAT, I32_SPLAT, EXTRACT, DOT, I32_ADD, RELAXED_DOT] = [0x10, 0x11, 0x1b, 0xba, 0xae, 0x113]
export const XOR = 0x51

export interface Kernel {
  readonly nSums: number
  readonly code: readonly number[]
}

const eachSum = (nSums: number, code: (sum: number) => number[]): number[] => Array.from({ length: nSums }, (_, i) => code(SUM + i)).flat()

/** Until the body leaves 0; then the sums in one number. */
export function loop(nSums: number, body: readonly number[]): Kernel {
  return { nSums, code: [0x03, 0x40, ...body, 0x0d, 0, 0x0b, ...get(SUM), ...eachSum(nSums - 1, (sum) => [...get(sum + 1), ...simd(XOR)]), ...simd(EXTRACT), 0] }
}

/** A turns of `unroll` steps on each sum; the operand is B in all lanes, by `splat`. */
export function arithmetic({ nSums, unroll, splat, step }: { nSums: number; unroll: number; splat: readonly number[]; step: (sum: number, operand: number) => number[] }): Kernel {
  const operand = SUM + nSums
  const { code } = loop(nSums, [...Array.from({ length: unroll }, () => eachSum(nSums, (sum) => step(sum, operand))).flat(), ...get(A), ...constant(1), 0x6b, 0x22, A])
  return { nSums, code: [...get(B), ...splat, ...set(operand), ...eachSum(nSums, (sum) => [...constant(sum), ...simd(I32_SPLAT), ...set(sum)]), ...code] }
}

/** What an arithmetic kernel of integers does with each sum. */
interface Unrolled {
  readonly nSums: number
  readonly unroll: number
}

/** Eight products of 16 bits a step: i32x4.dot_i16x8_s and i32x4.add. */
export function dotHalves(size: Unrolled): Kernel {
  return arithmetic({ ...size, splat: simd(I16_SPLAT), step: (sum, operand) => [...get(sum), ...get(sum), ...get(operand), ...simd(DOT), ...simd(I32_ADD), ...set(sum)] })
}

/** Sixteen products of bytes a step: i32x4.relaxed_dot_i8x16_i7x16_add_s. */
export function dotBytes(size: Unrolled): Kernel {
  return arithmetic({ ...size, splat: simd(I16_SPLAT), step: (sum, operand) => [...get(sum), ...get(operand), ...get(sum), ...simd(RELAXED_DOT), ...set(sum)] })
}

/** A module with the kernels as its exports; one that reads imports env.memory. */
export function assemble(kernels: Readonly<Record<string, Kernel>>, { hasMemory = false } = {}): Uint8Array<ArrayBuffer> {
  const bodies = Object.values(kernels).map(({ nSums, code }) => sized([1, nSums + 1, 0x7b, ...code, 0x0b]))
  return Uint8Array.from([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [[0x60, 2, 0x7f, 0x7f, 1, 0x7f]]),
    ...(hasMemory ? section(2, [[...text('env'), ...text('memory'), 2, 0, 1]]) : []),
    ...section(3, bodies.map(() => [0])),
    ...section(7, Object.keys(kernels).map((name, i) => [...text(name), 0, i])),
    ...section(10, bodies)
  ])
}
