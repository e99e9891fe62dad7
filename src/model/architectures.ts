/** The table of architectures: from a config and the names of the tensors to a program. */

import type { JsonObject } from '../checkpoint/json.ts'
import { describe, UnsupportedError } from '../errors.ts'
import { columns, ProgramBuilder } from '../program/builder.ts'
import type { Program } from '../program/ops.ts'
import type { Architecture } from './architecture.ts'
import type { BambaConfig } from './bamba.ts'
import { type ConfigReader, createConfigReader } from './config-reader.ts'
import type { FalconH1Config } from './falcon-h1.ts'
import type { GraniteConfig } from './granite.ts'
import type { JambaConfig } from './jamba.ts'
import type { Mamba1Config } from './mamba1.ts'
import type { Mamba2Config } from './mamba2.ts'
import type { NemotronHConfig } from './nemotron-h.ts'
import { createScope, scaleInPlace } from './scope.ts'
import type { Zamba2Config } from './zamba2.ts'

/** Told apart by `modelType`; `layers` says what each layer is. */
export type ModelConfig = Mamba1Config | Mamba2Config | BambaConfig | FalconH1Config | GraniteConfig | JambaConfig | NemotronHConfig | Zamba2Config

export type ModelType = ModelConfig['modelType']
export type ModelArchitecture = Architecture<ModelConfig>

/** A model ready to be given to a backend. */
export interface Model {
  readonly config: ModelConfig
  readonly program: Program
  /** Tensors that may be there and must then equal another one: a tied head that was saved all the same. */
  readonly copies: ReadonlyMap<string, string>
}

/** By model_type, each loaded on demand: a program has one model, as a rule. */
export const ARCHITECTURES: Readonly<Record<ModelType, () => Promise<ModelArchitecture>>> = {
  mamba: async () => (await import('./mamba1.ts')).mamba,
  falcon_mamba: async () => (await import('./mamba1.ts')).falconMamba,
  mamba2: async () => (await import('./mamba2.ts')).mamba2,
  bamba: async () => (await import('./bamba.ts')).bamba,
  falcon_h1: async () => (await import('./falcon-h1.ts')).falconH1,
  granitemoehybrid: async () => (await import('./granite.ts')).granite,
  jamba: async () => (await import('./jamba.ts')).jamba,
  nemotron_h: async () => (await import('./nemotron-h.ts')).nemotronH,
  zamba2: async () => (await import('./zamba2.ts')).zamba2
}

/** Those of state spaces alone for a config that lists its layers all the same. */
export const LISTED: Readonly<Record<string, () => Promise<ModelArchitecture>>> = Object.fromEntries(
  (['mamba', 'falcon_mamba', 'mamba2'] as const).map((name) => [name, async () => (await import('./layers.ts')).withLists(await ARCHITECTURES[name]())])
)

/** Keys that list layers (layers.ts), and few others. */
const LISTS_LAYERS = /^(layer_types|layers_block_type|attn_layer_.+|hybrid_.+)$/

/** The original repository's configs, by their ssm_cfg.layer. */
export const ORIGINALS: Readonly<Record<string, () => Promise<ModelArchitecture>>> = {
  Mamba1: async () => (await import('./original.ts')).originalMamba1,
  Mamba2: async () => (await import('./original.ts')).originalMamba2
}

/** What loads the architecture that a config.json asks for. Throws a CheckpointError or an UnsupportedError that names the key. */
export function architectureLoader(config: JsonObject, place = 'config.json'): () => Promise<ModelArchitecture> {
  const reader = createConfigReader(config, place)
  const isOriginal = !reader.has('model_type') && reader.has('d_model')
  if (isOriginal) return chosen(reader.nested('ssm_cfg'), ORIGINALS, { key: 'layer', fallback: 'Mamba1' })
  const hasLists = Object.keys(config).some((key) => LISTS_LAYERS.test(key))
  return chosen(reader, hasLists ? { ...ARCHITECTURES, ...LISTED } : ARCHITECTURES, { key: 'model_type' })
}

function chosen<T>(reader: ConfigReader, table: Readonly<Record<string, T>>, { key, fallback = '' }: { readonly key: string; readonly fallback?: string }): T {
  const name = reader.text(key, fallback)
  if (Object.hasOwn(table, name)) return table[name]
  throw new UnsupportedError({ place: `${reader.place}: ${key}`, expected: `one of ${Object.keys(table).join(', ')}`, got: reader.has(key) ? describe(name) : 'nothing' })
}

/** Throws as `architectureLoader`. */
export async function loadArchitecture(config: JsonObject, place?: string): Promise<ModelArchitecture> {
  return architectureLoader(config, place)()
}

/** Checks a config.json. Throws a CheckpointError or an UnsupportedError that names the key. */
export function readModelConfig(architecture: ModelArchitecture, config: JsonObject, place = 'config.json'): ModelConfig {
  return architecture.readConfig(createConfigReader(config, place))
}

/** What a user may know better than the config. */
export interface ConfigOverrides {
  /** Parts of the inner width that Mamba-2's gated norm takes by themselves. */
  readonly normGroups?: number | undefined
}

/** `hasTensor` tells the checkpoint's names. */
export function buildModel(architecture: ModelArchitecture, config: ModelConfig, hasTensor: (name: string) => boolean): Model {
  const builder = new ProgramBuilder()
  const { vocabSize, dModel, nLayers, normEps } = config
  const { frame } = architecture
  const embeddingName = frame.embeddings.find(hasTensor) ?? frame.embeddings[0]
  const embedding = builder.parameter(embeddingName, [vocabSize, dModel])

  const stream = builder.buffer('residual', frame.hasEmbeddingBeside ? 2 * dModel : dModel)
  const residual = columns(stream, 0, dModel)
  for (let start = 0; start < stream.width; start += dModel) builder.add({ kind: 'embed', weight: embedding, out: columns(stream, start, dModel) })
  scaleInPlace({ builder }, residual, config.embeddingMultiplier)

  const layers = createScope(builder, frame.layers, hasTensor)
  for (let i = 0; i < nLayers; i++) {
    if (frame.marks === 'inputs') builder.mark(`hidden_states.${i}`, residual)
    architecture.addLayer(layers, config, stream, i)
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
  const tied: readonly [string, string][] = config.tieEmbeddings ? [['lm_head.weight', embeddingName]] : []
  const shared = architecture.copies?.(layers, config, program.parameters.map(({ name }) => name)) ?? []
  return { config, program, copies: new Map([...tied, ...shared]) }
}
