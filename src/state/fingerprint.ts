/**
 * Which model a state belongs to: 16 bytes from
 *
 * - the config, as this library reads it (options that override it included);
 * - of every tensor that is used its name, shape, stored type and bytes;
 * - the format in which each runs, and the arithmetic (float64 of the reference, f32, or relaxed f32, which may differ between machines;
 *   with or without Mamba-2's chunked form).
 *
 * So it is the same in every runtime, for any number of threads, with and without SIMD, and whether the tensors come from one file or from shards,
 * in whatever order or pieces. Another container that stores the same tensors under the same names gives the same one; a conversion that rounds or renames gives
 * another, as does another dtype. Not in it: tokenizer, tied copies of a tensor, file names.
 */

import { createHasher, hexOf } from './hash.ts'

export interface Fingerprinter {
  /** The next bytes of a tensor, in order. Tensors may come in any order, one after the other or by turns. */
  update(name: string, bytes: Uint8Array): void
  /** The tensors so far, each with a line on what it is. */
  finish(facts: { readonly config: object; readonly arithmetic: string; readonly tensorFacts: (name: string) => string }): Uint8Array
}

export function createFingerprinter(): Fingerprinter {
  const hashers = new Map<string, ReturnType<typeof createHasher>>()
  return {
    update(name, bytes) {
      const hasher = hashers.get(name) ?? createHasher()
      hashers.set(name, hasher)
      hasher.update(bytes)
    },
    finish({ config, arithmetic, tensorFacts }) {
      const names = [...hashers.keys()].sort((a, b) => (a < b ? -1 : 1))
      const lines = names.map((name) => `${JSON.stringify(name)} ${tensorFacts(name)} ${hexOf(hashers.get(name)?.digest() ?? new Uint8Array())}`)
      const text = ['mamba-wasm model 1', arithmetic, canonicalJson(config), ...lines].join('\n')
      return createHasher().update(new TextEncoder().encode(text)).digest()
    }
  }
}

/** JSON with sorted keys; numbers that JSON has not, as text. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => {
    if (typeof part === 'number' && !Number.isFinite(part)) return String(part)
    if (typeof part !== 'object' || part === null || Array.isArray(part)) return part
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
}
