/**
 * Where threads must meet. An op is split by rows or by channels; what one thread wrote another may only read after a barrier,
 * unless both ops give the same columns to the same thread. The planner sets as few barriers as the data allows.
 */

import { isParameter, type KeyValuePart, type Op, type View } from './ops.ts'

/** How an op touches a view: each thread its own rows, its own channels (shares of SHARE from the view's first), or any part. */
type Split = 'rows' | 'channels' | 'any'

/** Columns of a buffer, or a layer's key-value cache as a whole. */
type Place = View | KeyValuePart

interface Access {
  readonly place: Place
  readonly split: Split
  readonly isWrite: boolean
}

/** For each op whether a barrier must follow it, before the next op. The last op's is implied. */
export function planBarriers(ops: readonly Op[]): boolean[] {
  const barriers = ops.map(() => false)
  let since: Access[] = []
  ops.forEach((op, i) => {
    const accesses = accessesOf(op)
    if (i > 0 && accesses.some((access) => since.some((earlier) => conflicts(earlier, access)))) {
      barriers[i - 1] = true
      since = []
    }
    since.push(...accesses)
  })
  return barriers
}

function conflicts(a: Access, b: Access): boolean {
  if (!a.isWrite && !b.isWrite) return false
  const [p, q] = [a.place, b.place]
  if (!isView(p) || !isView(q)) return p === q
  if (p.buffer !== q.buffer) return false
  if (p.offset + p.width <= q.offset || q.offset + q.width <= p.offset) return false
  if (a.split === 'any' || b.split === 'any' || a.split !== b.split) return true
  // Shares of channels count from the view's start and depend on its width: only equal views are split alike.
  return a.split === 'channels' && (p.offset !== q.offset || p.width !== q.width)
}

function isView(place: Place): place is View {
  return 'buffer' in place
}

function accessesOf(op: Op): Access[] {
  const read = (place: Place, split: Split): Access => ({ place, split, isWrite: false })
  const write = (place: Place, split: Split): Access => ({ place, split, isWrite: true })
  switch (op.kind) {
    case 'embed': return [write(op.out, 'rows')]
    // The rows of the logits are other rows than those of the tokens.
    case 'gatherRows': return [read(op.x, 'any'), write(op.out, 'rows')]
    case 'rmsNorm': return [read(op.x, 'rows'), ...(op.gate ? [read(op.gate, 'rows')] : []), write(op.out, 'rows')]
    case 'linear': return [read(op.x, 'any'), write(op.out, 'channels')]
    case 'conv1d': return [read(op.x, 'channels'), write(op.out, 'channels')]
    case 'selectiveScan': {
      // Tiles follow the groups: a single group is split as panels are.
      const isGrouped = [op.B, op.C].some((input) => isParameter(input) || input.width > op.dState)
      const split = isGrouped ? 'any' : 'channels'
      const perToken = [op.x, op.dt, ...(op.z ? [op.z] : [])].map((view) => read(view, split))
      const shared = [op.B, op.C].flatMap((input) => (isParameter(input) ? [] : [read(input, 'any')]))
      return [...perToken, ...shared, write(op.out, split)]
    }
    // Heads are no shares of SHARE channels.
    case 'ssdScan': return [...[op.x, op.dt, op.B, op.C].map((view) => read(view, 'any')), write(op.out, 'any')]
    case 'rotary': return [read(op.x, 'rows'), write(op.out, 'rows')]
    case 'cacheKeyValue': return [read(op.key, 'rows'), read(op.value, 'rows'), write(op.cache, 'any')]
    // Split over rows and heads.
    case 'attention': return [read(op.q, 'any'), read(op.cache, 'any'), write(op.out, 'any')]
    // As the linear op before it, which then needs no barrier.
    case 'activation': return [read(op.x, 'channels'), ...(op.by ? [read(op.by, 'channels')] : []), write(op.out, 'channels')]
    case 'scaledAdd': return [read(op.x, 'rows'), write(op.out, 'rows')]
    case 'route': return [read(op.x, 'rows'), write(op.out, 'rows')]
    case 'expertLinear': return [read(op.x, 'any'), read(op.choices, 'any'), write(op.out, 'any')]
    case 'mixExperts': return [read(op.x, 'rows'), read(op.choices, 'rows'), write(op.out, 'rows')]
  }
}
