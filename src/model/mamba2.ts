/**
 * The Mamba-2 block (Dao & Gu, section 7): one A for each head, B and C shared by the heads of a group and made beside x, not from it.
 *
 *   residual ─► norm ─► in_proj ─┬─ x, B, C ─► conv1d, silu ─► state space ─► · silu(z), norm ─► out_proj ─┐
 *       │                        ├─ dt ────────────────────────────┘                │                      │
 *       │                        └─ z ──────────────────────────────────────────────┘                      │
 *       └─────────────────────────────────────────────────────────────────────────────────────────────────(+)─►
 */

import { isJsonObject, type JsonValue } from '../checkpoint/json.ts'
import { CheckpointError, describe, messageOf } from '../errors.ts'
import { columns, type ProgramBuilder } from '../program/builder.ts'
import type { View } from '../program/ops.ts'
import { checkMambaLayers, type CommonConfig, type ConfigReader, type LayerNames, readCommonConfig, readOriginalCommonConfig } from './config.ts'

export interface Mamba2Config extends CommonConfig {
  readonly modelType: 'mamba2'
  /** nHeads · headDim */
  readonly dInner: number
  readonly nHeads: number
  readonly headDim: number
  readonly dState: number
  /** Groups of heads that share B and C. */
  readonly nGroups: number
  readonly dConv: number
  /** Least and largest dt, after the softplus. */
  readonly dtLimit: readonly [number, number]
  /** Biases on in_proj and out_proj. */
  readonly useBias: boolean
  readonly useConvBias: boolean
  /** Parts of dInner that the gated norm takes by themselves. */
  readonly normGroups: number
  /** Of the gated norm. */
  readonly gatedNormEps: number
}

/**
 * transformers' `Mamba2Config`. Its model takes no notice of `rms_norm` and `norm_before_gate` (which Codestral-Mamba's config has as true):
 * the gate comes first, then the norm, over the whole width whatever the groups.
 */
export function readMamba2Config(reader: ConfigReader): Mamba2Config {
  const common = readCommonConfig(reader, 'mamba2', { tieEmbeddings: false })
  checkMambaLayers(reader, common)
  reader.only('hidden_act', 'silu')
  const headDim = reader.size('head_dim', { fallback: 64 })
  const nHeads = reader.size('num_heads', { fallback: 128 })
  const expand = reader.size('expand', { fallback: 2 })
  const dInner = common.dModel * expand
  agree(reader, 'num_heads', nHeads, { key: 'expand', expected: dInner / headDim })
  if (reader.has('intermediate_size')) agree(reader, 'intermediate_size', reader.size('intermediate_size'), { key: 'expand', expected: dInner })
  const nGroups = reader.size('n_groups', { fallback: 8 })
  checkGroups(reader, 'n_groups', nGroups, nHeads)
  return {
    ...common,
    modelType: 'mamba2', dInner, nHeads, headDim, nGroups,
    dState: reader.size('state_size', { fallback: 128 }),
    dConv: reader.size('conv_kernel', { fallback: 4 }),
    dtLimit: readLimits(reader, 'time_step_limit'),
    useBias: reader.flag('use_bias', false),
    useConvBias: reader.flag('use_conv_bias', true),
    normGroups: readNormGroups(reader, dInner),
    gatedNormEps: common.normEps
  }
}

/** A key of our own, which a GGUF file's config has: llama.cpp normalises each group by itself. */
function readNormGroups(reader: ConfigReader, dInner: number): number {
  const normGroups = reader.size('norm_groups', { fallback: 1 })
  if (dInner % normGroups === 0) return normGroups
  throw new CheckpointError({ place: `${reader.place}: norm_groups`, expected: `a divisor of the inner width ${dInner}`, got: describe(normGroups) })
}

/** The original repository's config with `ssm_cfg.layer` "Mamba2": `Mamba2` of mamba_ssm, whose gated norm is of each group by itself. */
export function readOriginalMamba2Config(reader: ConfigReader): Mamba2Config {
  const common = readOriginalCommonConfig(reader)
  const ssm = reader.nested('ssm_cfg')
  const headDim = ssm.size('headdim', { fallback: 64 })
  const dInner = common.dModel * ssm.size('expand', { fallback: 2 })
  const nGroups = ssm.size('ngroups', { fallback: 1 })
  const nHeads = Math.floor(dInner / headDim)
  agree(ssm, 'headdim', headDim, { key: 'expand', expected: dInner / nHeads })
  checkGroups(ssm, 'ngroups', nGroups, nHeads)
  ssm.only('rmsnorm', true)
  ssm.only('norm_before_gate', false)
  ssm.only('D_has_hdim', false)
  ssm.only('d_ssm', dInner)
  return {
    ...common,
    modelType: 'mamba2', dInner, nHeads, headDim, nGroups,
    dState: ssm.size('d_state', { fallback: 128 }),
    dConv: ssm.size('d_conv', { fallback: 4 }),
    dtLimit: readLimits(ssm, 'dt_limit'),
    useBias: ssm.flag('bias', false),
    useConvBias: ssm.flag('conv_bias', true),
    normGroups: nGroups,
    gatedNormEps: 1e-5
  }
}

/** The gated norm of `normGroups` parts of the inner width. RangeError where they do not divide it. */
export function withNormGroups(config: Mamba2Config, normGroups: number): Mamba2Config {
  if (config.dInner % normGroups === 0) return { ...config, normGroups }
  throw new RangeError(messageOf({ place: 'normGroups', expected: `a divisor of the inner width ${config.dInner}`, got: describe(normGroups) }))
}

/** Two keys that say the same. */
function agree({ place }: ConfigReader, key: string, value: number, other: { readonly key: string; readonly expected: number }): void {
  if (value === other.expected) return
  throw new CheckpointError({ place: `${place}: ${key}`, expected: `${other.expected}, which ${other.key} makes it`, got: describe(value) })
}

function checkGroups({ place }: ConfigReader, key: string, nGroups: number, nHeads: number): void {
  if (nHeads % nGroups === 0) return
  throw new CheckpointError({ place: `${place}: ${key}`, expected: `a divisor of the number of heads ${nHeads}`, got: describe(nGroups) })
}

/** [least, largest]; infinity as a number, or as newer versions of transformers write it. */
function readLimits(reader: ConfigReader, key: string): readonly [number, number] {
  if (!reader.has(key)) return [0, Infinity]
  const value = reader.raw(key)
  const [least, largest, ...others] = Array.isArray(value) ? value.map(numberOf) : []
  if (least === undefined || largest === undefined || others.length > 0 || !(least >= 0 && least <= largest && least < Infinity)) {
    throw new CheckpointError({ place: `${reader.place}: ${key}`, expected: 'two numbers from 0 to infinity, the smaller one first', got: describe(value) })
  }
  return [least, largest]
}

/** NaN where it is none. */
function numberOf(value: JsonValue): number {
  if (typeof value === 'number') return value
  return isJsonObject(value) && value['__float__'] === 'Infinity' ? Infinity : NaN
}

/** residual += block(norm(residual)). */
export function addMamba2Block(builder: ProgramBuilder, config: Mamba2Config, residual: View, { prefix, hasTensor }: LayerNames): void {
  const { dModel, dInner, nHeads, dState, dConv, normEps } = config
  const weight = (name: string, ...shape: number[]) => builder.parameter(`${prefix}.${name}`, shape)
  const bias = (isUsed: boolean, name: string, size: number) => (isUsed ? weight(name, size) : null)
  const groupWidth = config.nGroups * dState
  const convWidth = dInner + 2 * groupWidth
  const inputWidth = dInner + convWidth + nHeads

  const normed = builder.buffer('normed', dModel)
  builder.add({ kind: 'rmsNorm', x: residual, gate: null, weight: weight('norm.weight', dModel), eps: normEps, groupWidth: dModel, out: normed })

  const zxBCdt = builder.buffer('zxBCdt', inputWidth)
  builder.add({
    kind: 'linear', x: normed, out: zxBCdt, accumulate: false,
    weight: weight('mixer.in_proj.weight', inputWidth, dModel), bias: bias(config.useBias, 'mixer.in_proj.bias', inputWidth)
  })

  const xBC = builder.buffer('xBC', convWidth)
  builder.add({
    kind: 'conv1d', x: columns(zxBCdt, dInner, convWidth), out: xBC, activation: 'silu',
    weight: weight('mixer.conv1d.weight', convWidth, 1, dConv), bias: bias(config.useConvBias, 'mixer.conv1d.bias', convWidth),
    state: builder.state(`${prefix}.conv`, [convWidth, dConv - 1])
  })

  const y = builder.buffer('y', dInner)
  builder.add({
    kind: 'ssdScan', out: y, dState, dtLimit: config.dtLimit,
    x: columns(xBC, 0, dInner),
    dt: columns(zxBCdt, dInner + convWidth, nHeads),
    // GGUF files have A itself.
    A: hasTensor(`${prefix}.mixer.A`) ? weight('mixer.A', nHeads) : builder.parameter(`${prefix}.mixer.A_log`, [nHeads], { transform: 'negExp' }),
    B: columns(xBC, dInner, groupWidth),
    C: columns(xBC, dInner + groupWidth, groupWidth),
    D: weight('mixer.D', nHeads),
    dtBias: weight('mixer.dt_bias', nHeads),
    state: builder.state(`${prefix}.ssm`, [nHeads, config.headDim, dState])
  })
  builder.add({
    kind: 'rmsNorm', x: y, gate: columns(zxBCdt, 0, dInner), weight: weight('mixer.norm.weight', dInner), eps: config.gatedNormEps,
    groupWidth: dInner / config.normGroups, out: y
  })
  builder.add({
    kind: 'linear', x: y, out: residual, accumulate: true,
    weight: weight('mixer.out_proj.weight', dModel, dInner), bias: bias(config.useBias, 'mixer.out_proj.bias', dModel)
  })
}
