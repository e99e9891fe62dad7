/**
 * A model as a program: a flat list of coarse ops on symbolic buffers, parameters and states.
 * `model/` writes it, every backend runs it. Nothing here knows about memory or about an architecture.
 */

/** What an op's rows are: one for each token of the batch, or one for each token whose logits are asked for. */
export type RowSpace = 'token' | 'logit'

/** An activation (rows, width), f32. */
export interface ActivationBuffer {
  readonly id: number
  readonly name: string
  readonly width: number
  readonly rows: RowSpace
}

/** Columns [offset, offset + width) of a buffer. */
export interface View {
  readonly buffer: ActivationBuffer
  readonly offset: number
  readonly width: number
}

/** A tensor of the checkpoint, by its name there. */
export interface Parameter {
  readonly id: number
  readonly name: string
  readonly shape: readonly number[]
  /** What the program wants of it: the tensor itself, or -exp(tensor), as A is stored as A_log. */
  readonly transform: 'none' | 'negExp'
  /** Never rounded further than the file has it: what it decides is worth more than its few bytes. */
  readonly isSensitive: boolean
}

/** A part of a sequence's state, f32, row-major: the canonical form that is saved and moved. */
export interface StatePart {
  readonly name: string
  readonly shape: readonly number[]
  /** First element in the canonical state. */
  readonly offset: number
}

/** out[row] = weight[token of row]; weight (vocabSize, out.width). */
export interface EmbedOp {
  readonly kind: 'embed'
  readonly weight: Parameter
  readonly out: View
}

/** out[i] = x[the i-th row whose logits are asked for]. */
export interface GatherRowsOp {
  readonly kind: 'gatherRows'
  readonly x: View
  readonly out: View
}

/**
 * out = x / sqrt(mean(x²) + eps) · weight, the mean over each group of groupWidth columns; weight (width).
 * With a gate, x · silu(gate) stands for x: Mamba-2's norm (`RMSNormGated` of state-spaces/mamba, norm_before_gate false).
 */
export interface RmsNormOp {
  readonly kind: 'rmsNorm'
  readonly x: View
  readonly gate: View | null
  readonly weight: Parameter | null
  readonly eps: number
  /** Columns with a mean of their own; they divide x.width. */
  readonly groupWidth: number
  readonly out: View
}

/** out = weight · x + bias, or added to out where it accumulates; weight (out.width, x.width), bias (out.width). */
export interface LinearOp {
  readonly kind: 'linear'
  readonly x: View
  readonly weight: Parameter
  readonly bias: Parameter | null
  readonly out: View
  readonly accumulate: boolean
}

/** Causal depthwise convolution and silu; weight (width, 1, dConv), bias (width), state (width, dConv − 1). */
export interface Conv1dOp {
  readonly kind: 'conv1d'
  readonly x: View
  readonly weight: Parameter
  readonly bias: Parameter | null
  readonly activation: 'silu' | 'none'
  readonly state: StatePart
  readonly out: View
}

/** B or C: (rows, nGroups · dState) of the tokens, or the same (dInner, dState) at every token. */
export type ScanInput = View | Parameter

/**
 * dt = softplus(dt + dtBias); h = exp(dt · A) · h + dt · B · x; out = (C · h + D · x) · silu(z).
 * x, dt, z, out (rows, dInner); A (dInner, dState); D and dtBias (dInner); state (dInner, dState).
 * Follows `selective_scan_ref` of state-spaces/mamba.
 */
export interface SelectiveScanOp {
  readonly kind: 'selectiveScan'
  readonly x: View
  readonly dt: View
  readonly z: View | null
  readonly A: Parameter
  readonly B: ScanInput
  readonly C: ScanInput
  readonly D: Parameter | null
  readonly dtBias: Parameter | null
  readonly dtSoftplus: boolean
  readonly dState: number
  readonly state: StatePart
  readonly out: View
}

/**
 * The state space of Mamba-2 (Dao & Gu, section 6) as its recurrence, one A for each head:
 * dt = clamp(softplus(dt + dtBias), dtLimit); h = exp(dt · A) · h + dt · x ⊗ B; out = h · C + D · x.
 * x, out (rows, nHeads · headDim); dt (rows, nHeads); A, D, dtBias (nHeads); B, C (rows, nGroups · dState), head i of nHeads has those of
 * group floor(i · nGroups / nHeads); state (nHeads, headDim, dState). Follows `ssd_minimal` and `selective_state_update` of state-spaces/mamba.
 */
export interface SsdScanOp {
  readonly kind: 'ssdScan'
  readonly x: View
  readonly dt: View
  readonly A: Parameter
  readonly B: View
  readonly C: View
  readonly D: Parameter | null
  readonly dtBias: Parameter | null
  /** Least and largest dt after the softplus. */
  readonly dtLimit: readonly [number, number]
  readonly dState: number
  readonly state: StatePart
  readonly out: View
}

export type Op = EmbedOp | GatherRowsOp | RmsNormOp | LinearOp | Conv1dOp | SelectiveScanOp | SsdScanOp

export type OpKind = Op['kind']

/** The op of a kind. */
export type OpOf<K extends OpKind> = Extract<Op, { kind: K }>

/** A point in the program where the residual stream is complete, for tests and probes. */
export interface Mark {
  readonly name: string
  /** Ops before this index have run. */
  readonly opIndex: number
  readonly view: View
}

export interface Program {
  readonly ops: readonly Op[]
  /** Ops from here on run over logit rows, those before over tokens: many logits are made a few rows at a time. */
  readonly headStart: number
  readonly buffers: readonly ActivationBuffer[]
  readonly parameters: readonly Parameter[]
  readonly states: readonly StatePart[]
  /** Elements of one sequence's state. */
  readonly stateSize: number
  readonly marks: readonly Mark[]
  /** (logit rows, vocabSize), or null in a program without a head. */
  readonly logits: View | null
  /** Ids are below it; 0 in a program that embeds nothing. */
  readonly vocabSize: number
}

/** True for a parameter where a view could stand. */
export function isParameter(input: ScanInput): input is Parameter {
  return 'shape' in input
}

/** Groups of channels that share a B or C: dInner of them where it is a parameter. */
export function scanGroups(op: SelectiveScanOp, input: ScanInput): number {
  return isParameter(input) ? op.x.width : input.width / op.dState
}

/** Multiplications and additions that one row of an op takes, about: for cutting long work into slices. */
export function opCost(op: Op): number {
  switch (op.kind) {
    case 'linear': return 2 * op.x.width * op.out.width
    case 'selectiveScan': return 30 * op.x.width * op.dState
    case 'ssdScan': return 8 * op.x.width * op.dState
    case 'conv1d': return 40 * op.x.width
    case 'embed':
    case 'gatherRows':
    case 'rmsNorm': return 8 * op.out.width
  }
}

export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}
