/**
 * The Mamba block (Mamba, section 3.4): one simple block is the whole architecture. Falcon-Mamba has the same one, with an RMSNorm without
 * weights on dt, B and C each after x_proj; Jamba has its mixer (all but the first norm), with weights on those three norms.
 *
 *   residual ─► norm ─► in_proj ─┬─ x ─► conv1d, silu ─┬─► x_proj ─► dt, B, C ─┐
 *       │                        │                     └──────────────► selective scan ─► · silu(z) ─► out_proj ─┐
 *       │                        └─ z ───────────────────────────────────────────────────────┘                   │
 *       └───────────────────────────────────────────────────────────────────────────────────────────────────────(+)─►
 */

import { columns } from '../program/builder.ts'
import type { View } from '../program/ops.ts'
import { type Architecture, BACKBONE } from './architecture.ts'
import { type CommonConfig, pureDefaults, readCommonConfig } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import { addBranch, addNormed, type Scope, type Target } from './scope.ts'

/** Mamba-1, and Falcon-Mamba with its norms on dt, B and C. */
export interface Mamba1Config extends CommonConfig, Mamba1MixerConfig {
  readonly modelType: 'mamba' | 'falcon_mamba'
}

/** Of a Mamba-1 layer. */
export interface Mamba1MixerConfig {
  readonly dInner: number
  readonly dState: number
  readonly dConv: number
  readonly dtRank: number
  /** Biases on in_proj and out_proj. */
  readonly useBias: boolean
  readonly useConvBias: boolean
  /** Of the norms on dt, B and C; null: none. */
  readonly mixerNormEps: number | null
}

/** transformers' `MambaConfig`. */
function readMamba1Config(reader: ConfigReader): Mamba1Config {
  return { ...readBlockConfig(reader), modelType: 'mamba', mixerNormEps: null }
}

/** transformers' `FalconMambaConfig`. */
function readFalconMambaConfig(reader: ConfigReader): Mamba1Config {
  return { ...readBlockConfig(reader), modelType: 'falcon_mamba', mixerNormEps: reader.positive('mixer_rms_eps', 1e-6) }
}

function readBlockConfig(reader: ConfigReader): Omit<Mamba1Config, 'modelType' | 'mixerNormEps'> {
  const common = readCommonConfig(reader, pureDefaults({ tieEmbeddings: true }))
  reader.only('hidden_act', 'silu')
  return {
    ...common,
    dInner: reader.size('intermediate_size', { fallback: common.dModel * reader.size('expand', { fallback: 2 }) }),
    dState: reader.size('state_size', { fallback: 16 }),
    dConv: reader.size('conv_kernel', { fallback: 4 }),
    dtRank: readDtRank(reader, 'time_step_rank', common.dModel),
    useBias: reader.flag('use_bias', false),
    useConvBias: reader.flag('use_conv_bias', true)
  }
}

/** "auto" is dModel / 16, rounded up. */
export function readDtRank(reader: ConfigReader, key: string, dModel: number): number {
  return reader.raw(key) === 'auto' || !reader.has(key) ? Math.ceil(dModel / 16) : reader.size(key)
}

/** residual += mixer(norm(residual)). */
function addMamba1Block(layers: Scope, config: Mamba1Config, residual: View, index: number): void {
  const scope = layers.below(`${index}`)
  const x = addNormed(scope, 'norm', residual, config.normEps)
  addBranch(scope, residual, 1, (target) => addMamba1Mixer(scope.below('mixer'), config, { x, target }))
}

export const mamba: Architecture<Mamba1Config> = { frame: BACKBONE, readConfig: readMamba1Config, addLayer: addMamba1Block }

export const falconMamba: Architecture<Mamba1Config> = { frame: BACKBONE, readConfig: readFalconMambaConfig, addLayer: addMamba1Block }

interface Mamba1Options {
  /** (rows, dModel) */
  readonly x: View
  readonly target: Target
  /** Weights of the norms on dt, B and C, by their tensors' names. */
  readonly partNorms?: readonly [dt: string, B: string, C: string]
}

/** Everything between the norm and the residual. */
export function addMamba1Mixer(scope: Scope, config: Mamba1MixerConfig, { x: input, target, partNorms }: Mamba1Options): void {
  const { builder, prefix } = scope
  const { dInner, dState, dConv, dtRank, mixerNormEps, useBias, useConvBias } = config

  const xz = builder.buffer('xz', 2 * dInner)
  const z = columns(xz, dInner, dInner)
  scope.linear('in_proj', { x: input, out: xz, useBias })

  const x = builder.buffer('x', dInner)
  builder.add({
    kind: 'conv1d', x: columns(xz, 0, dInner), out: x, activation: 'silu',
    weight: scope.weight('conv1d.weight', [dInner, 1, dConv]), bias: useConvBias ? scope.weight('conv1d.bias', [dInner]) : null,
    state: builder.state(`${prefix}.conv`, [dInner, dConv - 1])
  })

  const dtBC = builder.buffer('dtBC', dtRank + 2 * dState)
  scope.linear('x_proj', { x, out: dtBC })
  const parts = [columns(dtBC, 0, dtRank), columns(dtBC, dtRank, dState), columns(dtBC, dtRank + dState, dState)]
  const [lowRankDt, B, C] = parts
  if (mixerNormEps !== null) {
    parts.forEach((part, i) => {
      const weight = partNorms ? scope.weight(`${partNorms[i]}.weight`, [part.width]) : null
      builder.add({ kind: 'rmsNorm', x: part, gate: null, weight, eps: mixerNormEps, groupWidth: part.width, out: part })
    })
  }

  // The bias of dt_proj belongs to the softplus, as in the reference's kernel.
  const dt = builder.buffer('dt', dInner)
  scope.linear('dt_proj', { x: lowRankDt, out: dt, isSensitive: true })

  const y = builder.buffer('y', dInner)
  builder.add({
    kind: 'selectiveScan', x, dt, z, B, C, out: y, dState, dtSoftplus: true,
    // GGUF files have A itself.
    A: scope.has('A') ? scope.weight('A', [dInner, dState]) : scope.weight('A_log', [dInner, dState], { transform: 'negExp' }),
    D: scope.weight('D', [dInner]),
    dtBias: scope.weight('dt_proj.bias', [dInner]),
    state: builder.state(`${prefix}.ssm`, [dInner, dState])
  })
  scope.linear('out_proj', { x: y, ...target, useBias })
}
