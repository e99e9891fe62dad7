/**
 * Feed-forward blocks, f the activation:
 *
 *   gated (SwiGLU and its kin):  x ─┬─ gate ─► f ─┐
 *                                   └─ up ──────► · ─► down        plain:  x ─► up ─► f ─► down
 */

import { columns } from '../program/builder.ts'
import type { ActivationFunction, View } from '../program/ops.ts'
import { addAdapter, type Scope, scaleInPlace, type Target } from './scope.ts'

/** Of a feed-forward block. */
export interface MlpConfig {
  /** Width between the projections. */
  readonly dHidden: number
  readonly activation: ActivationFunction
  readonly useBias: boolean
}

/** The projections' names: gate and up apart, as one matrix (gate's rows first), or no gate. */
export type MlpNames = { readonly gate: string; readonly up: string; readonly down: string } | { readonly gateUp: string; readonly down: string } | { readonly up: string; readonly down: string }

/** As most checkpoints have them. */
export const GATED_NAMES = { gate: 'gate_proj', up: 'up_proj', down: 'down_proj' }
export const PLAIN_NAMES = { up: 'up_proj', down: 'down_proj' }

interface MlpOptions {
  readonly names: MlpNames
  readonly x: View
  readonly target: Target
  /** Of the gate's projection, before the activation. */
  readonly gateMultiplier?: number
  /** An adapter on `gateUp`. */
  readonly adapter?: { readonly name: string; readonly rank: number }
}

export function addMlp(scope: Scope, { dHidden, activation, useBias }: MlpConfig, { names, x, target, gateMultiplier = 1, adapter }: MlpOptions): void {
  const { builder } = scope
  const hidden = builder.buffer('hidden', dHidden)
  if ('gateUp' in names) {
    const gateUp = builder.buffer('gateUp', 2 * dHidden)
    scope.linear(names.gateUp, { x, out: gateUp, useBias })
    if (adapter) addAdapter(scope, adapter.name, { x, out: gateUp, rank: adapter.rank })
    builder.add({ kind: 'activation', x: columns(gateUp, 0, dHidden), by: columns(gateUp, dHidden, dHidden), function: activation, out: hidden })
  } else {
    const up = builder.buffer('up', dHidden)
    scope.linear(names.up, { x, out: up, useBias })
    if ('gate' in names) {
      scope.linear(names.gate, { x, out: hidden, useBias })
      scaleInPlace(scope, hidden, gateMultiplier)
      builder.add({ kind: 'activation', x: hidden, by: up, function: activation, out: hidden })
    } else {
      builder.add({ kind: 'activation', x: up, by: null, function: activation, out: hidden })
    }
  }
  scope.linear(names.down, { x: hidden, ...target, useBias })
}
