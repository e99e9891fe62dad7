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

/**
 * Keys and values of the tokens read so far, of one attention layer: the part of a sequence's state that grows with its length.
 * A token has `width` elements of each, keys after the rotation. Canonical form: keys (position, width), then values (position, width), f32.
 */
export interface KeyValuePart {
  readonly name: string
  /** nKvHeads · headDim */
  readonly width: number
  /** First of the 2 · width elements that a token has here, of the program's keyValueWidth. */
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
 * The state space of Mamba-2 (Dao & Gu, section 6) as its recurrence, one A for each head; a backend may have the matrix form, too, for whoever asks:
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

/**
 * Rotary positions (Su et al. 2021) in transformers' order of halves (`rotate_half`): of each head the first rotaryDim columns are turned,
 * column i with column i + rotaryDim / 2, by the angle position · theta^(−2i / rotaryDim). In place: out is x. Width: heads · headDim.
 */
export interface RotaryOp {
  readonly kind: 'rotary'
  readonly x: View
  readonly headDim: number
  readonly rotaryDim: number
  readonly theta: number
  readonly out: View
}

/** Stores the keys and the values of the rows at their positions: key, value (rows, cache.width). Writes no buffer: out is key, as it is. */
export interface CacheKeyValueOp {
  readonly kind: 'cacheKeyValue'
  readonly key: View
  readonly value: View
  readonly cache: KeyValuePart
  readonly out: View
}

/**
 * Causal grouped-query attention over the cache, which holds the rows' own keys too: out = softmax(scale · q · keysᵀ) · values, for each head over
 * the positions up to the row's own. q, out (rows, nHeads · headDim); head i has the key and value head floor(i · nKvHeads / nHeads).
 * Linear in memory: no (tokens, tokens) matrix.
 */
export interface AttentionOp {
  readonly kind: 'attention'
  readonly q: View
  readonly headDim: number
  readonly scale: number
  readonly cache: KeyValuePart
  readonly out: View
}

/** relu2 is relu(x)², gelu the exact one by erf. */
export type ActivationFunction = 'silu' | 'gelu' | 'relu2'

/** out = f(x), or f(x) · by. */
export interface ActivationOp {
  readonly kind: 'activation'
  readonly x: View
  readonly by: View | null
  readonly function: ActivationFunction
  readonly out: View
}

/** out = factor · x, or out + factor · x where it accumulates: multipliers, sums of branches, copies. */
export interface ScaledAddOp {
  readonly kind: 'scaledAdd'
  readonly x: View
  readonly factor: number
  readonly accumulate: boolean
  readonly out: View
}

/**
 * The topK largest of x (rows, nExperts), ties to the lowest index. out (rows, 2 · topK): the experts' indices, ascending, as numbers, then
 * their weights: softmax over the chosen ones, or over all experts without rescaling the chosen.
 */
export interface RouteOp {
  readonly kind: 'route'
  readonly x: View
  readonly topK: number
  readonly softmaxOver: 'chosen' | 'all'
  readonly out: View
}

/**
 * For each row and each of its choices j: out_j = weight_e · x_j, e the j-th chosen expert. choices as `route` leaves them;
 * x (rows, nIn), the same for all choices, or (rows, topK · nIn) where it is per choice; out (rows, topK · nOut).
 * weights: one (nExperts, nOut, nIn), or nExperts of (nOut, nIn).
 */
export interface ExpertLinearOp {
  readonly kind: 'expertLinear'
  readonly x: View
  readonly isPerChoice: boolean
  readonly choices: View
  readonly topK: number
  readonly nExperts: number
  readonly weights: readonly Parameter[]
  readonly out: View
}

/** out = Σ_j weight_j · x_j over a row's choices in the order of their experts, or added to out; x (rows, topK · out.width). */
export interface MixExpertsOp {
  readonly kind: 'mixExperts'
  readonly x: View
  readonly choices: View
  readonly topK: number
  readonly accumulate: boolean
  readonly out: View
}

export type Op =
  | EmbedOp | GatherRowsOp | RmsNormOp | LinearOp | Conv1dOp | SelectiveScanOp | SsdScanOp
  | RotaryOp | CacheKeyValueOp | AttentionOp | ActivationOp | ScaledAddOp | RouteOp | ExpertLinearOp | MixExpertsOp

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
  /** What grows with the sequence: none in a pure state space model. */
  readonly keyValues: readonly KeyValuePart[]
  /** Elements of one token in all of keyValues. */
  readonly keyValueWidth: number
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
    case 'expertLinear': return 2 * op.topK * (op.isPerChoice ? op.x.width / op.topK : op.x.width) * (op.out.width / op.topK)
    // Grows with the position; counted as for a context of a thousand tokens.
    case 'attention': return 4000 * op.q.width
    case 'activation': return 30 * op.out.width
    case 'route': return 30 * op.x.width
    case 'mixExperts': return 2 * op.x.width
    case 'embed':
    case 'gatherRows':
    case 'rotary':
    case 'cacheKeyValue':
    case 'scaledAdd':
    case 'rmsNorm': return 8 * op.out.width
  }
}

export function elementsOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}
