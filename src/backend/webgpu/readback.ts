/** From buffers of the GPU to the host, through a buffer that can be mapped. */

import { BUFFER_USAGE, MAP_READ } from './device.ts'

/** Elements [first, first + count) of a buffer of f32. */
export interface Piece {
  readonly buffer: GPUBuffer
  readonly first: number
  readonly count: number
}

export interface Readback {
  /** All pieces, one behind the other, in `into` from its start. `encoder`: commands that come before, submitted with the copies. */
  read(pieces: readonly Piece[], into: Float32Array, encoder?: GPUCommandEncoder): Promise<Float32Array>
  destroy(): void
}

/** At a time: the buffer that is mapped is no larger. */
const MOST_ELEMENTS = 2 ** 24

export function createReadback(device: GPUDevice): Readback {
  /** Kept for the next one. */
  let free: GPUBuffer | undefined
  const take = (bytes: number): GPUBuffer => {
    const taken = free
    free = undefined
    if (taken !== undefined && taken.size >= bytes) return taken
    taken?.destroy()
    return device.createBuffer({ label: 'readback', usage: BUFFER_USAGE.mapRead | BUFFER_USAGE.copyTarget, size: bytes })
  }
  const give = (buffer: GPUBuffer): void => {
    free?.destroy()
    free = buffer
  }
  const readTurn = async (pieces: readonly Piece[], into: Float32Array, encoder: GPUCommandEncoder): Promise<void> => {
    const bytes = 4 * into.length
    const buffer = take(bytes)
    let end = 0
    for (const piece of pieces) {
      encoder.copyBufferToBuffer(piece.buffer, 4 * piece.first, buffer, end, 4 * piece.count)
      end += 4 * piece.count
    }
    device.queue.submit([encoder.finish()])
    try {
      await buffer.mapAsync(MAP_READ, 0, bytes)
      into.set(new Float32Array(buffer.getMappedRange(0, bytes)))
      buffer.unmap()
    } catch (error) {
      buffer.destroy()
      throw error
    }
    give(buffer)
  }
  return {
    async read(pieces, into, encoder = device.createCommandEncoder()) {
      let first = 0
      let next = encoder
      for (const turn of turnsOf(pieces)) {
        const count = turn.reduce((sum, piece) => sum + piece.count, 0)
        await readTurn(turn, into.subarray(first, first + count), next)
        first += count
        next = device.createCommandEncoder()
      }
      return into
    },
    destroy() {
      free?.destroy()
      free = undefined
    }
  }
}

/** Pieces cut and gathered so that each turn is at most MOST_ELEMENTS; nothing is read where there is nothing. */
function turnsOf(pieces: readonly Piece[]): Piece[][] {
  const turns: Piece[][] = []
  let room = 0
  for (const { buffer, first, count } of pieces) {
    for (let done = 0; done < count; ) {
      if (room === 0) {
        turns.push([])
        room = MOST_ELEMENTS
      }
      const part = Math.min(room, count - done)
      turns[turns.length - 1].push({ buffer, first: first + done, count: part })
      done += part
      room -= part
    }
  }
  return turns
}
