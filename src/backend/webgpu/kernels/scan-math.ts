/**
 * softplus of the scans in WGSL. What WGSL promises of exp and exp2 is 3 + 2 |x| units in the last place, so of a decay exp(dt · A)
 * as much as the rounding of its argument leaves. Its log is off by up to 2^-21 near 1, where small steps dt come from: that one is ours.
 */

/** PyTorch's: log(1 + exp(x)), which is x in f32 from 17 on, hence at its threshold of 20. log1p(e) = 2 atanh(e / (2 + e)): the polynomial of assembly/math/exp.ts. */
export const SOFTPLUS = `
fn softplus(x: f32) -> f32 {
  let e = exp(-abs(x));
  let s = e / (2.0 + e);
  let s2 = s * s;
  let p = s2 * fma(s2, fma(s2, fma(s2, 0.1408998966217041, 0.13980095088481903), 0.20012472569942474), 0.33333155512809753);
  return max(x, 0.0) + 2.0 * fma(s, p, s);
}
`

/**
 * Code for 0, 1, …, count − 1 as a loop of WGSL over `name`: drivers of GPUs unroll it, so that arrays that it indexes are registers
 * (written out, the scan took an H200 the same 47.8 us). Written out it would take a software adapter longer to compile.
 */
export function repeat(count: number, code: (i: string) => string, name = 'j'): string {
  return `for (var ${name} = 0u; ${name} < ${count}u; ${name}++) {
  ${code(name)}
}`
}
