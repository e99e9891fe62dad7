/** What all configs say, checked. The architectures' own readers stand in their block files. */

import type { JsonValue } from '../checkpoint/json.ts'
import { CheckpointError, describe } from '../errors.ts'
import type { ConfigReader } from './config-reader.ts'
import type { LayerKind } from './layers.ts'

/** What every architecture has. */
export interface CommonConfig {
  /** transformers' name of the architecture. */
  readonly modelType: string
  readonly vocabSize: number
  readonly dModel: number
  readonly nLayers: number
  /** What each layer is. */
  readonly layers: readonly LayerKind[]
  readonly normEps: number
  /** Factor of the embedding. */
  readonly embeddingMultiplier: number
  /** Factor of the logits. */
  readonly logitMultiplier: number
  /** The head is the embedding. */
  readonly tieEmbeddings: boolean
  readonly bosTokenId: number | null
  /** Tokens that end a text. */
  readonly eosTokenIds: readonly number[]
  /** Tokens that the model was made for (`max_position_embeddings`); null: a state space alone knows no limit. */
  readonly contextLength: number | null
}

/** Two keys that say the same. */
export function agree({ place }: ConfigReader, key: string, value: number, other: { readonly key: string; readonly expected: number }): void {
  if (value === other.expected) return
  throw new CheckpointError({ place: `${place}: ${key}`, expected: `${other.expected}, which ${other.key} makes it`, got: describe(value) })
}

/** The one that is there of several keys for the same; a CheckpointError that names both where two differ. */
export function sameBySeveral(reader: ConfigReader, keys: readonly string[]): string {
  const [first = keys[0], ...others] = keys.filter((key) => reader.has(key))
  for (const other of others) {
    if (textOf(reader.raw(other)) === textOf(reader.raw(first))) continue
    throw new CheckpointError({ place: `${reader.place}: ${other}`, expected: `${describe(reader.raw(first))}, as ${first} says`, got: describe(reader.raw(other)) })
  }
  return first
}

/** JSON, and what JSON has no words for. */
function textOf(value: JsonValue | undefined): string {
  return JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'number' ? String(inner) : inner))
}

/** What an architecture's own config class has where a config says nothing. */
export interface CommonDefaults {
  readonly tieEmbeddings: boolean
  /** The key and the default. */
  readonly normEps: readonly [key: string, fallback: number]
  readonly readLayers: (reader: ConfigReader) => readonly LayerKind[]
  /** null where the architecture has no such key. */
  readonly contextLength: number | null
}

/** Of an architecture of state spaces alone: few of their configs list the layers, and those are read by `withLists` (layers.ts). */
export function pureDefaults({ tieEmbeddings }: { readonly tieEmbeddings: boolean }): CommonDefaults {
  return { tieEmbeddings, normEps: ['layer_norm_epsilon', 1e-5], readLayers: readMambaLayers, contextLength: null }
}

function readMambaLayers(reader: ConfigReader): readonly LayerKind[] {
  return Array.from({ length: reader.size('num_hidden_layers', { limit: 'layers' }) }, () => 'mamba')
}

/** Reads the keys that all configs in transformers' form share. */
export function readCommonConfig(reader: ConfigReader, defaults: CommonDefaults): Omit<CommonConfig, 'modelType'> {
  const vocabSize = reader.size('vocab_size', { limit: 'vocabSize' })
  const dModel = reader.size('hidden_size')
  const layers = defaults.readLayers(reader)
  const [normKey, normEps] = defaults.normEps
  return {
    vocabSize,
    dModel,
    nLayers: layers.length,
    layers,
    normEps: reader.positive(normKey, normEps),
    embeddingMultiplier: 1,
    logitMultiplier: 1,
    tieEmbeddings: reader.flag('tie_word_embeddings', defaults.tieEmbeddings),
    bosTokenId: readTokenIds(reader, 'bos_token_id')[0] ?? null,
    eosTokenIds: readTokenIds(reader, 'eos_token_id'),
    contextLength: defaults.contextLength === null ? null : reader.size('max_position_embeddings', { fallback: defaults.contextLength, limit: 'context' })
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
