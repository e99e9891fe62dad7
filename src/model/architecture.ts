/** What an architecture is made of: the file of each exports one, and architectures.ts has the table of them. */

import type { View } from '../program/ops.ts'
import type { CommonConfig } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import type { Scope } from './scope.ts'

export interface Architecture<C extends CommonConfig> {
  readonly frame: Frame
  /** In transformers' form; original.ts has the architectures that read the other one. */
  readConfig(reader: ConfigReader): C
  /** `layers`: what all layers' names start with. */
  addLayer(layers: Scope, config: C, residual: View, index: number): void
  /** The config with so many parts in the gated norm; null where the model has none. */
  withNormGroups?(config: C, normGroups: number): C | null
  /** Tensors that may be there once more and must then equal another one. `names`: of the program's parameters. */
  copies?(layers: Scope, config: C, names: readonly string[]): ReadonlyMap<string, string>
}

/** What is around the layers. */
export interface Frame {
  /** The checkpoint has one of them. */
  readonly embeddings: readonly string[]
  readonly layers: string
  readonly lastNorm: string
  /** Which of a layer's hidden states transformers counts: what it reads or what it leaves. */
  readonly marks: 'inputs' | 'outputs'
  /** The layers find the embedding beside the residual. */
  readonly hasEmbeddingBeside?: boolean
}

/** transformers' names of the pure state spaces, and the original repository's of the embedding. */
export const BACKBONE: Frame = {
  embeddings: ['backbone.embeddings.weight', 'backbone.embedding.weight'], layers: 'backbone.layers', lastNorm: 'backbone.norm_f', marks: 'outputs'
}
export const DECODER: Frame = { embeddings: ['model.embed_tokens.weight'], layers: 'model.layers', lastNorm: 'model.final_layernorm', marks: 'inputs' }
