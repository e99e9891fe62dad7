/** The table of architectures: from a config and the names of the tensors to a program. */

import type { JsonObject } from '../checkpoint/json.ts'
import { describe, UnsupportedError } from '../errors.ts'
import { ProgramBuilder } from '../program/builder.ts'
import type { Program, View } from '../program/ops.ts'
import { type ConfigReader, createConfigReader, type LayerNames } from './config.ts'
import { addMamba1Block, type Mamba1Config, readFalconMambaConfig, readMamba1Config, readOriginalMamba1Config } from './mamba1.ts'
import { addMamba2Block, type Mamba2Config, readMamba2Config, readOriginalMamba2Config, withNormGroups } from './mamba2.ts'

export type ModelConfig = Mamba1Config | Mamba2Config

/** A model ready to be given to a backend. */
export interface Model {
  readonly config: ModelConfig
  readonly program: Program
  /** Tensors that may be there and must then equal another one: a tied head that was saved all the same. */
  readonly copies: ReadonlyMap<string, string>
}

type ConfigReaders = Readonly<Record<string, (reader: ConfigReader) => ModelConfig>>

/** model_type → reader of its config. */
const configReaders: ConfigReaders = {
  mamba: readMamba1Config,
  falcon_mamba: readFalconMambaConfig,
  mamba2: readMamba2Config
}

/** ssm_cfg.layer of the original repository's configs → reader. */
const originalReaders: ConfigReaders = {
  Mamba1: readOriginalMamba1Config,
  Mamba2: readOriginalMamba2Config
}

/** Checks a config.json. Throws a CheckpointError or an UnsupportedError that names the key. */
export function readModelConfig(config: JsonObject, place = 'config.json'): ModelConfig {
  const reader = createConfigReader(config, place)
  if (!reader.has('model_type') && reader.has('d_model')) return readerOf(originalReaders, reader.nested('ssm_cfg'), { key: 'layer', fallback: 'Mamba1' })(reader)
  return readerOf(configReaders, reader, { key: 'model_type' })(reader)
}

function readerOf(readers: ConfigReaders, reader: ConfigReader, { key, fallback = '' }: { readonly key: string; readonly fallback?: string }): ConfigReaders[string] {
  const name = reader.text(key, fallback)
  if (Object.hasOwn(readers, name)) return readers[name]
  throw new UnsupportedError({
    place: `${reader.place}: ${key}`,
    expected: `one of ${Object.keys(readers).join(', ')}`,
    got: reader.has(key) ? describe(name) : 'nothing'
  })
}

/** What a user may know better than the config. */
export interface ConfigOverrides {
  /** Parts of the inner width that Mamba-2's gated norm takes by themselves. */
  readonly normGroups?: number | undefined
}

/** Throws an UnsupportedError or a RangeError that names the option where the model has no place for it. */
export function overrideConfig(config: ModelConfig, { normGroups }: ConfigOverrides): ModelConfig {
  if (normGroups === undefined) return config
  if (config.modelType === 'mamba2') return withNormGroups(config, normGroups)
  throw new UnsupportedError({ place: 'normGroups', expected: 'a model with a gated norm, as mamba2', got: config.modelType })
}

function addBlock(builder: ProgramBuilder, config: ModelConfig, residual: View, names: LayerNames): void {
  switch (config.modelType) {
    case 'mamba':
    case 'falcon_mamba': return addMamba1Block(builder, config, residual, names)
    case 'mamba2': return addMamba2Block(builder, config, residual, names)
  }
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
    addBlock(builder, config, residual, { prefix: `backbone.layers.${i}`, hasTensor })
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
