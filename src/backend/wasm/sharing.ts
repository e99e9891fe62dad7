/**
 * How threads share the ops of a program, and where they must meet. An op is split by rows or by channels; what one thread wrote another may
 * only read after a barrier, unless both ops give the same columns to the same thread. The planner sets as few barriers as the data allows.
 */

import { EACH_ONE, HELP_MANY, HELP_ONE, LINEAR_N_PARTS, MEET_MANY, MEET_ONE, OP_FLAGS, SHARE } from '../../../assembly/abi.ts'
import { columns } from '../../program/builder.ts'
import { elementsOf, isParameter, type KeyValuePart, type Op, type View } from '../../program/ops.ts'
import { panelsOf, recordAt } from './encode.ts'
import type { MemoryMap } from './memory-map.ts'
import { packedBytes } from './packing.ts'

/** How an op touches a view: each thread its own rows, its own channels (shares of SHARE from the view's first), any part, or each thread all of it. */
type Split = 'rows' | 'channels' | 'any' | 'each'

/** Columns of a buffer, or a layer's key-value cache as a whole. */
type Place = View | KeyValuePart

interface Access {
  readonly place: Place
  readonly split: Split
  readonly isWrite: boolean
}

const read = (place: Place, split: Split): Access => ({ place, split, isWrite: false })
const write = (place: Place, split: Split): Access => ({ place, split, isWrite: true })

/** How threads share an op. */
export interface Sharing {
  /** Whether all meet after it, before the next op; after the last op they do in any case. */
  readonly meets: Readonly<Record<Rows, boolean>>
  /** Each thread does a batch's only row for itself, which is cheaper than to wait for another's. */
  readonly each: boolean
  /** Equal parts of a linear op's outputs of which each thread has its share. */
  readonly nParts: number
  /** A thread may do some of another's share: of a linear op outputs of the last part. */
  readonly isHelped: Readonly<Record<Rows, boolean>>
}

/** Whether a batch has one token or more. */
type Rows = 'one' | 'many'

/** Adds to the records of a program how threads share it. */
export function shareOps(ops: readonly Op[], map: MemoryMap, memory: ArrayBufferLike): void {
  planSharing(ops).forEach(({ meets, each, nParts, isHelped }, i) => {
    const op = ops[i]
    const words = recordAt(map, memory, i)
    words[OP_FLAGS] |= Number(meets.one) * MEET_ONE + Number(meets.many) * MEET_MANY + Number(each) * EACH_ONE
    if (op.kind === 'linear') words[LINEAR_N_PARTS] = nParts
    const isLarge = op.kind !== 'linear' || packedBytes(panelsOf(map, op.weight)) >= HELPED_BYTES
    if (isLarge) words[OP_FLAGS] |= Number(isHelped.one) * HELP_ONE + Number(isHelped.many) * HELP_MANY
  })
}

/** From so many bytes of weights on: a few µs for each thread, since it takes a part of one to ask and to be answered. */
const HELPED_BYTES = 2 ** 19
/** What an element of the scan costs, in products of a linear op. */
const SCAN_COST = 32

export function planSharing(ops: readonly Op[]): Sharing[] {
  const nParts = ops.map((_, i) => partsOf(ops, i))
  const accesses = ops.map((op, i) => accessesOf(op, nParts[i]))
  const accessesOfOne = ops.map((op, i) => (isForEach(op) ? accesses[i].map((access): Access => ({ ...access, split: 'each' })) : accesses[i]))
  const one = barriersOf(accessesOfOne)
  const many = barriersOf(accesses)
  const helpedOfOne = helpedOf(ops.map((op) => (op.kind === 'linear' ? costOf(op) : 0)), ops, accessesOfOne, one)
  const helped = helpedOf(ops.map(costOf), ops, accesses, many)
  return ops.map((op, i) => ({
    meets: { one: one[i], many: many[i] }, each: isForEach(op), nParts: nParts[i], isHelped: { one: helpedOfOne.has(i), many: helped.has(i) }
  }))
}

/** What a row of an op costs, of one that threads can help each other with; else 0. */
function costOf(op: Op): number {
  switch (op.kind) {
    case 'linear': return elementsOf(op.weight.shape)
    case 'selectiveScan': return op.x.width * op.dState * SCAN_COST
    default: return 0
  }
}

/**
 * Ops of which anybody may do some, once their owner has done all before them and if nothing after them up to the barrier minds: from barrier to barrier the one
 * that costs most, since a thread opens one share at a time.
 */
function helpedOf(costs: readonly number[], ops: readonly Op[], accesses: readonly (readonly Access[])[], barriers: readonly boolean[]): Set<number> {
  const helped = new Set<number>()
  for (let first = 0; first < ops.length; ) {
    const last = barriers.indexOf(true, first)
    const end = last < 0 ? ops.length : last + 1
    const isFree = (i: number): boolean => {
      const own = accesses[i].map((access, j): Access => (ops[i].kind === 'linear' && j < accesses[i].length - 1 ? access : { ...access, split: 'any' }))
      return !accesses.slice(i + 1, end).some((later) => later.some((access) => own.some((other) => conflicts(other, access))))
    }
    const free = ops.slice(first, end).map((_, i) => first + i).filter((i) => costs[i] > 0 && isFree(i))
    const most = Math.max(...free.map((i) => costs[i]))
    if (free.length > 0) helped.add(free.find((i) => costs[i] === most)!)
    first = end
  }
  return helped
}

function barriersOf(opAccesses: readonly (readonly Access[])[]): boolean[] {
  const barriers = opAccesses.map(() => false)
  let since: Access[] = []
  opAccesses.forEach((accesses, i) => {
    if (i > 0 && accesses.some((access) => since.some((earlier) => conflicts(earlier, access)))) {
      barriers[i - 1] = true
      since = []
    }
    since.push(...accesses)
  })
  return barriers
}

/** All threads may write the same numbers to the same place, if they do so once and read only what no thread writes. */
function isForEach(op: Op): boolean {
  switch (op.kind) {
    case 'embed': case 'gatherRows': return true
    case 'rmsNorm': return !op.gate && op.x.buffer !== op.out.buffer
    default: return false
  }
}

/** Two where what follows reads the halves of a linear op's outputs by channels: x and z of in_proj, or a gate and what it multiplies. */
function partsOf(ops: readonly Op[], i: number): number {
  const op = ops[i]
  if (op.kind !== 'linear' || op.out.width % (2 * SHARE) !== 0) return 1
  for (let next = i + 1; next < ops.length; next++) {
    const reader = accessesOf(ops[next]).find(({ place, isWrite }) => !isWrite && isView(place) && overlap(place, op.out))
    if (reader) return equalParts(op.out, 2).every((half) => !conflicts(write(half, 'channels'), reader)) ? 2 : 1
  }
  return 1
}

function equalParts(view: View, nParts: number): View[] {
  const width = view.width / nParts
  return Array.from({ length: nParts }, (_, i) => columns(view, i * width, width))
}

function conflicts(a: Access, b: Access): boolean {
  if (!a.isWrite && !b.isWrite) return false
  const [p, q] = [a.place, b.place]
  if (!isView(p) || !isView(q)) return p === q
  if (!overlap(p, q)) return false
  // What each thread has written itself it may read.
  if (a.split === 'each' && a.isWrite && !b.isWrite) return false
  if (a.split !== b.split || a.split === 'any' || a.split === 'each') return true
  // Shares of channels count from the view's start and depend on its width: only equal views are split alike.
  return a.split === 'channels' && (p.offset !== q.offset || p.width !== q.width)
}

function overlap(p: View, q: View): boolean {
  return p.buffer === q.buffer && p.offset < q.offset + q.width && q.offset < p.offset + p.width
}

function isView(place: Place): place is View {
  return 'buffer' in place
}

function accessesOf(op: Op, nParts = 1): Access[] {
  switch (op.kind) {
    case 'embed': return [write(op.out, 'rows')]
    // The rows of the logits are other rows than those of the tokens.
    case 'gatherRows': return [read(op.x, 'any'), write(op.out, 'rows')]
    case 'rmsNorm': return [read(op.x, 'rows'), ...(op.gate ? [read(op.gate, 'rows')] : []), write(op.out, 'rows')]
    case 'linear': return [read(op.x, 'any'), ...equalParts(op.out, nParts).map((part) => write(part, 'channels'))]
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
