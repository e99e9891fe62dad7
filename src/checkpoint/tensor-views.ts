/** Tensors whose bytes stand elsewhere in another order: halves, stacks, permuted rows. They are read by range like any other; nothing is copied ahead. */
import { UnsupportedError } from '../errors.ts'
import type { ByteSource } from './byte-source.ts'
import type { TensorEntry } from './safetensors.ts'

interface Piece {
  readonly source: ByteSource
  readonly start: number
  readonly byteLength: number
}

/** Pieces of sources, one behind the other. Closing it closes none of them. */
function joined(name: string, pieces: readonly Piece[]): ByteSource {
  const starts: number[] = []
  let byteLength = 0
  for (const piece of pieces) {
    starts.push(byteLength)
    byteLength += piece.byteLength
  }
  return {
    name,
    byteLength,
    async read(start, end, signal) {
      const first = starts.findLastIndex((at) => at <= start)
      const out = new Uint8Array(end - start)
      for (let i = first; i < pieces.length && starts[i] < end; i++) {
        const { source, start: from, byteLength: length } = pieces[i]
        const at = Math.max(start, starts[i])
        const bytes = await source.read(from + at - starts[i], from + Math.min(end - starts[i], length), signal)
        // All in one piece, as most are.
        if (bytes.byteLength === out.byteLength) return bytes
        out.set(bytes, at - start)
      }
      return out
    },
    async close() {}
  }
}

/** Half of the rows of (…, 2 · nRows, nColumns): of each matrix the first (0) or the second (1). */
export function halfOf(entry: TensorEntry, half: 0 | 1): TensorEntry {
  const { shape, source, start, byteLength } = entry
  const matrices = shape.slice(0, -2)
  const nMatrices = matrices.reduce((product, length) => product * length, 1)
  const halfBytes = byteLength / nMatrices / 2
  const pieces = Array.from({ length: nMatrices }, (_, i) => ({ source, start: start + (2 * i + half) * halfBytes, byteLength: halfBytes }))
  const halfShape = [...matrices, shape[shape.length - 2] / 2, shape[shape.length - 1]]
  if (nMatrices === 1) return { ...entry, shape: halfShape, ...pieces[0] }
  return { ...entry, shape: halfShape, source: joined(source.name, pieces), start: 0, byteLength: byteLength / 2 }
}

/** Tensors of one shape as one with a dimension more. Throws an UnsupportedError where they are not of one type. */
export function stackOf(entries: readonly TensorEntry[]): TensorEntry {
  const [first] = entries
  const other = entries.find(({ dtype }) => dtype !== first.dtype)
  if (other !== undefined) throw new UnsupportedError({ place: `${other.source.name}, ${other.name}`, expected: `${first.dtype}, as ${first.name}`, got: other.dtype })
  const name = entries.length === 1 ? first.name : `${first.name} to ${entries[entries.length - 1].name}`
  return { ...first, name, shape: [entries.length, ...first.shape], source: joined(first.source.name, entries), start: 0, byteLength: first.byteLength * entries.length }
}

/**
 * Rows in another order within each block of `order.length` of them: row i of a block is row `order[i]`. Its bytes keep their places in the
 * source, block by block. Rows of quantized blocks move whole, so nothing is rounded.
 */
export function permutedRows(entry: TensorEntry, order: readonly number[]): TensorEntry {
  const { source, start, byteLength, shape } = entry
  const rowBytes = byteLength / shape[0]
  const blockBytes = rowBytes * order.length
  const permuted: ByteSource = {
    name: source.name,
    byteLength: source.byteLength,
    async read(from, to, signal) {
      const first = Math.floor((from - start) / blockBytes) * blockBytes
      const last = Math.ceil((to - start) / blockBytes) * blockBytes
      const bytes = await source.read(start + first, start + last, signal)
      const out = new Uint8Array(bytes.byteLength)
      for (let block = 0; block < out.byteLength; block += blockBytes) {
        order.forEach((row, i) => out.set(bytes.subarray(block + row * rowBytes, block + (row + 1) * rowBytes), block + i * rowBytes))
      }
      return out.subarray(from - start - first, to - start - first)
    },
    async close() {}
  }
  return { ...entry, source: permuted }
}
