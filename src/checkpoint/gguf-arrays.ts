/** Arrays in a GGUF file's metadata: those of tokenizers and of hybrids. */
import { isFloat, type MetadataReader } from './gguf-metadata.ts'
import type { GgufValue } from './gguf-types.ts'

export interface ArrayReader extends MetadataReader {
  texts(key: string): readonly string[]
  /** An array of integers, of whatever type. */
  integers(key: string): readonly number[]
  /** An array of finite float32 or float64. */
  floats(key: string): readonly number[]
}

export function withArrays(reader: MetadataReader): ArrayReader {
  return {
    ...reader,
    texts: (key) => reader.read(key, 'an array of strings', (value) => (value.type === 'array' && value.itemType === 'string' ? value.value : undefined)),
    integers: (key) => integersAt(reader, key),
    floats(key) {
      const numbers = reader.read(key, 'an array of floats', floatsOf)
      return numbers.every(Number.isFinite) ? numbers : reader.fail(key, 'an array of finite floats')
    }
  }
}

/** A natural number for each layer, from an array of as many or from one number for all. */
export function perLayer(reader: MetadataReader, key: string, nLayers: number): readonly number[] {
  if (reader.typeOf(key) !== 'array') return Array.from({ length: nLayers }, () => reader.natural(key))
  const numbers = integersAt(reader, key)
  const isGood = numbers.length === nLayers && numbers.every((number) => number >= 0)
  return isGood ? numbers : reader.fail(key, `a natural number for each of ${nLayers} layers`)
}

function integersAt(reader: MetadataReader, key: string): readonly number[] {
  return reader.read(key, 'an array of integers', integersOf)
}

function integersOf(value: GgufValue): readonly number[] | undefined {
  if (value.type !== 'array' || value.itemType === 'string' || value.itemType === 'bool') return undefined
  const numbers = Array.from(value.value, Number)
  return numbers.every(Number.isSafeInteger) ? numbers : undefined
}

function floatsOf(value: GgufValue): readonly number[] | undefined {
  if (value.type !== 'array' || !isFloat(value.itemType)) return undefined
  return Array.from<number | bigint | string | boolean, number>(value.value, Number)
}
