/** What kinds of layers a config asks for, in all spellings of older and newer ones. */

import type { JsonValue } from '../checkpoint/json.ts'
import { CheckpointError, describe, UnsupportedError } from '../errors.ts'
import type { Architecture } from './architecture.ts'
import type { CommonConfig } from './config.ts'
import type { ConfigReader } from './config-reader.ts'

/** What mixes the tokens in a layer; 'hybrid' is attention and a state space in one, 'mlp' a feed-forward block by itself. */
export type LayerKind = 'mamba' | 'attention' | 'hybrid' | 'mlp'

/** The words of `layer_types` and `layers_block_type`, old and new, and the letters of `hybrid_override_pattern`. */
const KINDS: ReadonlyMap<unknown, LayerKind> = new Map([
  ['mamba', 'mamba'], ['linear_attention', 'mamba'], ['M', 'mamba'],
  ['attention', 'attention'], ['full_attention', 'attention'], ['*', 'attention'],
  ['hybrid', 'hybrid'],
  ['mlp', 'mlp'], ['-', 'mlp']
])

/** One key's account of the layers. */
interface Source {
  readonly key: string
  readonly layers: readonly LayerKind[]
}

export interface LayerOptions {
  /** The kinds that the architecture has. */
  readonly kinds: readonly LayerKind[]
  /** Without any of the keys: by index, or a CheckpointError where null. */
  readonly fallback: ((index: number) => LayerKind) | null
}

/** `readLayers` of an architecture. */
export function layersOf(options: LayerOptions): (reader: ConfigReader) => readonly LayerKind[] {
  return (reader) => readLayers(reader, options)
}

/** An architecture of state spaces alone, for a config that lists its layers all the same: all of them must be that, and the list alone may say how many there are. */
export function withLists<C extends CommonConfig>(architecture: Architecture<C>): Architecture<C> {
  return {
    ...architecture,
    readConfig(reader) {
      const layers = readLayers(reader, { kinds: ['mamba'], fallback: () => 'mamba' })
      return architecture.readConfig({ ...reader, size: (key, options) => (key === 'num_hidden_layers' ? layers.length : reader.size(key, options)) })
    }
  }
}

/**
 * The layers, as all keys that say something about them agree. Their number is `num_hidden_layers`, or what they list where that key is absent.
 * UnsupportedError for a kind that the architecture does not have; CheckpointError where two keys contradict each other, naming both.
 */
function readLayers(reader: ConfigReader, options: LayerOptions): readonly LayerKind[] {
  const listed = LISTS.filter((key) => reader.has(key))
  const [list] = listed
  const count = list === undefined || reader.has('num_hidden_layers') ? reader.size('num_hidden_layers', { limit: 'layers' }) : lengthOf(reader.raw(list))
  const sources = [...listed.map((key) => readList(reader, key, { count, ...options })), ...readIndices(reader, count), ...readPeriod(reader, count)]
  const [first, ...others] = sources
  for (const other of others) {
    const index = other.layers.findIndex((kind, i) => kind !== first.layers[i])
    if (index < 0) continue
    throw new CheckpointError({
      place: `${reader.place}: ${other.key}`, expected: `layer ${index} to be ${first.layers[index]}, as ${first.key} says`, got: other.layers[index]
    })
  }
  if (first) return checkKinds(reader, first, options)
  const { fallback } = options
  if (fallback === null) throw new CheckpointError({ place: `${reader.place}: ${LISTS[1]}`, expected: 'a list of the layers', got: 'nothing' })
  return Array.from({ length: count }, (_, i) => fallback(i))
}

const LISTS = ['layer_types', 'layers_block_type', 'hybrid_override_pattern'] as const

function lengthOf(value: JsonValue | undefined): number {
  return typeof value === 'string' || Array.isArray(value) ? value.length : 0
}

function readList(reader: ConfigReader, key: string, { count, kinds }: LayerOptions & { readonly count: number }): Source {
  const value = reader.raw(key)
  const isPattern = key === 'hybrid_override_pattern'
  const place = `${reader.place}: ${key}`
  const words: readonly JsonValue[] | null = isPattern ? (typeof value === 'string' ? [...value] : null) : Array.isArray(value) ? value : null
  if (words === null || words.length !== count || count === 0) {
    const expected = `a ${isPattern ? 'letter for each' : 'list'} of ${Math.max(1, count)}${reader.has('num_hidden_layers') ? ', as num_hidden_layers says' : ' or more'}`
    throw new CheckpointError({ place, expected, got: describe(value) })
  }
  const layers = words.map((word) => {
    const kind = KINDS.get(word)
    if (kind !== undefined) return kind
    throw new UnsupportedError({ place, expected: `${kinds.join(' or ')} alone`, got: describe(word) })
  })
  return { key, layers }
}

/** Bamba's `attn_layer_indices` and Zamba2's `hybrid_layer_ids`: all others are state spaces. */
function readIndices(reader: ConfigReader, count: number): Source[] {
  const keys = [['attn_layer_indices', 'attention'], ['hybrid_layer_ids', 'hybrid']] as const
  return keys.filter(([key]) => reader.has(key)).map(([key, kind]) => {
    const value = reader.raw(key)
    const isIndex = (index: JsonValue): boolean => typeof index === 'number' && Number.isInteger(index) && index >= 0 && index < count
    if (!Array.isArray(value) || !value.every(isIndex)) {
      throw new CheckpointError({ place: `${reader.place}: ${key}`, expected: `a list of indices below num_hidden_layers ${count}`, got: describe(value) })
    }
    return { key, layers: Array.from({ length: count }, (_, i) => (value.includes(i) ? kind : 'mamba')) }
  })
}

/** Jamba's `attn_layer_period` and `attn_layer_offset`. */
function readPeriod(reader: ConfigReader, count: number): Source[] {
  if (!reader.has('attn_layer_period') && !reader.has('attn_layer_offset')) return []
  const isAttention = readPeriodic(reader, { period: ['attn_layer_period', 8], offset: ['attn_layer_offset', 4] })
  return [{ key: 'attn_layer_period', layers: Array.from({ length: count }, (_, i) => (isAttention(i) ? 'attention' : 'mamba')) }]
}

interface PeriodKeys {
  /** Key and default. */
  readonly period: readonly [string, number]
  readonly offset: readonly [string, number]
}

/** Whether layer i is one of every `period`, from `offset` on. */
export function readPeriodic(reader: ConfigReader, keys: PeriodKeys): (index: number) => boolean {
  const period = reader.size(keys.period[0], { fallback: keys.period[1] })
  const offset = reader.size(keys.offset[0], { fallback: keys.offset[1], least: 0 })
  if (offset >= period) {
    throw new CheckpointError({ place: `${reader.place}: ${keys.offset[0]}`, expected: `less than ${keys.period[0]} ${period}`, got: describe(offset) })
  }
  return (index) => index % period === offset
}

function checkKinds(reader: ConfigReader, { key, layers }: Source, { kinds }: LayerOptions): readonly LayerKind[] {
  const other = layers.find((kind) => !kinds.includes(kind))
  if (other === undefined) return layers
  throw new UnsupportedError({ place: `${reader.place}: ${key}`, expected: `${kinds.join(' or ')} alone`, got: describe(other) })
}
