/** The states that a session can go back to: the last few of those at every so many tokens. */

import type { CheckpointOptions } from './checkpoint-options.ts'
import type { Snapshot, SnapshotPool } from './snapshot.ts'

/** A state, null for the fresh one, after `position` tokens. */
export interface Checkpoint {
  readonly position: number
  readonly snapshot: Snapshot | null
}

export class CheckpointRing {
  readonly options: CheckpointOptions
  readonly #pool: SnapshotPool
  /** By position, ascending. */
  readonly #checkpoints: Checkpoint[] = []

  constructor(options: CheckpointOptions, pool: SnapshotPool) {
    this.options = options
    this.#pool = pool
  }

  /** The furthest back; undefined in an empty ring. */
  get oldest(): Checkpoint | undefined {
    return this.#checkpoints[0]
  }

  /** Where the next one is due, after `position`. */
  nextAfter(position: number): number {
    const { every } = this.options
    return (Math.floor(position / every) + 1) * every
  }

  /** Takes over the caller's hold. A position that is there already, or lies before the last, is let go. */
  add(checkpoint: Checkpoint): void {
    const last = this.#checkpoints.at(-1)
    if (last !== undefined && last.position >= checkpoint.position) {
      this.#release(checkpoint)
      return
    }
    this.#checkpoints.push(checkpoint)
    if (this.#checkpoints.length > this.options.keep) this.#release(this.#checkpoints.shift())
  }

  /** The last one from which a text of `position` tokens can be gone on with: one token is to be read again, for its logits. */
  before(position: number): Checkpoint | undefined {
    return this.#checkpoints.findLast((checkpoint) => checkpoint.position < position || checkpoint.position === 0)
  }

  /** Lets those after `position` go. */
  truncate(position: number): void {
    while ((this.#checkpoints.at(-1)?.position ?? -1) > position) this.#release(this.#checkpoints.pop())
  }

  /** Lets all go. */
  clear(): void {
    this.truncate(-1)
  }

  /** The same states: holding them twice costs nothing. */
  fork(): CheckpointRing {
    const fork = new CheckpointRing(this.options, this.#pool)
    for (const { position, snapshot } of this.#checkpoints) fork.#checkpoints.push({ position, snapshot: snapshot && this.#pool.hold(snapshot) })
    return fork
  }

  #release(checkpoint: Checkpoint | undefined): void {
    if (checkpoint?.snapshot) this.#pool.release(checkpoint.snapshot)
  }
}
