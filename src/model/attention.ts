/**
 * Grouped-query attention over all earlier tokens of the sequence:
 *
 *   x ─┬─► q ─► rotary ─────────────────────────────────┐
 *      ├─► k ─► rotary ─┬─► cache (grows by a token) ─► attention ─► o_proj
 *      └─► v ───────────┘
 */

import { CheckpointError, describe, UnsupportedError } from '../errors.ts'
import type { View } from '../program/ops.ts'
import { sameBySeveral } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import { addAdapter, type Scope, type Target } from './scope.ts'

export interface AttentionConfig {
  readonly nHeads: number
  /** Heads of keys and values, each for nHeads / nKvHeads heads of queries. */
  readonly nKvHeads: number
  readonly headDim: number
  /** Factor of the products of queries and keys. */
  readonly scale: number
  /** null: no positions but those that the state space knows. */
  readonly rotary: RotaryConfig | null
  /** Biases on all four projections. */
  readonly useBias: boolean
}

export interface RotaryConfig {
  /** Columns of a head that are turned. */
  readonly rotaryDim: number
  readonly theta: number
}

interface AttentionDefaults {
  readonly dModel: number
  /** null: as many as heads of queries. */
  readonly nKvHeads: number | null
  /** Spellings of the key for headDim, and what it is without one: dModel / nHeads where it is null. */
  readonly headDimKeys?: readonly string[]
  readonly headDim?: number | null
}

/** The keys that all configs in transformers' form share, without positions: scale is 1 / √headDim. */
export function readAttention(reader: ConfigReader, defaults: AttentionDefaults): AttentionConfig {
  const { dModel, headDimKeys = ['head_dim'] } = defaults
  const nHeads = reader.size('num_attention_heads', { fallback: 32 })
  const nKvHeads = reader.raw('num_key_value_heads') === null ? nHeads : reader.size('num_key_value_heads', { fallback: defaults.nKvHeads ?? nHeads })
  if (nHeads % nKvHeads !== 0) {
    throw new CheckpointError({ place: `${reader.place}: num_key_value_heads`, expected: `a divisor of num_attention_heads ${nHeads}`, got: describe(nKvHeads) })
  }
  const fallback = defaults.headDim ?? Math.floor(dModel / nHeads)
  if (fallback < 1) throw new CheckpointError({ place: `${reader.place}: num_attention_heads`, expected: `at most hidden_size ${dModel}`, got: describe(nHeads) })
  const headDim = reader.size(sameBySeveral(reader, headDimKeys), { fallback })
  return { nHeads, nKvHeads, headDim, scale: headDim ** -0.5, rotary: null, useBias: reader.flag('attention_bias', false) }
}

/**
 * Rotary positions, from `rope_parameters` as newer configs have it or from `rope_theta`, `partial_rotary_factor` and `rope_scaling`.
 * UnsupportedError for every kind but the plain one.
 */
export function readRotary(reader: ConfigReader, headDim: number, { part = 1 }: { readonly part?: number } = {}): RotaryConfig {
  const parameters = ['rope_parameters', 'rope_scaling'].map((key) => reader.nested(key))
  for (const nested of parameters) {
    for (const key of ['rope_type', 'type']) nested.only(key, 'default')
  }
  const theta = readShared([reader, ...parameters], 'rope_theta', 10_000)
  const factor = readShared([reader, ...parameters], 'partial_rotary_factor', part)
  const rotaryDim = Math.floor(headDim * factor)
  if (factor > 1 || rotaryDim < 2 || rotaryDim % 2 !== 0) {
    throw new UnsupportedError({ place: `${reader.place}: partial_rotary_factor`, expected: `an even part of the head's ${headDim} columns`, got: describe(factor) })
  }
  return { rotaryDim, theta }
}

/** A number that may stand in several objects, where it must be the same. */
function readShared(readers: readonly ConfigReader[], key: string, fallback: number): number {
  const [first, ...others] = readers.filter((reader) => reader.has(key))
  if (first === undefined) return fallback
  const value = first.positive(key, fallback)
  for (const other of others) {
    const otherValue = other.positive(key, fallback)
    if (otherValue !== value) throw new CheckpointError({ place: `${other.place}: ${key}`, expected: `${value}, as ${first.place}: ${key} says`, got: describe(otherValue) })
  }
  return value
}

interface AttentionOptions {
  readonly x: View
  readonly target: Target
  /** The layer's: layers that share their weights still have keys and values of their own. */
  readonly cacheName?: string
  /** An adapter on the projection of each part. */
  readonly adapter?: { readonly name: (part: 'q' | 'k' | 'v') => string; readonly rank: number } | undefined
}

export function addAttention(scope: Scope, config: AttentionConfig, { x, target, cacheName = scope.prefix, adapter }: AttentionOptions): void {
  const { builder } = scope
  const { nHeads, nKvHeads, headDim, scale, rotary, useBias } = config
  const project = (part: 'q' | 'k' | 'v', width: number): View => {
    const out = builder.buffer(part, width)
    scope.linear(`${part}_proj`, { x, out, useBias })
    if (adapter) addAdapter(scope, adapter.name(part), { x, out, rank: adapter.rank })
    return out
  }
  const q = project('q', nHeads * headDim)
  const key = project('k', nKvHeads * headDim)
  const value = project('v', nKvHeads * headDim)
  if (rotary) {
    for (const view of [q, key]) builder.add({ kind: 'rotary', x: view, headDim, ...rotary, out: view })
  }
  const cache = builder.keyValue(cacheName, nKvHeads * headDim)
  builder.add({ kind: 'cacheKeyValue', key, value, cache, out: key })
  const attended = builder.buffer('attended', nHeads * headDim)
  builder.add({ kind: 'attention', q, headDim, scale, cache, out: attended })
  scope.linear('o_proj', { x: attended, ...target, useBias })
}
