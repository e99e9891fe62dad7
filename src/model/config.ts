/** What a config.json says, checked. The architectures' own readers stand in their block files. */

import type { JsonObject, JsonValue } from '../checkpoint/json.ts'
import { CheckpointError, describe, UnsupportedError } from '../errors.ts'

/** What every architecture has. */
export interface CommonConfig {
  /** transformers' name of the architecture. */
  readonly modelType: string
  readonly vocabSize: number
  readonly dModel: number
  readonly nLayers: number
  readonly normEps: number
  /** The head is the embedding. */
  readonly tieEmbeddings: boolean
  readonly bosTokenId: number | null
  /** Tokens that end a text. */
  readonly eosTokenIds: readonly number[]
}

/** Larger than any model of the field by far; what exceeds it is damage, not size. */
const LIMITS = { dimension: 2 ** 20, vocabSize: 2 ** 24, layers: 4096 }

/** Typed access to a config; every failure names the file and the key. */
export interface ConfigReader {
  readonly place: string
  has(key: string): boolean
  /** An integer from 1 to a limit; `fallback` where the key is absent or null, an error without one. */
  size(key: string, options?: { fallback?: number | undefined; limit?: keyof typeof LIMITS }): number
  /** A finite number above zero. */
  positive(key: string, fallback: number): number
  flag(key: string, fallback: boolean): boolean
  text(key: string, fallback: string): string
  raw(key: string): JsonValue | undefined
  /** A nested object; empty where absent. */
  nested(key: string): ConfigReader
  /** Refuses a list with anything in it, and what is no list. */
  none(key: string): void
  /** Refuses every value but `expected`: `key` set to something else asks for what is not built. */
  only(key: string, expected: string | boolean | number): void
}

export function createConfigReader(config: JsonObject, place: string): ConfigReader {
  const fail = (key: string, expected: string, value: JsonValue | undefined): never => {
    throw new CheckpointError({ place: `${place}: ${key}`, expected, got: value === undefined ? 'nothing' : describe(value) })
  }
  const isAbsent = (value: JsonValue | undefined): value is null | undefined => value === undefined || value === null
  return {
    place,
    has: (key) => !isAbsent(config[key]),
    raw: (key) => config[key],
    size(key, { fallback, limit = 'dimension' } = {}) {
      const value = config[key]
      if (isAbsent(value) && fallback !== undefined) return fallback
      if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > LIMITS[limit]) {
        return fail(key, `an integer from 1 to ${LIMITS[limit]}`, value)
      }
      return value
    },
    positive(key, fallback) {
      const value = config[key]
      if (isAbsent(value)) return fallback
      return typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : fail(key, 'a finite number above 0', value)
    },
    flag(key, fallback) {
      const value = config[key]
      if (isAbsent(value)) return fallback
      return typeof value === 'boolean' ? value : fail(key, 'true or false', value)
    },
    text(key, fallback) {
      const value = config[key]
      if (isAbsent(value)) return fallback
      return typeof value === 'string' ? value : fail(key, 'a string', value)
    },
    nested(key) {
      const value = config[key]
      if (isAbsent(value)) return createConfigReader({}, `${place}: ${key}`)
      if (typeof value !== 'object' || Array.isArray(value)) return fail(key, 'an object', value)
      return createConfigReader(value as JsonObject, `${place}: ${key}`)
    },
    none(key) {
      const value = config[key]
      if (isAbsent(value) || (Array.isArray(value) && value.length === 0)) return
      throw new UnsupportedError({ place: `${place}: ${key}`, expected: 'nothing or an empty list', got: describe(value) })
    },
    only(key, expected) {
      const value = config[key]
      if (isAbsent(value) || value === expected) return
      throw new UnsupportedError({ place: `${place}: ${key}`, expected: describe(expected), got: describe(value) })
    }
  }
}

/** A layer's names in the checkpoint. */
export interface LayerNames {
  /** E.g. `backbone.layers.3`. */
  readonly prefix: string
  readonly hasTensor: (name: string) => boolean
}

/** Reads the keys that all configs in transformers' form share; what is not said is as the architecture's own config class has it. */
export function readCommonConfig(reader: ConfigReader, modelType: string, defaults = { tieEmbeddings: true }): CommonConfig {
  const vocabSize = reader.size('vocab_size', { limit: 'vocabSize' })
  return {
    modelType,
    vocabSize,
    dModel: reader.size('hidden_size'),
    nLayers: reader.size('num_hidden_layers', { limit: 'layers' }),
    normEps: reader.positive('layer_norm_epsilon', 1e-5),
    tieEmbeddings: reader.flag('tie_word_embeddings', defaults.tieEmbeddings),
    bosTokenId: readTokenIds(reader, 'bos_token_id')[0] ?? null,
    eosTokenIds: readTokenIds(reader, 'eos_token_id')
  }
}

/** A state space layer, in the spellings of older and newer configs. */
const MAMBA_LAYERS: readonly unknown[] = ['mamba', 'linear_attention']

/** Refuses a list of layers that has other ones, for architectures that are state spaces throughout; most of their configs have no such list. */
export function checkMambaLayers(reader: ConfigReader, { nLayers }: CommonConfig): void {
  for (const key of ['layer_types', 'layers_block_type']) {
    if (!reader.has(key)) continue
    const layers = reader.raw(key)
    if (!Array.isArray(layers) || layers.length !== nLayers) {
      throw new CheckpointError({ place: `${reader.place}: ${key}`, expected: `a list of ${nLayers}, as num_hidden_layers says`, got: describe(layers) })
    }
    const other = layers.find((layer) => !MAMBA_LAYERS.includes(layer))
    if (other !== undefined) throw new UnsupportedError({ place: `${reader.place}: ${key}`, expected: `${MAMBA_LAYERS.join(' or ')} alone`, got: describe(other) })
  }
}

/** Reads the keys that all configs of the original repository share: `MambaConfig` of mamba_ssm. */
export function readOriginalCommonConfig(reader: ConfigReader): Omit<CommonConfig, 'modelType'> {
  reader.only('rms_norm', true)
  reader.only('d_intermediate', 0)
  reader.none('attn_layer_idx')
  const padding = reader.size('pad_vocab_size_multiple', { fallback: 8 })
  return {
    vocabSize: Math.ceil(reader.size('vocab_size', { limit: 'vocabSize' }) / padding) * padding,
    dModel: reader.size('d_model'),
    nLayers: reader.size('n_layer', { limit: 'layers' }),
    normEps: reader.positive('norm_epsilon', 1e-5),
    tieEmbeddings: reader.flag('tie_embeddings', true),
    bosTokenId: null,
    // The published checkpoints were trained with GPT-NeoX's end of text, id 0.
    eosTokenIds: [0]
  }
}

/** One id, several, or none. Ids beyond the vocabulary never come, so they are let pass as real configs have them. */
export function readTokenIds(reader: ConfigReader, key: string): readonly number[] {
  if (!reader.has(key)) return []
  const value = reader.raw(key)
  const ids = Array.isArray(value) ? value : [value]
  for (const id of ids) {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < -1) {
      throw new CheckpointError({ place: `${reader.place}: ${key}`, expected: 'a token id, several or null', got: describe(value) })
    }
  }
  return ids.filter((id) => id >= 0)
}
