/** a · b + c. */

/**
 * Rounded twice, as everywhere; in the relaxed builds (FUSES, of asconfig.json) as the host likes, once where it has a fused instruction: faster, and the
 * reason why those builds may differ between machines.
 */
// @ts-ignore: decorator
@inline
export function multiplyAdd(a: v128, b: v128, c: v128): v128 {
  return ASC_FEATURE_RELAXED_SIMD && FUSES ? f32x4.relaxed_madd(a, b, c) : f32x4.add(f32x4.mul(a, b), c)
}
