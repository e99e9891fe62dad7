/** Where several sequences ask: whose requests are in a turn, and how many tokens of each. */

/** What a request asks of a turn. */
export interface Demand {
  /** Tokens that it has not read yet. */
  readonly nLeft: number
  /** Logits of each token, not of the last or of none. */
  readonly isAll: boolean
}

export interface Seating {
  readonly nSlots: number
  /** A sequence in a slot keeps it for so long while others wait. */
  readonly tenancyMs: number
  readonly nowMs: number
}

/**
 * Requests for the next turn, `nSlots` at most, and those that give their seat up. `queue` is in the order in which they came to wait;
 * `seatedMs` is when a request's sequence got its slot, null for one without. Who has a seat keeps it, since moving a state costs a copy,
 * but for those who had theirs for `tenancyMs` while others wait for one: the longest first, each for one of the waiting.
 */
export function takeSeats<R extends { readonly seatedMs: number | null }>(queue: readonly R[], { nSlots, tenancyMs, nowMs }: Seating): { chosen: R[]; displaced: R[] } {
  const seated: (R & { readonly seatedMs: number })[] = []
  const waiting: R[] = []
  for (const request of queue) {
    if (hasSeat(request)) seated.push(request)
    else waiting.push(request)
  }
  const nDisplaced = Math.max(0, waiting.length + seated.length - nSlots)
  const displaced = seated.filter(({ seatedMs }) => nowMs - seatedMs >= tenancyMs).sort((a, b) => a.seatedMs - b.seatedMs).slice(0, nDisplaced)
  const staying = displaced.length === 0 ? seated : seated.filter((request) => !displaced.includes(request))
  return { chosen: [...staying, ...waiting.slice(0, nSlots - staying.length)], displaced }
}

function hasSeat<R extends { readonly seatedMs: number | null }>(request: R): request is R & { readonly seatedMs: number } {
  return request.seatedMs !== null
}

export interface Rows {
  /** Of the turn. At least one for each demand. */
  readonly maxRows: number
  /** Logits of all tokens that fit their buffer: the demands for such share them. */
  readonly maxLogits: number
}

/**
 * Rows of each demand: as equal as can be, and none is left over that somebody wants (max-min fair). So a step of one token always has its
 * row, short prompts end soon, and long ones share the rest.
 */
export function shareRows(demands: readonly Demand[], { maxRows, maxLogits }: Rows): number[] {
  const mostLogits = Math.max(1, Math.floor(maxLogits / demands.length))
  const wants = demands.map(({ nLeft, isAll }) => (isAll ? Math.min(nLeft, mostLogits) : nLeft))
  const rows = wants.map(() => 0)
  let left = maxRows
  const order = wants.map((_, i) => i).sort((a, b) => wants[a] - wants[b] || a - b)
  order.forEach((index, i) => {
    rows[index] = Math.min(wants[index], Math.floor(left / (order.length - i)))
    left -= rows[index]
  })
  return rows
}

/** The queue with all requests of the sequences that gave their seat up at its end. */
export function moveBack<R extends { readonly sequence: unknown }>(queue: readonly R[], displaced: readonly R[]): R[] {
  const leaving = new Set(displaced.map(({ sequence }) => sequence))
  return [...queue.filter(({ sequence }) => !leaving.has(sequence)), ...queue.filter(({ sequence }) => leaving.has(sequence))]
}
