/** The table of architectures: from a config and the names of the tensors to a program. */

import type { JsonObject } from '../checkpoint/json.ts'
import { describe, UnsupportedError } from '../errors.ts'
import { ProgramBuilder } from '../program/builder.ts'
import type { Program } from '../program/ops.ts'
import { type ConfigReader, createConfigReader } from './config.ts'
import { addMamba1Block, type Mamba1Config, readFalconMambaConfig, readMamba1Config, readOriginalMamba1Config } from './mamba1.ts'

export type ModelConfig = Mamba1Config

/** A model ready to be given to a backend. */
export interface Model {
  readonly config: ModelConfig
  readonly program: Program
  /** Tensors that may be there and must then equal another one: a tied head that was saved all the same. */
  readonly copies: ReadonlyMap<string, string>
}

/** model_type → reader of its config. */
const configReaders: Readonly<Record<string, (reader: ConfigReader) => ModelConfig>> = {
  mamba: readMamba1Config,
  falcon_mamba: readFalconMambaConfig
}

/** Checks a config.json. Throws a CheckpointError or an UnsupportedError that names the key. */
export function readModelConfig(config: JsonObject, place = 'config.json'): ModelConfig {
  const reader = createConfigReader(config, place)
  if (!reader.has('model_type') && reader.has('d_model')) return readOriginalMamba1Config(reader)
  const modelType = reader.text('model_type', '')
  if (!Object.hasOwn(configReaders, modelType)) {
    throw new UnsupportedError({
      place: `${place}: model_type`,
      expected: `one of ${Object.keys(configReaders).join(', ')}`,
      got: reader.has('model_type') ? describe(modelType) : 'nothing'
    })
  }
  return configReaders[modelType](reader)
}

/** The names by which transformers and the original repository know the embedding. */
const EMBEDDING_NAMES = ['backbone.embeddings.weight', 'backbone.embedding.weight']

/** `hasTensor` tells the checkpoint's names. */
export function buildModel(config: ModelConfig, hasTensor: (name: string) => boolean): Model {
  const builder = new ProgramBuilder()
  const { vocabSize, dModel, nLayers, normEps } = config
  const embeddingName = EMBEDDING_NAMES.find(hasTensor) ?? EMBEDDING_NAMES[0]
  const embedding = builder.parameter(embeddingName, [vocabSize, dModel])

  const residual = builder.buffer('residual', dModel)
  builder.add({ kind: 'embed', weight: embedding, out: residual })
  for (let i = 0; i < nLayers; i++) {
    addMamba1Block(builder, config, residual, { prefix: `backbone.layers.${i}`, hasTensor })
    builder.mark(`hidden_states.${i}`, residual)
  }

  const last = builder.buffer('last', dModel, 'logit')
  const logits = builder.buffer('logits', vocabSize, 'logit')
  builder.add({ kind: 'gatherRows', x: residual, out: last })
  builder.add({ kind: 'rmsNorm', x: last, gate: null, weight: builder.parameter('backbone.norm_f.weight', [dModel]), eps: normEps, groupWidth: dModel, out: last })
  builder.mark(`hidden_states.${nLayers}`, last)
  const head = config.tieEmbeddings ? embedding : builder.parameter('lm_head.weight', [vocabSize, dModel])
  builder.add({ kind: 'linear', x: last, weight: head, bias: null, out: logits, accumulate: false })
  return {
    config,
    program: builder.build(logits, vocabSize),
    copies: config.tieEmbeddings ? new Map([['lm_head.weight', embeddingName]]) : new Map()
  }
}
