/**
 * Mixtures of experts: a router chooses the topK best of nExperts gated feed-forward blocks for each token, and their results are added with
 * the router's weights.
 */

import { CheckpointError, describe } from '../errors.ts'
import { columns } from '../program/builder.ts'
import type { Parameter, RouteOp, View } from '../program/ops.ts'
import type { ConfigReader } from './config-reader.ts'
import type { Scope, Target } from './scope.ts'

export interface ExpertsConfig {
  readonly nExperts: number
  /** Experts of a token. */
  readonly topK: number
  /** Width of an expert between its projections. */
  readonly dHidden: number
  /** Which experts' weights sum to 1: those of the chosen ones, or all. */
  readonly softmaxOver: RouteOp['softmaxOver']
}

/** `num_experts_per_tok`, which is at most the number of experts that `key` says. */
export function readTopK(reader: ConfigReader, { key, nExperts }: { readonly key: string; readonly nExperts: number }): number {
  const topK = reader.size('num_experts_per_tok', { fallback: 2, limit: 'choices' })
  if (topK <= nExperts) return topK
  throw new CheckpointError({ place: `${reader.place}: num_experts_per_tok`, expected: `at most ${nExperts}, as ${key} says`, got: describe(topK) })
}

/**
 * The tensors' names: of all experts in one (nExperts, nOut, nIn), gate's rows before up's or apart as GGUF files have them, or of each
 * expert by itself.
 */
export type ExpertNames = { readonly router: string } & (
  | { readonly gateUp: string; readonly down: string }
  | { readonly gate: string; readonly up: string; readonly down: string }
  | { readonly each: (expert: number) => { readonly gate: string; readonly up: string; readonly down: string } }
)

export function addExperts(scope: Scope, config: ExpertsConfig, { names, x, target }: { readonly names: ExpertNames; readonly x: View; readonly target: Target }): void {
  const { builder } = scope
  const { nExperts, topK, dHidden, softmaxOver } = config
  const dModel = x.width
  const scores = builder.buffer('expertScores', nExperts)
  const choices = builder.buffer('expertChoices', 2 * topK)
  // A rounded router chooses other experts.
  scope.linear(names.router, { x, out: scores, isSensitive: true })
  builder.add({ kind: 'route', x: scores, topK, softmaxOver, out: choices })

  const expertLinear = (from: View, isPerChoice: boolean, weights: readonly Parameter[], out: View): void =>
    builder.add({ kind: 'expertLinear', x: from, isPerChoice, choices, topK, nExperts, weights, out })
  const hidden = builder.buffer('expertHidden', topK * dHidden)
  const result = builder.buffer('expertOut', topK * dModel)
  const stack = (name: string, nOut: number, nIn: number): readonly Parameter[] => [scope.weight(name, [nExperts, nOut, nIn])]
  if ('gateUp' in names) {
    const gateUp = builder.buffer('expertGateUp', topK * 2 * dHidden)
    expertLinear(x, false, stack(names.gateUp, 2 * dHidden, dModel), gateUp)
    for (let j = 0; j < topK; j++) {
      const gate = columns(gateUp, 2 * j * dHidden, dHidden)
      builder.add({ kind: 'activation', x: gate, by: columns(gate, dHidden, dHidden), function: 'silu', out: columns(hidden, j * dHidden, dHidden) })
    }
    expertLinear(hidden, true, stack(names.down, dModel, dHidden), result)
  } else {
    const weights = (part: 'gate' | 'up' | 'down', nOut: number, nIn: number): readonly Parameter[] =>
      'each' in names ? Array.from({ length: nExperts }, (_, expert) => scope.weight(names.each(expert)[part], [nOut, nIn])) : stack(names[part], nOut, nIn)
    const up = builder.buffer('expertUp', topK * dHidden)
    expertLinear(x, false, weights('gate', dHidden, dModel), hidden)
    expertLinear(x, false, weights('up', dHidden, dModel), up)
    builder.add({ kind: 'activation', x: hidden, by: up, function: 'silu', out: hidden })
    expertLinear(hidden, true, weights('down', dModel, dHidden), result)
  }
  builder.add({ kind: 'mixExperts', x: result, choices, topK, accumulate: target.accumulate ?? false, out: target.out })
}
