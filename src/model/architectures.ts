/** The table of architectures: from a config and the names of the tensors to a program. */

import type { JsonObject } from '../checkpoint/json.ts'
import { describe, UnsupportedError } from '../errors.ts'
import { columns, ProgramBuilder } from '../program/builder.ts'
import type { Program, View } from '../program/ops.ts'
import { addBambaLayer, type BambaConfig, readBambaConfig } from './bamba.ts'
import { type ConfigReader, createConfigReader } from './config.ts'
import { addFalconH1Layer, type FalconH1Config, readFalconH1Config } from './falcon-h1.ts'
import { addGraniteLayer, type GraniteConfig, readGraniteConfig } from './granite.ts'
import { addJambaLayer, type JambaConfig, readJambaConfig } from './jamba.ts'
import { addMamba1Block, type Mamba1Config, readFalconMambaConfig, readMamba1Config, readOriginalMamba1Config } from './mamba1.ts'
import { addMamba2Block, type Mamba2Config, readMamba2Config, readOriginalMamba2Config, withNormGroups } from './mamba2.ts'
import { addNemotronHLayer, type NemotronHConfig, readNemotronHConfig } from './nemotron-h.ts'
import { createScope, type Scope, scaleInPlace } from './scope.ts'
import { addZamba2Layer, readZamba2Config, sharedCopies, type Zamba2Config } from './zamba2.ts'

/** Told apart by `modelType`; `layers` says what each layer is. */
export type ModelConfig = Mamba1Config | Mamba2Config | BambaConfig | FalconH1Config | GraniteConfig | JambaConfig | NemotronHConfig | Zamba2Config

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
  mamba2: readMamba2Config,
  bamba: readBambaConfig,
  falcon_h1: readFalconH1Config,
  granitemoehybrid: readGraniteConfig,
  jamba: readJambaConfig,
  nemotron_h: readNemotronHConfig,
  zamba2: readZamba2Config
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
  if ('mamba' in config && config.modelType !== 'jamba' && config.mamba.gatedNormEps !== null) return { ...config, mamba: withNormGroups(config.mamba, normGroups) }
  throw new UnsupportedError({ place: 'normGroups', expected: 'a model with a gated norm, as mamba2', got: config.modelType })
}

/** `layers`: what all layers' names start with. */
function addLayer(layers: Scope, config: ModelConfig, residual: View, index: number): void {
  const scope = layers.below(`${index}`)
  switch (config.modelType) {
    case 'mamba':
    case 'falcon_mamba': return addMamba1Block(scope, config, residual)
    case 'mamba2': return addMamba2Block(scope, config, residual)
    case 'bamba': return addBambaLayer(scope, config, residual, index)
    case 'falcon_h1': return addFalconH1Layer(scope, config, residual)
    case 'granitemoehybrid': return addGraniteLayer(scope, config, residual, index)
    case 'jamba': return addJambaLayer(scope, config, residual, index)
    case 'nemotron_h': return addNemotronHLayer(scope, config, residual, index)
    case 'zamba2': return addZamba2Layer(layers, config, residual, index)
  }
}

/** What is around the layers. */
interface Frame {
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
const BACKBONE: Frame = {
  embeddings: ['backbone.embeddings.weight', 'backbone.embedding.weight'], layers: 'backbone.layers', lastNorm: 'backbone.norm_f', marks: 'outputs'
}
const DECODER: Frame = { embeddings: ['model.embed_tokens.weight'], layers: 'model.layers', lastNorm: 'model.final_layernorm', marks: 'inputs' }

const FRAMES: Readonly<Record<ModelConfig['modelType'], Frame>> = {
  mamba: BACKBONE,
  falcon_mamba: BACKBONE,
  mamba2: BACKBONE,
  bamba: DECODER,
  falcon_h1: DECODER,
  granitemoehybrid: { ...DECODER, lastNorm: 'model.norm' },
  jamba: DECODER,
  nemotron_h: { ...BACKBONE, marks: 'inputs' },
  zamba2: { ...DECODER, hasEmbeddingBeside: true }
}

/** `hasTensor` tells the checkpoint's names. */
export function buildModel(config: ModelConfig, hasTensor: (name: string) => boolean): Model {
  const builder = new ProgramBuilder()
  const { vocabSize, dModel, nLayers, normEps } = config
  const frame = FRAMES[config.modelType]
  const embeddingName = frame.embeddings.find(hasTensor) ?? frame.embeddings[0]
  const embedding = builder.parameter(embeddingName, [vocabSize, dModel])

  const stream = builder.buffer('residual', frame.hasEmbeddingBeside ? 2 * dModel : dModel)
  const residual = columns(stream, 0, dModel)
  for (let start = 0; start < stream.width; start += dModel) builder.add({ kind: 'embed', weight: embedding, out: columns(stream, start, dModel) })
  scaleInPlace({ builder }, residual, config.embeddingMultiplier)

  const layers = createScope(builder, frame.layers, hasTensor)
  for (let i = 0; i < nLayers; i++) {
    if (frame.marks === 'inputs') builder.mark(`hidden_states.${i}`, residual)
    addLayer(layers, config, stream, i)
    if (frame.marks === 'outputs') builder.mark(`hidden_states.${i}`, residual)
  }

  const last = builder.buffer('last', dModel, 'logit')
  const logits = builder.buffer('logits', vocabSize, 'logit')
  builder.add({ kind: 'gatherRows', x: residual, out: last })
  builder.add({ kind: 'rmsNorm', x: last, gate: null, weight: builder.parameter(`${frame.lastNorm}.weight`, [dModel]), eps: normEps, groupWidth: dModel, out: last })
  builder.mark(`hidden_states.${nLayers}`, last)
  // The head is linear: a factor of its input is one of the logits.
  scaleInPlace({ builder }, last, config.logitMultiplier)
  const head = config.tieEmbeddings ? embedding : builder.parameter('lm_head.weight', [vocabSize, dModel])
  builder.add({ kind: 'linear', x: last, weight: head, bias: null, out: logits, accumulate: false })
  const program = builder.build(logits, vocabSize)
  return { config, program, copies: copiesOf(config, program, { embeddingName, layers }) }
}

function copiesOf(config: ModelConfig, { parameters }: Program, names: { readonly embeddingName: string; readonly layers: Scope }): ReadonlyMap<string, string> {
  const copies = new Map(config.tieEmbeddings ? [['lm_head.weight', names.embeddingName]] : [])
  if (config.modelType !== 'zamba2') return copies
  return new Map([...copies, ...sharedCopies(names.layers, config, parameters.map(({ name }) => name))])
}
