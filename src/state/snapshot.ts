/**
 * States at rest: what forks share, the prefix cache keeps and a session goes back to. A snapshot is never changed while anyone holds it, so
 * holding it once more costs nothing; when the last holder lets go, its memory serves the next one.
 *
 * Memory is taken again because new memory is what a copy would mostly wait for: the system hands it out page by page, and zeroed.
 */

/** The canonical state (`Backend.readState`) of a sequence that has read `position` tokens, one at least. */
export interface Snapshot {
  readonly position: number
  readonly state: Float32Array
  /** Holders; the pool's business alone. */
  nHolders: number
}

export interface SnapshotPool {
  /** A snapshot to be filled, with one holder. */
  take(position: number): Snapshot
  /** One holder more. */
  hold(snapshot: Snapshot): Snapshot
  /** One holder less; the last one must not touch it again. */
  release(snapshot: Snapshot): void
  /** Snapshots that someone holds, and the memory that waits for the next. */
  usage(): { readonly nHeld: number; readonly freeBytes: number }
}

/** Memory that may wait: a dozen states of mamba-130m. */
const MAX_FREE_BYTES = 2 ** 25

/** `elementsAt`: elements of a state after so many tokens. Only the memory of states of the same size is used again. */
export function createSnapshotPool(elementsAt: (position: number) => number): SnapshotPool {
  const free: Float32Array[] = []
  let freeBytes = 0
  let nHeld = 0
  return {
    take(position) {
      const nElements = elementsAt(position)
      const index = free.findLastIndex((state) => state.length === nElements)
      const [state = new Float32Array(nElements)] = index < 0 ? [] : free.splice(index, 1)
      if (index >= 0) freeBytes -= state.byteLength
      nHeld++
      return { position, state, nHolders: 1 }
    },
    hold(snapshot) {
      if (snapshot.nHolders === 0) throw new TypeError('a snapshot that nobody holds any more')
      snapshot.nHolders++
      return snapshot
    },
    release(snapshot) {
      if (snapshot.nHolders === 0) throw new TypeError('a snapshot that nobody holds any more')
      snapshot.nHolders--
      if (snapshot.nHolders > 0) return
      nHeld--
      free.push(snapshot.state)
      freeBytes += snapshot.state.byteLength
      // The oldest goes first: where sizes grow with the text, it is the least likely to fit again.
      while (freeBytes > MAX_FREE_BYTES && free.length > 1) freeBytes -= free.shift()?.byteLength ?? 0
    },
    usage: () => ({ nHeld, freeBytes })
  }
}
