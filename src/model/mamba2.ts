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
import { columns } from '../program/builder.ts'
import type { View } from '../program/ops.ts'
import { type Architecture, BACKBONE } from './architecture.ts'
import { agree, type CommonConfig, pureDefaults, readCommonConfig } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import { addBranch, addNormed, type Scope, scaled, scaleInPlace, type Target } from './scope.ts'

/** Mamba-2. */
export interface Mamba2Config extends CommonConfig, Mamba2MixerConfig {
  readonly modelType: 'mamba2'
}

/** Of a Mamba-2 layer. */
export interface Mamba2MixerConfig {
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
  /** Of the gated norm; null: a gate without a norm. */
  readonly gatedNormEps: number | null
}

/**
 * transformers' `Mamba2Config`. Its model takes no notice of `rms_norm` and `norm_before_gate` (which Codestral-Mamba's config has as true):
 * the gate comes first, then the norm, over the whole width whatever the groups.
 */
function readMamba2Config(reader: ConfigReader): Mamba2Config {
  const common = readCommonConfig(reader, pureDefaults({ tieEmbeddings: false }))
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
    normGroups: readNormGroups(reader, dInner, 1),
    gatedNormEps: common.normEps
  }
}

/** A key of our own, which a GGUF file's config has: llama.cpp normalises each group by itself. */
export function readNormGroups(reader: ConfigReader, dInner: number, fallback: number): number {
  const normGroups = reader.size('norm_groups', { fallback })
  if (dInner % normGroups === 0) return normGroups
  throw new CheckpointError({ place: `${reader.place}: norm_groups`, expected: `a divisor of the inner width ${dInner}`, got: describe(normGroups) })
}

/** The gated norm of `normGroups` parts of the inner width. RangeError where they do not divide it. */
function withNormGroups<C extends Mamba2MixerConfig>(config: C, normGroups: number): C {
  if (config.dInner % normGroups === 0) return { ...config, normGroups }
  throw new RangeError(messageOf({ place: 'normGroups', expected: `a divisor of the inner width ${config.dInner}`, got: describe(normGroups) }))
}

/** The same of a hybrid's mixer; null where it has no norm. */
export function withMixerNormGroups<C extends { readonly mamba: Mamba2MixerConfig }>(config: C, normGroups: number): C | null {
  return config.mamba.gatedNormEps === null ? null : { ...config, mamba: withNormGroups(config.mamba, normGroups) }
}

export function checkGroups({ place }: ConfigReader, key: string, nGroups: number, nHeads: number): void {
  if (nHeads % nGroups === 0) return
  throw new CheckpointError({ place: `${place}: ${key}`, expected: `a divisor of the number of heads ${nHeads}`, got: describe(nGroups) })
}

/** [least, largest]; infinity as a number, or as newer versions of transformers write it. */
export function readLimits(reader: ConfigReader, key: string): readonly [number, number] {
  if (!reader.has(key)) return [0, Infinity]
  const value = reader.raw(key)
  const [least, largest, ...others] = Array.isArray(value) ? value.map(numberOf) : []
  if (least === undefined || largest === undefined || others.length > 0 || !(least >= 0 && least <= largest && least < Infinity)) {
    throw new CheckpointError({ place: `${reader.place}: ${key}`, expected: 'two numbers from 0 to infinity, the smaller one first', got: describe(value) })
  }
  return [least, largest]
}

/**
 * The limits of Zamba2's mixer, which Nemotron-H has too. transformers' path for CPUs raises dt to `time_step_min` (its other use is to draw the
 * first weights), the fused kernels and llama.cpp do not: the goldens are of the former. `time_step_min` 0 gives the latter.
 */
export function readFlooredLimits(reader: ConfigReader, keys: { readonly limit: string; readonly least: string }): readonly [number, number] {
  const [least, largest] = readLimits(reader, keys.limit)
  const floor = reader.number(keys.least, 0.001)
  if (floor >= 0 && floor <= largest) return [Math.max(least, floor), largest]
  throw new CheckpointError({ place: `${reader.place}: ${keys.least}`, expected: `a number from 0 to ${largest}, the end of ${keys.limit}`, got: describe(floor) })
}

/** NaN where it is none. */
function numberOf(value: JsonValue): number {
  if (typeof value === 'number') return value
  return isJsonObject(value) && value['__float__'] === 'Infinity' ? Infinity : NaN
}

/** residual += mixer(norm(residual)). */
function addMamba2Block(layers: Scope, config: Mamba2Config, residual: View, index: number): void {
  const scope = layers.below(`${index}`)
  const x = addNormed(scope, 'norm', residual, config.normEps)
  addBranch(scope, residual, 1, (target) => addMamba2Mixer(scope.below('mixer'), config, { x, target }))
}

export const mamba2: Architecture<Mamba2Config> = {
  frame: BACKBONE,
  readConfig: readMamba2Config,
  addLayer: addMamba2Block,
  withNormGroups
}

/** Falcon-H1's factors of in_proj's input and of its output's parts. */
export interface Mamba2Multipliers {
  readonly input: number
  readonly z: number
  readonly x: number
  readonly B: number
  readonly C: number
  readonly dt: number
}

interface Mamba2Options {
  /** (rows, dModel) */
  readonly x: View
  readonly target: Target
  /** A bias on out_proj, where it is not as on in_proj. */
  readonly useOutBias?: boolean
  readonly multipliers?: Mamba2Multipliers
}

/** Everything between the norm and the residual. */
export function addMamba2Mixer(scope: Scope, config: Mamba2MixerConfig, { x, target, useOutBias = config.useBias, multipliers }: Mamba2Options): void {
  const { builder, prefix } = scope
  const { dInner, nHeads, dState, dConv, gatedNormEps } = config
  const groupWidth = config.nGroups * dState
  const convWidth = dInner + 2 * groupWidth

  const zxBCdt = builder.buffer('zxBCdt', dInner + convWidth + nHeads)
  const z = columns(zxBCdt, 0, dInner)
  const rawDt = columns(zxBCdt, dInner + convWidth, nHeads)
  scope.linear('in_proj', { x: scaled(scope, x, multipliers?.input ?? 1), out: zxBCdt, useBias: config.useBias })
  if (multipliers) {
    scaleInPlace(scope, z, multipliers.z)
    scaleInPlace(scope, columns(zxBCdt, dInner, dInner), multipliers.x)
    scaleInPlace(scope, columns(zxBCdt, 2 * dInner, groupWidth), multipliers.B)
    scaleInPlace(scope, columns(zxBCdt, 2 * dInner + groupWidth, groupWidth), multipliers.C)
    scaleInPlace(scope, rawDt, multipliers.dt)
  }

  const xBC = builder.buffer('xBC', convWidth)
  builder.add({
    kind: 'conv1d', x: columns(zxBCdt, dInner, convWidth), out: xBC, activation: 'silu',
    weight: scope.weight('conv1d.weight', [convWidth, 1, dConv]), bias: config.useConvBias ? scope.weight('conv1d.bias', [convWidth]) : null,
    state: builder.state(`${prefix}.conv`, [convWidth, dConv - 1])
  })

  const y = builder.buffer('y', dInner)
  builder.add({
    kind: 'ssdScan', out: y, dState, dtLimit: config.dtLimit,
    x: columns(xBC, 0, dInner),
    dt: rawDt,
    // GGUF files have A itself.
    A: scope.has('A') ? scope.weight('A', [nHeads]) : scope.weight('A_log', [nHeads], { transform: 'negExp' }),
    B: columns(xBC, dInner, groupWidth),
    C: columns(xBC, dInner + groupWidth, groupWidth),
    D: scope.weight('D', [nHeads]),
    dtBias: scope.weight('dt_bias', [nHeads]),
    state: builder.state(`${prefix}.ssm`, [nHeads, config.headDim, dState])
  })
  if (gatedNormEps === null) {
    builder.add({ kind: 'activation', x: z, by: y, function: 'silu', out: y })
  } else {
    builder.add({ kind: 'rmsNorm', x: y, gate: z, weight: scope.weight('norm.weight', [dInner]), eps: gatedNormEps, groupWidth: dInner / config.normGroups, out: y })
  }
  scope.linear('out_proj', { x: y, ...target, useBias: useOutBias })
}
