/** Metadata that all architectures have: as keys of a config in transformers' form, and from a model's facts. */
import { float32Value, type MetadataReader, uint32Value } from '../gguf-metadata.ts'
import type { GgufValue } from '../gguf-types.ts'
import type { JsonObject } from '../json.ts'
import type { FrameFacts } from './facts.ts'
import type { TensorNames } from './rows.ts'

/** A GGUF file, as an architecture's reader sees it. */
export interface GgufFile {
  /** Keys without the architecture's name before them. */
  readonly keys: MetadataReader
  /** Shapes by llama.cpp's names. */
  readonly shapes: ReadonlyMap<string, readonly number[]>
}

export interface ArchitectureReading {
  /** As a config.json in transformers' form, without what all architectures have. */
  readonly config: JsonObject
  readonly names: TensorNames
}

export type Entries = readonly (readonly [key: string, value: GgufValue])[]

/** What is written of a model. */
export interface ArchitectureWriting {
  readonly architecture: string
  /** Keys without the architecture's name before them. */
  readonly metadata: Entries
  readonly names: TensorNames
  /** Factors of a matrix's rows that the format has no other place for, by llama.cpp's name. */
  readonly factors?: ReadonlyMap<string, readonly RowFactor[]>
}

/** Of the next `nRows` rows; the last one's are all that are left. */
export interface RowFactor {
  readonly nRows: number
  readonly factor: number
}

/** A key, what a config calls it, and what a model's facts say. */
export interface Key<F> {
  readonly key: string
  readonly config: string
  readonly value: (facts: F) => number
  /** A float; else a natural number. */
  readonly isFloat?: boolean
}

export function readKeys<F>(keys: MetadataReader, table: readonly Key<F>[]): JsonObject {
  return Object.fromEntries(table.map(({ key, config, isFloat }) => [config, isFloat ? keys.positive(key) : keys.natural(key)]))
}

export function writeKeys<F>(table: readonly Key<F>[], facts: F): Entries {
  return table.map(({ key, value, isFloat }) => [key, isFloat ? float32Value(value(facts)) : uint32Value(value(facts))])
}

/** The eps key differs among configs. */
export function frameKeys(epsKey: 'layer_norm_epsilon' | 'rms_norm_eps'): readonly Key<FrameFacts>[] {
  return [
    { key: 'embedding_length', config: 'hidden_size', value: ({ dModel }) => dModel },
    { key: 'block_count', config: 'num_hidden_layers', value: ({ nLayers }) => nLayers },
    { key: 'attention.layer_norm_rms_epsilon', config: epsKey, value: ({ normEps }) => normEps, isFloat: true }
  ]
}

/** What the reader of a pure state space's config would otherwise take from its class. */
export const PURE_CONFIG = { hidden_act: 'silu', use_bias: false }
