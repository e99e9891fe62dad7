/**
 * What has been read before, by its tokens: a radix tree with a value, the state, at some of its points.
 *
 * Eviction is GreedyDual (Young 1994; with sizes, Cao & Irani 1997): a value's priority is the cache's age at its last use plus what it is worth, the
 * tokens it saves (those after the next value above it: that one serves where it is gone) over its bytes; the least goes, and the age becomes its
 * priority. So what saves much stays longer, and what nobody asks for goes in the end. All tokens of a model cost the same work: a factor that
 * would divide out.
 */

export interface PrefixCacheMetrics {
  /** Texts that began with a known prefix, and those that did not. */
  readonly hits: number
  readonly misses: number
  /** Tokens that were not read again. */
  readonly tokensSaved: number
  /** Of the states and of the tokens that lead to them. */
  readonly bytes: number
  readonly maxBytes: number
  readonly entries: number
  readonly evictions: number
}

export interface Found<T> {
  /** The value after the longest known prefix, and that prefix's tokens; null and 0 where there is none. */
  readonly value: T | null
  readonly length: number
  /** Tokens that the text has in common with any known one: more than `length` where the two part at a point without a value. */
  readonly sharedLength: number
}

export interface PrefixCache<T> {
  readonly metrics: PrefixCacheMetrics
  /** The longest known prefix of `ids`, which may be all of them. */
  find(ids: Int32Array): Found<T>
  /** Takes a value over, unless there is one for these tokens or it goes beyond the budget by itself: then false, and it is let go. */
  insert(ids: Int32Array, value: T, bytes: number): boolean
  clear(): void
}

interface Entry<T> {
  readonly value: T
  readonly bytes: number
  /** The cache's age at the last use. */
  age: number
  /** Number of the last use: of equals the one used longest ago goes. */
  usedAt: number
}

interface Node<T> {
  /** Tokens from the parent to here. */
  edge: Int32Array
  parent: Node<T> | null
  readonly depth: number
  /** By the first token of their edges. */
  readonly children: Map<number, Node<T>>
  entry: Entry<T> | null
}

const TOKEN_BYTES = 4

/** `letGo` gets every value that is not kept, or no longer. */
export function createPrefixCache<T>({ maxBytes, letGo }: { readonly maxBytes: number; readonly letGo: (value: T) => void }): PrefixCache<T> {
  const root: Node<T> = { edge: new Int32Array(0), parent: null, depth: 0, children: new Map(), entry: null }
  const holders = new Set<Node<T>>()
  const counts = { hits: 0, misses: 0, tokensSaved: 0, evictions: 0, bytes: 0 }
  let age = 0
  let nUses = 0

  const use = (entry: Entry<T>): void => {
    entry.age = age
    entry.usedAt = nUses++
  }
  const remove = (node: Node<T>): void => {
    if (node.entry === null) return
    counts.bytes -= node.entry.bytes
    letGo(node.entry.value)
    node.entry = null
    holders.delete(node)
    counts.bytes -= TOKEN_BYTES * prune(node)
  }
  const evictBeside = (kept: Node<T>): void => {
    let least: Node<T> | null = null
    let leastPriority = Infinity
    for (const node of holders) {
      if (node === kept || node.entry === null) continue
      const priority = node.entry.age + (node.depth - depthAbove(node)) / node.entry.bytes
      const isLess = priority < leastPriority || (priority === leastPriority && node.entry.usedAt < (least?.entry?.usedAt ?? 0))
      if (!isLess) continue
      least = node
      leastPriority = priority
    }
    if (least === null) return
    age = Math.max(age, leastPriority)
    counts.evictions++
    remove(least)
  }

  return {
    get metrics() {
      return { ...counts, maxBytes, entries: holders.size }
    },
    find(ids) {
      const { node, length } = walk(root, ids)
      const found = length === node.depth && node.entry !== null ? node : nearestAbove(node)
      if (found?.entry) {
        use(found.entry)
        counts.hits++
        counts.tokensSaved += found.depth
      } else {
        counts.misses++
      }
      return { value: found?.entry?.value ?? null, length: found?.depth ?? 0, sharedLength: length }
    },
    insert(ids, value, valueBytes) {
      const { node, length } = walk(root, ids)
      const known = length === ids.length && node.depth === length ? node.entry : null
      if (known !== null || ids.length === 0 || valueBytes + TOKEN_BYTES * ids.length > maxBytes) {
        if (known !== null) use(known)
        letGo(value)
        return false
      }
      const place = grow(node, length, ids)
      place.entry = { value, bytes: valueBytes, age: 0, usedAt: 0 }
      use(place.entry)
      holders.add(place)
      counts.bytes += valueBytes + TOKEN_BYTES * (ids.length - length)
      // It is within the budget by itself.
      while (counts.bytes > maxBytes) evictBeside(place)
      return true
    },
    clear() {
      for (const node of holders) remove(node)
    }
  }
}

/** Follows `ids` from the root: the node whose edge holds the last common token, at its end or within, and the tokens in common. */
function walk<T>(root: Node<T>, ids: Int32Array): { readonly node: Node<T>; readonly length: number } {
  let node = root
  let length = 0
  while (length < ids.length) {
    const child = node.children.get(ids[length])
    if (child === undefined) break
    node = child
    let common = 1
    while (common < child.edge.length && length + common < ids.length && child.edge[common] === ids[length + common]) common++
    length += common
    if (common < child.edge.length) break
  }
  return { node, length }
}

function nearestAbove<T>(node: Node<T>): Node<T> | null {
  let above = node.parent
  while (above !== null && above.entry === null) above = above.parent
  return above
}

function depthAbove<T>(node: Node<T>): number {
  return nearestAbove(node)?.depth ?? 0
}

/** The node of `ids`, whose first `length` tokens lead to `node` or into its edge. */
function grow<T>(node: Node<T>, length: number, ids: Int32Array): Node<T> {
  const top = length < node.depth ? splitEdge(node, length) : node
  if (length === ids.length) return top
  const leaf: Node<T> = { edge: ids.slice(length), parent: top, depth: ids.length, children: new Map(), entry: null }
  top.children.set(ids[length], leaf)
  return leaf
}

/** A new node within the edge of `node`, at `depth`. */
function splitEdge<T>(node: Node<T>, depth: number): Node<T> {
  const { parent } = node
  if (parent === null) throw new TypeError('the root has no edge')
  const cut = depth - parent.depth
  const middle: Node<T> = { edge: node.edge.slice(0, cut), parent, depth, children: new Map([[node.edge[cut], node]]), entry: null }
  parent.children.set(node.edge[0], middle)
  node.edge = node.edge.slice(cut)
  node.parent = middle
  return middle
}

/** Takes nodes away that lead to no value, and joins edges at points where nothing parts. Returns the tokens that went. */
function prune<T>(from: Node<T>): number {
  let node = from
  let nTokens = 0
  while (node.parent !== null && node.entry === null && node.children.size === 0) {
    nTokens += node.edge.length
    node.parent.children.delete(node.edge[0])
    node = node.parent
  }
  const [only] = node.children.values()
  if (node.parent === null || node.entry !== null || node.children.size > 1) return nTokens
  const edge = new Int32Array(node.edge.length + only.edge.length)
  edge.set(node.edge)
  edge.set(only.edge, node.edge.length)
  only.edge = edge
  only.parent = node.parent
  node.parent.children.set(edge[0], only)
  return nTokens
}
