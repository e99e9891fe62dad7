/** float16 to float32, exactly, subnormals included. Infinities and NaNs do not occur: loading refuses them. */

/** A half's magnitude moved to a float's places is the value · 2^-112. */
const HALF_SCALE: f32 = 5.192296858534828e33
const HALF_MASK: i32 = 0x8fffe000
/** Vectors in memory: see CONSTANTS in exp.ts. */
const MASK_LANES: usize = memory.data<i32>([HALF_MASK, HALF_MASK, HALF_MASK, HALF_MASK], 16)
const SCALE_LANES: usize = memory.data<f32>([HALF_SCALE, HALF_SCALE, HALF_SCALE, HALF_SCALE], 16)

// @ts-ignore: decorator
@inline
export function halfToFloat(bits: i32): f32 {
  return reinterpret<f32>(((bits << 16) >> 3) & HALF_MASK) * HALF_SCALE
}

/** What highHalves takes, to be loaded before a loop. */
// @ts-ignore: decorator
@inline
export function halfMask(): v128 {
  return v128.load(MASK_LANES)
}

// @ts-ignore: decorator
@inline
export function halfScale(): v128 {
  return v128.load(SCALE_LANES)
}

/** The halves in the low 16 bits of four lanes. */
// @ts-ignore: decorator
@inline
export function lowHalves(pairs: v128, mask: v128, scale: v128): v128 {
  return highHalves(i32x4.shl(pairs, 16), mask, scale)
}

/** The halves in the high 16 bits of four lanes: shifting right keeps the sign in bit 31, the mask drops its copies below. */
// @ts-ignore: decorator
@inline
export function highHalves(pairs: v128, mask: v128, scale: v128): v128 {
  return f32x4.mul(v128.and(i32x4.shr_s(pairs, 3), mask), scale)
}
