/**
 * Stop strings over streamed text: what may be shown already, and when to stop.
 *
 * The automaton of Aho & Corasick (1975) over UTF-16 units. Its state is the longest end of the text that may still become a
 * stop string: just that is held back, and a unit of text costs a constant number of steps however many stop strings there are.
 */
import { checkStops, type StopMatcher } from './stop-options.ts'

/** A prefix of a stop string. */
interface Node {
  readonly depth: number
  readonly next: Map<number, Node>
  /** The longest proper suffix of this prefix that is a prefix of a stop string too. */
  fallback: Node | undefined
  /** The longest stop string that ends here. */
  stop: string | undefined
}

/**
 * A matcher for the given strings. The match that is complete first wins, however the text is cut into pieces; of several that end at the
 * same place, the longest. RangeError for an empty string or one with half a surrogate pair, TypeError for anything but strings.
 */
export function createStopMatcher(stops: readonly string[]): StopMatcher {
  checkStops(stops)
  const root = buildAutomaton(stops)
  let node = root
  let held = ''
  let met: string | undefined

  return {
    push(piece) {
      if (met !== undefined) return { text: '', stopped: true, stop: met }
      const text = held + piece
      for (let i = held.length; i < text.length; i++) {
        node = step(root, node, text.charCodeAt(i))
        if (node.stop === undefined) continue
        met = node.stop
        held = ''
        return { text: text.slice(0, i + 1 - met.length), stopped: true, stop: met }
      }
      const nHeld = node.depth > 0 ? node.depth : endsInHalfAPair(text)
      held = text.slice(text.length - nHeld)
      return { text: text.slice(0, text.length - nHeld), stopped: false }
    },
    flush() {
      const rest = held
      node = root
      held = ''
      met = undefined
      return rest
    }
  }
}

function step(root: Node, from: Node, unit: number): Node {
  let node: Node | undefined = from
  while (node !== undefined) {
    const next = node.next.get(unit)
    if (next !== undefined) return next
    node = node.fallback
  }
  return root
}

function endsInHalfAPair(text: string): 0 | 1 {
  const last = text.charCodeAt(text.length - 1)
  return last >= 0xd800 && last < 0xdc00 ? 1 : 0
}

function buildAutomaton(stops: readonly string[]): Node {
  const root = createNode(0)
  for (const stop of stops) {
    let node = root
    for (let i = 0; i < stop.length; i++) {
      const unit = stop.charCodeAt(i)
      const next = node.next.get(unit) ?? createNode(i + 1)
      node.next.set(unit, next)
      node = next
    }
    node.stop = stop
  }
  // Breadth first: a fallback is shorter, hence complete before it is asked for.
  const queue = [root]
  for (const node of queue) {
    for (const [unit, next] of node.next) {
      next.fallback = node.fallback === undefined ? root : step(root, node.fallback, unit)
      next.stop ??= next.fallback.stop
      queue.push(next)
    }
  }
  return root
}

function createNode(depth: number): Node {
  return { depth, next: new Map(), fallback: undefined, stop: undefined }
}
