/**
 * The Mamba block (Mamba, section 3.4): one simple block is the whole architecture. Falcon-Mamba has the same one, with an RMSNorm without
 * weights on dt, B and C each after x_proj.
 *
 *   residual ─► norm ─► in_proj ─┬─ x ─► conv1d, silu ─┬─► x_proj ─► dt, B, C ─┐
 *       │                        │                     └──────────────► selective scan ─► · silu(z) ─► out_proj ─┐
 *       │                        └─ z ───────────────────────────────────────────────────────┘                   │
 *       └───────────────────────────────────────────────────────────────────────────────────────────────────────(+)─►
 */

import { columns, type ProgramBuilder } from '../program/builder.ts'
import type { View } from '../program/ops.ts'
import { checkMambaLayers, type CommonConfig, type ConfigReader, type LayerNames, readCommonConfig, readOriginalCommonConfig } from './config.ts'

export interface Mamba1Config extends CommonConfig {
  readonly modelType: 'mamba' | 'falcon_mamba'
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
export function readMamba1Config(reader: ConfigReader): Mamba1Config {
  return { ...readBlockConfig(reader, 'mamba'), modelType: 'mamba', mixerNormEps: null }
}

/** transformers' `FalconMambaConfig`. */
export function readFalconMambaConfig(reader: ConfigReader): Mamba1Config {
  return { ...readBlockConfig(reader, 'falcon_mamba'), modelType: 'falcon_mamba', mixerNormEps: reader.positive('mixer_rms_eps', 1e-6) }
}

function readBlockConfig(reader: ConfigReader, modelType: string): Omit<Mamba1Config, 'modelType' | 'mixerNormEps'> {
  const common = readCommonConfig(reader, modelType)
  checkMambaLayers(reader, common)
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

/** The original repository's config: `MambaConfig` of mamba_ssm. */
export function readOriginalMamba1Config(reader: ConfigReader): Mamba1Config {
  const common = readOriginalCommonConfig(reader)
  const ssm = reader.nested('ssm_cfg')
  return {
    ...common,
    modelType: 'mamba',
    dInner: common.dModel * ssm.size('expand', { fallback: 2 }),
    dState: ssm.size('d_state', { fallback: 16 }),
    dConv: ssm.size('d_conv', { fallback: 4 }),
    dtRank: readDtRank(ssm, 'dt_rank', common.dModel),
    useBias: ssm.flag('bias', false),
    useConvBias: ssm.flag('conv_bias', true),
    mixerNormEps: null
  }
}

/** "auto" is dModel / 16, rounded up. */
function readDtRank(reader: ConfigReader, key: string, dModel: number): number {
  return reader.raw(key) === 'auto' || !reader.has(key) ? Math.ceil(dModel / 16) : reader.size(key)
}

/** residual += block(norm(residual)). */
export function addMamba1Block(builder: ProgramBuilder, config: Mamba1Config, residual: View, { prefix, hasTensor }: LayerNames): void {
  const { dModel, dInner, dState, dConv, dtRank, normEps, mixerNormEps } = config
  const weight = (name: string, ...shape: number[]) => builder.parameter(`${prefix}.${name}`, shape)
  const bias = (isUsed: boolean, name: string, size: number) => (isUsed ? weight(name, size) : null)

  const normed = builder.buffer('normed', dModel)
  builder.add({ kind: 'rmsNorm', x: residual, gate: null, weight: weight('norm.weight', dModel), eps: normEps, groupWidth: dModel, out: normed })

  const xz = builder.buffer('xz', 2 * dInner)
  const z = columns(xz, dInner, dInner)
  builder.add({
    kind: 'linear', x: normed, out: xz, accumulate: false,
    weight: weight('mixer.in_proj.weight', 2 * dInner, dModel), bias: bias(config.useBias, 'mixer.in_proj.bias', 2 * dInner)
  })

  const x = builder.buffer('x', dInner)
  builder.add({
    kind: 'conv1d', x: columns(xz, 0, dInner), out: x, activation: 'silu',
    weight: weight('mixer.conv1d.weight', dInner, 1, dConv), bias: bias(config.useConvBias, 'mixer.conv1d.bias', dInner),
    state: builder.state(`${prefix}.conv`, [dInner, dConv - 1])
  })

  const dtBC = builder.buffer('dtBC', dtRank + 2 * dState)
  builder.add({ kind: 'linear', x, weight: weight('mixer.x_proj.weight', dtRank + 2 * dState, dInner), bias: null, out: dtBC, accumulate: false })
  const [lowRankDt, B, C] = [columns(dtBC, 0, dtRank), columns(dtBC, dtRank, dState), columns(dtBC, dtRank + dState, dState)]
  if (mixerNormEps !== null) {
    for (const part of [lowRankDt, B, C]) {
      builder.add({ kind: 'rmsNorm', x: part, gate: null, weight: null, eps: mixerNormEps, groupWidth: part.width, out: part })
    }
  }

  // The bias of dt_proj belongs to the softplus, as in the reference's kernel.
  const dt = builder.buffer('dt', dInner)
  builder.add({
    kind: 'linear', x: lowRankDt, bias: null, out: dt, accumulate: false,
    weight: builder.parameter(`${prefix}.mixer.dt_proj.weight`, [dInner, dtRank], { isSensitive: true })
  })

  const y = builder.buffer('y', dInner)
  builder.add({
    kind: 'selectiveScan', x, dt, z, B, C, out: y, dState, dtSoftplus: true,
    // GGUF files have A itself.
    A: hasTensor(`${prefix}.mixer.A`)
      ? weight('mixer.A', dInner, dState)
      : builder.parameter(`${prefix}.mixer.A_log`, [dInner, dState], { transform: 'negExp' }),
    D: weight('mixer.D', dInner),
    dtBias: weight('mixer.dt_proj.bias', dInner),
    state: builder.state(`${prefix}.ssm`, [dInner, dState])
  })
  builder.add({
    kind: 'linear', x: y, out: residual, accumulate: true,
    weight: weight('mixer.out_proj.weight', dModel, dInner), bias: bias(config.useBias, 'mixer.out_proj.bias', dModel)
  })
}
