/**
 * What the fused scan is measured against, as the paper's figure 8 has it: the same function by shaders that nobody made fast. They read the same
 * places of `activations` as the op.
 *
 *   sequential   a thread for each channel goes through all tokens; nothing is staged
 *   unfused      exp(dt · A) and dt · B · x are written out as (L, D, N), scanned there in place, and then multiplied by C
 */

import type { KernelContext } from '../../src/backend/webgpu/kernel.ts'
import { elementOf } from '../../src/backend/webgpu/kernels/elements.ts'
import { SILU } from '../../src/backend/webgpu/kernels/activation.ts'
import { SOFTPLUS } from '../../src/backend/webgpu/kernels/scan-math.ts'
import type { SelectiveScanOp, View } from '../../src/program/ops.ts'

/** Bindings: 2 A, 3 D, 4 dtBias, 5 state; of the unfused also 6 Ā and 7 B̄x, then h. */
export interface Baseline {
  readonly code: string
  readonly bindings: readonly Name[]
  readonly workgroups: (length: number) => readonly [number, number, number]
}

export type Name = 'A' | 'D' | 'dtBias' | 'state' | 'decays' | 'inputs'

const THREADS = 64

export function baselines(op: SelectiveScanOp, context: KernelContext): { sequential: readonly Baseline[]; unfused: readonly Baseline[] } {
  const [D, N] = [op.x.width, op.dState]
  const at = (view: View | null) => (view ? elementOf(context, view) : () => '1.0')
  const [x, dt, z, B, C, out] = [at(op.x), at(op.dt), at(op.z), at(op.B as View), at(op.C as View), at(op.out)]
  const declare = (names: readonly Name[]): string => names.map((name, i) => `@group(0) @binding(${2 + i}) var<storage, ${name === 'A' || name === 'D' || name === 'dtBias' ? 'read' : 'read_write'}> ${name}: array<f32>;`).join('\n')
  const kernel = (bindings: readonly Name[], body: string, workgroups: Baseline['workgroups']): Baseline => ({
    bindings, workgroups,
    code: `${SOFTPLUS}${SILU}${declare(bindings)}
@compute @workgroup_size(${THREADS})
fn main(@builtin(global_invocation_id) id: vec3u) {
${body}
}`
  })
  const sequential = kernel(['A', 'D', 'dtBias', 'state'], `
  let d = id.x;
  var h = array<f32, ${N}>();
  for (var n = 0u; n < ${N}u; n++) { h[n] = state[d * ${N}u + n]; }
  for (var t = 0u; t < nTokens(); t++) {
    let x = ${x('t', 'd')};
    let dt = softplus(${dt('t', 'd')} + dtBias[d]);
    var y = D[d] * x;
    for (var n = 0u; n < ${N}u; n++) {
      h[n] = exp(dt * A[d * ${N}u + n]) * h[n] + dt * x * ${B('t', 'n')};
      y += ${C('t', 'n')} * h[n];
    }
    ${out('t', 'd')} = y * silu(${z('t', 'd')});
  }
  for (var n = 0u; n < ${N}u; n++) { state[d * ${N}u + n] = h[n]; }`, () => [D / THREADS, 1, 1])
  const expand = kernel(['A', 'dtBias', 'decays', 'inputs'], `
  let d = id.x / ${N}u;
  let n = id.x % ${N}u;
  let t = id.y;
  let dt = softplus(${dt('t', 'd')} + dtBias[d]);
  let i = t * ${D * N}u + id.x;
  decays[i] = exp(dt * A[id.x]);
  inputs[i] = dt * ${x('t', 'd')} * ${B('t', 'n')};`, (length) => [(D * N) / THREADS, length, 1])
  // Eight tokens at a time, so that their loads do not wait for each other.
  const scan = kernel(['state', 'decays', 'inputs'], `
  var h = state[id.x];
  for (var t = 0u; t < nTokens(); t += 8u) {
    var a = array<f32, 8>();
    var b = array<f32, 8>();
    for (var j = 0u; j < 8u; j++) { a[j] = decays[(t + j) * ${D * N}u + id.x]; b[j] = inputs[(t + j) * ${D * N}u + id.x]; }
    for (var j = 0u; j < 8u; j++) { h = a[j] * h + b[j]; inputs[(t + j) * ${D * N}u + id.x] = h; }
  }
  state[id.x] = h;`, () => [(D * N) / THREADS, 1, 1])
  const contract = kernel(['D', 'inputs'], `
  let d = id.x;
  let t = id.y;
  var y = D[d] * ${x('t', 'd')};
  for (var n = 0u; n < ${N}u; n++) { y += ${C('t', 'n')} * inputs[t * ${D * N}u + d * ${N}u + n]; }
  ${out('t', 'd')} = y * silu(${z('t', 'd')});`, (length) => [D / THREADS, length, 1])
  return { sequential: [sequential], unfused: [expand, scan, contract] }
}
