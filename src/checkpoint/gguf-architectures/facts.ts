/** What is written of a model's config: the configs of src/model have it. */

export interface FrameFacts {
  readonly vocabSize: number
  readonly dModel: number
  readonly nLayers: number
  readonly layers: readonly string[]
  readonly normEps: number
  readonly tieEmbeddings: boolean
  readonly bosTokenId: number | null
  /** A GGUF file has place for two: the end of a text and the end of a turn. */
  readonly eosTokenIds: readonly number[]
  readonly contextLength: number | null
  readonly embeddingMultiplier: number
  readonly logitMultiplier: number
}

export interface Mamba1Facts {
  readonly dInner: number
  readonly dState: number
  readonly dConv: number
  readonly dtRank: number
  /** Norms on dt, B and C. */
  readonly mixerNormEps: number | null
}

export interface Mamba2Facts {
  readonly dInner: number
  readonly dState: number
  readonly dConv: number
  readonly nHeads: number
  readonly nGroups: number
  readonly dtLimit: readonly [number, number]
  readonly normGroups: number
  readonly gatedNormEps: number | null
}

export interface AttentionFacts {
  readonly nHeads: number
  readonly nKvHeads: number
  readonly headDim: number
  readonly scale: number
  readonly rotary: { readonly rotaryDim: number; readonly theta: number } | null
}

export interface ExpertsFacts {
  readonly nExperts: number
  readonly topK: number
  readonly dHidden: number
}

interface HybridFacts<Mixer> extends FrameFacts {
  readonly mamba: Mixer
  readonly attention: AttentionFacts
  readonly mlp: { readonly dHidden: number }
}

export interface PureMamba1Facts extends FrameFacts, Mamba1Facts {
  readonly modelType: 'mamba' | 'falcon_mamba'
}

export interface PureMamba2Facts extends FrameFacts, Mamba2Facts {
  readonly modelType: 'mamba2'
}

export interface FalconH1Facts extends HybridFacts<Mamba2Facts> {
  readonly modelType: 'falcon_h1'
  readonly multipliers: {
    readonly mamba: { readonly input: number; readonly z: number; readonly x: number; readonly B: number; readonly C: number; readonly dt: number }
    readonly mambaOut: number
    readonly attentionIn: number
    readonly attentionOut: number
    readonly mlpGate: number
    readonly mlpOut: number
  }
}

export interface GraniteFacts extends HybridFacts<Mamba2Facts> {
  readonly modelType: 'granitemoehybrid'
  readonly experts: ExpertsFacts | null
  readonly residualMultiplier: number
}

export interface BambaFacts extends HybridFacts<Mamba2Facts> {
  readonly modelType: 'bamba'
}

export interface JambaFacts extends HybridFacts<Mamba1Facts> {
  readonly modelType: 'jamba'
  /** null: no layer has any. */
  readonly experts: ExpertsFacts | null
}

export interface NemotronHFacts extends HybridFacts<Mamba2Facts> {
  readonly modelType: 'nemotron_h'
}

/** Loaded but not written: llama.cpp has no such architecture. */
export interface OtherFacts {
  readonly modelType: 'zamba2'
}

export type ModelFacts = PureMamba1Facts | PureMamba2Facts | FalconH1Facts | GraniteFacts | BambaFacts | JambaFacts | NemotronHFacts
