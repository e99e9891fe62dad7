/** What blocks are written with: tensors by their names below a prefix, the ops that all of them have, and where a block's result goes. */

import type { ProgramBuilder } from '../program/builder.ts'
import type { Parameter, View } from '../program/ops.ts'

export interface Scope {
  readonly builder: ProgramBuilder
  /** Where the names start, e.g. `model.layers.3.mamba`. */
  readonly prefix: string
  below(part: string): Scope
  /** Whether the checkpoint has this tensor. */
  has(name: string): boolean
  /** `isSensitive`: see Parameter. */
  weight(name: string, shape: readonly number[], options?: Partial<Parameter>): Parameter
  /** out = weight · x + bias, of the tensors `name.weight` and, with `useBias`, `name.bias`. */
  linear(name: string, options: Target & { readonly x: View; readonly useBias?: boolean; readonly isSensitive?: boolean }): void
  /** out = RMSNorm(x) with the tensor `name.weight`. */
  norm(name: string, options: { readonly x: View; readonly out: View; readonly eps: number }): void
}

/** Where a result goes: into `out`, or added to it. */
export interface Target {
  readonly out: View
  readonly accumulate?: boolean
}

export function createScope(builder: ProgramBuilder, prefix: string, hasTensor: (name: string) => boolean): Scope {
  const weight: Scope['weight'] = (name, shape, options) => builder.parameter(`${prefix}.${name}`, shape, options)
  return {
    builder,
    prefix,
    below: (part) => createScope(builder, `${prefix}.${part}`, hasTensor),
    has: (name) => hasTensor(`${prefix}.${name}`),
    weight,
    linear(name, { x, out, accumulate = false, useBias = false, isSensitive = false }) {
      builder.add({
        kind: 'linear', x, out, accumulate,
        weight: weight(`${name}.weight`, [out.width, x.width], { isSensitive }), bias: useBias ? weight(`${name}.bias`, [out.width]) : null
      })
    },
    norm(name, { x, out, eps }) {
      builder.add({ kind: 'rmsNorm', x, gate: null, weight: weight(`${name}.weight`, [x.width]), eps, groupWidth: x.width, out })
    }
  }
}

/** out = norm(residual) of tensor `name.weight`, in the buffer that all blocks read from. */
export function addNormed(scope: Scope, name: string, residual: View, eps: number): View {
  const normed = scope.builder.buffer('normed', residual.width)
  scope.norm(name, { x: residual, out: normed, eps })
  return normed
}

/** residual += multiplier · what `write` makes; without a multiplier that is added where it is made. */
export function addBranch({ builder }: Pick<Scope, 'builder'>, residual: View, multiplier: number, write: (target: Target) => void): void {
  if (multiplier === 1) {
    write({ out: residual, accumulate: true })
    return
  }
  const branch = builder.buffer('branch', residual.width)
  write({ out: branch })
  builder.add({ kind: 'scaledAdd', x: branch, factor: multiplier, accumulate: true, out: residual })
}

/** multiplier · x: x itself where the multiplier is 1. */
export function scaled({ builder }: Pick<Scope, 'builder'>, x: View, multiplier: number): View {
  if (multiplier === 1) return x
  const out = builder.buffer('scaled', x.width)
  builder.add({ kind: 'scaledAdd', x, factor: multiplier, accumulate: false, out })
  return out
}

/** x *= multiplier. */
export function scaleInPlace({ builder }: Pick<Scope, 'builder'>, x: View, multiplier: number): void {
  if (multiplier !== 1) builder.add({ kind: 'scaledAdd', x, factor: multiplier, accumulate: false, out: x })
}

/** out += B · A · x, with A and B the tensors `name.0.weight` and `name.1.weight`: an adapter (LoRA). */
export function addAdapter(scope: Scope, name: string, { x, out, rank }: { readonly x: View; readonly out: View; readonly rank: number }): void {
  const adapted = scope.builder.buffer('adapted', rank)
  scope.linear(`${name}.0`, { x, out: adapted })
  scope.linear(`${name}.1`, { x: adapted, out, accumulate: true })
}
