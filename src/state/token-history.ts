/** The tokens of a session's text that it still needs: those to be read, and those behind them as far back as it may go or look. */

const FIRST_CAPACITY = 16

export class TokenHistory {
  #ids: Int32Array
  /** Place in #ids of the first token kept. */
  #offset = 0
  #length = 0
  #start: number
  /** Another history uses the same memory: it is copied before it changes. */
  #isShared = false

  /** Empty, at a position of the text. */
  constructor(start = 0) {
    this.#ids = new Int32Array(FIRST_CAPACITY)
    this.#start = start
  }

  /** Position of the first token kept. */
  get start(): number {
    return this.#start
  }

  /** Position after the last token: tokens of the text. */
  get end(): number {
    return this.#start + this.#length
  }

  push(ids: Int32Array): void {
    this.#makeRoom(ids.length)
    this.#ids.set(ids, this.#offset + this.#length)
    this.#length += ids.length
  }

  /** The tokens at positions [from, to), a view: good until the next change. */
  slice(from: number, to: number): Int32Array {
    const first = this.#offset + from - this.#start
    return this.#ids.subarray(first, first + to - from)
  }

  /** Ends before position `end`, from `start` on. */
  truncate(end: number): void {
    this.#length = Math.max(0, Math.min(this.#length, end - this.#start))
  }

  /** Keeps no token before `position`. */
  forget(position: number): void {
    const count = Math.max(0, Math.min(this.#length, position - this.#start))
    this.#start += count
    this.#offset += count
    this.#length -= count
  }

  /** The same tokens; the two are independent. */
  fork(): TokenHistory {
    const fork = new TokenHistory(this.#start)
    fork.#ids = this.#ids
    fork.#offset = this.#offset
    fork.#length = this.#length
    fork.#isShared = this.#isShared = true
    return fork
  }

  /** For `count` tokens more, in memory of our own. Twice what is needed: pushing a text token by token is linear in its length. */
  #makeRoom(count: number): void {
    const needed = this.#length + count
    const isLarge = this.#ids.length > 4 * Math.max(FIRST_CAPACITY, needed)
    if (!this.#isShared && !isLarge && this.#offset + needed <= this.#ids.length) return
    const ids = new Int32Array(Math.max(FIRST_CAPACITY, 2 * needed))
    ids.set(this.#ids.subarray(this.#offset, this.#offset + this.#length))
    this.#ids = ids
    this.#offset = 0
    this.#isShared = false
  }
}
