/**
 * An unpickler for state dicts, and for nothing else: Python's pickle is a program that may call anything, this one calls what its caller lists.
 *
 * The opcodes are those that torch.save writes for a dict of tensors in protocols 2 to 4; another one is refused by its name, and so is every global
 * that is not listed. No global is ever looked up or run: a name is the key of a table. Time and memory are bounded by the length of the pickle, which the
 * caller bounds, and by the limits below; nothing recurs, so no nesting is too deep for it.
 */
import { CheckpointError, UnsupportedError, describe } from '../errors.ts'
import { decodeText } from './byte-source.ts'
import { describeValue, OPCODE_NAMES, type PickleDict, type PickleTuple, type PickleValue } from './pickle-values.ts'

/** Makes a value of its arguments, or throws. */
export type PickleFunction = (args: readonly PickleValue[], place: string) => PickleValue

export interface PickleWorld {
  /** What may be named, as `module name`; null for what is no function. */
  readonly globals: ReadonlyMap<string, PickleFunction | null>
  /** The value of a persistent id: what the pickle leaves to its surroundings. */
  readonly load: (id: PickleValue, place: string) => PickleValue
}

interface Machine {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly name: string
  readonly world: PickleWorld
  /** Of the opcode under way. */
  opStart: number
  at: number
  readonly stack: PickleValue[]
  /** Heights of the stack. */
  readonly marks: number[]
  readonly memo: Map<number, PickleValue>
  nObjects: number
}

const MAX_PROTOCOL = 4
/** Batches of a thousand pairs are what Python writes. */
const MAX_STACK = 2 ** 16
/** Two is what a state dict needs. */
const MAX_MARKS = 64
/** Eight a tensor; of the largest mixtures of experts a file has some thousand tensors. */
const MAX_OBJECTS = 2 ** 18
/** Eight a tensor. */
const MAX_MEMO = 2 ** 18
/** Sixty a tensor. */
const MAX_STEPS = 2 ** 21
const MAX_NAME_BYTES = 256
/** Larger integers are no sizes. */
const MAX_LONG_BYTES = 8

/**
 * The value that a pickle holds, and nothing but it. `name` is its place in messages. Throws a CheckpointError for what is damaged,
 * and an UnsupportedError for opcodes and globals that state dicts do not have.
 */
export function unpickle(bytes: Uint8Array, name: string, world: PickleWorld): PickleValue {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const machine: Machine = { bytes, view, name, world, opStart: 0, at: 0, stack: [], marks: [], memo: new Map(), nObjects: 0 }
  for (let nSteps = 0; ; nSteps++) {
    machine.opStart = machine.at
    if (nSteps >= MAX_STEPS) fail(machine, `at most ${MAX_STEPS} opcodes`, 'more')
    const code = bytes[take(machine, 1)]
    const opcode = OPCODE_NAMES.get(code)
    if (opcode === 'STOP') return stop(machine)
    const run = OPCODES.get(opcode)
    if (run !== undefined) run(machine)
    else if (opcode === undefined) fail(machine, 'an opcode', `byte ${code}`)
    else throw new UnsupportedError({ place: placeOf(machine), expected: 'the opcodes of a state dict', got: opcode })
    if (machine.stack.length > MAX_STACK) fail(machine, `at most ${MAX_STACK} values on the stack`, 'more')
  }
}

const OPCODES: ReadonlyMap<string | undefined, (machine: Machine) => void> = new Map<string, (machine: Machine) => void>([
  ['PROTO', readProtocol],
  // A frame tells a reader of streams how much to fetch.
  ['FRAME', (machine) => void readLength(machine, 8)],
  ['MARK', mark],
  ['NONE', (machine) => machine.stack.push(null)],
  ['NEWTRUE', (machine) => machine.stack.push(true)],
  ['NEWFALSE', (machine) => machine.stack.push(false)],
  ['BININT1', (machine) => machine.stack.push(machine.view.getUint8(take(machine, 1)))],
  ['BININT2', (machine) => machine.stack.push(machine.view.getUint16(take(machine, 2), true))],
  ['BININT', (machine) => machine.stack.push(machine.view.getInt32(take(machine, 4), true))],
  ['LONG1', (machine) => machine.stack.push(readLong(machine))],
  ['SHORT_BINUNICODE', (machine) => machine.stack.push(readText(machine, 1))],
  ['BINUNICODE', (machine) => machine.stack.push(readText(machine, 4))],
  ['EMPTY_TUPLE', (machine) => pushTuple(machine, [])],
  ['TUPLE1', (machine) => pushTuple(machine, popMany(machine, 1))],
  ['TUPLE2', (machine) => pushTuple(machine, popMany(machine, 2))],
  ['TUPLE3', (machine) => pushTuple(machine, popMany(machine, 3))],
  ['TUPLE', (machine) => pushTuple(machine, popToMark(machine))],
  ['EMPTY_DICT', (machine) => pushObject(machine, { kind: 'dict', items: new Map() })],
  ['SETITEM', (machine) => setItems(machine, popMany(machine, 2))],
  ['SETITEMS', (machine) => setItems(machine, popToMark(machine))],
  ['GLOBAL', (machine) => pushGlobal(machine, readLine(machine), readLine(machine))],
  ['STACK_GLOBAL', pushStackGlobal],
  ['REDUCE', reduce],
  ['BUILD', build],
  ['BINPERSID', (machine) => pushObject(machine, machine.world.load(pop(machine), placeOf(machine)))],
  ['BINPUT', (machine) => memoize(machine, machine.view.getUint8(take(machine, 1)))],
  ['LONG_BINPUT', (machine) => memoize(machine, machine.view.getUint32(take(machine, 4), true))],
  ['MEMOIZE', (machine) => memoize(machine, machine.memo.size)],
  ['BINGET', (machine) => recall(machine, machine.view.getUint8(take(machine, 1)))],
  ['LONG_BINGET', (machine) => recall(machine, machine.view.getUint32(take(machine, 4), true))]
])

function placeOf({ name, opStart }: Machine): string {
  return `${name}, offset ${opStart}`
}

function fail(machine: Machine, expected: string, got: string): never {
  throw new CheckpointError({ place: placeOf(machine), expected, got })
}

/** The offset of the next `byteLength` bytes, which are there. */
function take(machine: Machine, byteLength: number): number {
  const { at, bytes } = machine
  if (byteLength > bytes.byteLength - at) fail(machine, `${byteLength} more bytes`, `${bytes.byteLength - at} to the end of the pickle`)
  machine.at += byteLength
  return at
}

/** A length of what is still to come. */
function readLength(machine: Machine, lengthBytes: 1 | 4 | 8): number {
  const at = take(machine, lengthBytes)
  const { view, bytes } = machine
  const length = lengthBytes === 8 ? view.getBigUint64(at, true) : lengthBytes === 4 ? view.getUint32(at, true) : view.getUint8(at)
  const left = bytes.byteLength - machine.at
  return length <= left ? Number(length) : fail(machine, `a length of at most ${left} bytes`, `${length}`)
}

function readText(machine: Machine, lengthBytes: 1 | 4): string {
  const start = take(machine, readLength(machine, lengthBytes))
  return decodeText(machine.bytes.subarray(start, machine.at), placeOf(machine))
}

function readLine(machine: Machine): string {
  const { bytes, at } = machine
  const length = bytes.subarray(at, at + MAX_NAME_BYTES).indexOf(0x0a)
  if (length < 0) fail(machine, `a name of fewer than ${MAX_NAME_BYTES} bytes and the end of its line`, 'none')
  machine.at += length + 1
  return decodeText(bytes.subarray(at, at + length), placeOf(machine))
}

/** Two's complement, the lowest byte first; no bytes are 0. */
function readLong(machine: Machine): number {
  const byteLength = readLength(machine, 1)
  if (byteLength > MAX_LONG_BYTES) fail(machine, `an integer of at most ${MAX_LONG_BYTES} bytes`, `${byteLength} bytes`)
  const start = take(machine, byteLength)
  let value = 0n
  for (let i = byteLength - 1; i >= 0; i--) value = (value << 8n) | BigInt(machine.bytes[start + i])
  value = BigInt.asIntN(8 * byteLength, value)
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : fail(machine, 'an integer within 2^53', `${value}`)
}

function readProtocol(machine: Machine): void {
  const protocol = machine.view.getUint8(take(machine, 1))
  if (machine.opStart !== 0) fail(machine, 'the protocol first', 'it later')
  if (protocol < 2 || protocol > MAX_PROTOCOL) {
    throw new UnsupportedError({ place: placeOf(machine), expected: `protocol 2 to ${MAX_PROTOCOL}`, got: `protocol ${protocol}` })
  }
}

function mark(machine: Machine): void {
  if (machine.marks.length >= MAX_MARKS) fail(machine, `at most ${MAX_MARKS} levels of nesting`, 'more')
  machine.marks.push(machine.stack.length)
}

function pushObject(machine: Machine, value: PickleValue): void {
  machine.nObjects++
  if (machine.nObjects > MAX_OBJECTS) fail(machine, `at most ${MAX_OBJECTS} objects`, 'more')
  machine.stack.push(value)
}

function pushTuple(machine: Machine, items: readonly PickleValue[]): void {
  pushObject(machine, { kind: 'tuple', items })
}

function popMany(machine: Machine, count: number): PickleValue[] {
  checkStack(machine, count)
  return machine.stack.splice(machine.stack.length - count)
}

function pop(machine: Machine): PickleValue {
  const value = top(machine)
  machine.stack.length--
  return value
}

function top(machine: Machine): PickleValue {
  checkStack(machine, 1)
  return machine.stack[machine.stack.length - 1]
}

/** What is below a mark belongs to others. */
function checkStack(machine: Machine, count: number): void {
  const nValues = machine.stack.length - (machine.marks.at(-1) ?? 0)
  if (nValues < count) fail(machine, `${count} values on the stack`, `${nValues}`)
}

function popToMark(machine: Machine): PickleValue[] {
  const height = machine.marks.pop()
  return height === undefined ? fail(machine, 'a mark on the stack', 'none') : machine.stack.splice(height)
}

function popTuple(machine: Machine): PickleTuple {
  const value = pop(machine)
  if (typeof value === 'object' && value?.kind === 'tuple') return value
  return fail(machine, 'a tuple', describeValue(value))
}

function topDict(machine: Machine): PickleDict {
  const value = top(machine)
  if (typeof value === 'object' && value?.kind === 'dict') return value
  return fail(machine, 'a dict', describeValue(value))
}

function setItems(machine: Machine, pairs: readonly PickleValue[]): void {
  const { items } = topDict(machine)
  if (pairs.length % 2 !== 0) fail(machine, 'pairs of a key and a value', `${pairs.length} values`)
  for (let i = 0; i < pairs.length; i += 2) {
    const key = pairs[i]
    if (typeof key !== 'string') return fail(machine, 'a text as a key', describeValue(key))
    if (items.has(key)) fail(machine, 'each key once', `${describe(key)} again`)
    items.set(key, pairs[i + 1])
  }
}

function pushGlobal(machine: Machine, module: string, name: string): void {
  const key = `${module} ${name}`
  if (!machine.world.globals.has(key)) {
    throw new UnsupportedError({ place: placeOf(machine), expected: 'the types and functions of a state dict', got: `the global ${describe(`${module}.${name}`)}` })
  }
  machine.stack.push({ kind: 'global', name: key })
}

function pushStackGlobal(machine: Machine): void {
  const [module, name] = popMany(machine, 2)
  if (typeof module !== 'string' || typeof name !== 'string') return fail(machine, 'two texts that name a global', `${describeValue(module)}, ${describeValue(name)}`)
  pushGlobal(machine, module, name)
}

/** A call, of what the caller of `unpickle` listed. */
function reduce(machine: Machine): void {
  const { items } = popTuple(machine)
  const callee = pop(machine)
  const call = typeof callee === 'object' && callee?.kind === 'global' ? machine.world.globals.get(callee.name) : undefined
  if (!call) return fail(machine, 'a function to call', describeValue(callee))
  pushObject(machine, call(items, placeOf(machine)))
}

/** Attributes of an OrderedDict: a module's state dict has `_metadata`, which says nothing of the tensors. */
function build(machine: Machine): void {
  const state = pop(machine)
  if (typeof state !== 'object' || state?.kind !== 'dict') fail(machine, 'a dict of attributes', describeValue(state))
  topDict(machine)
}

function memoize(machine: Machine, index: number): void {
  if (index >= MAX_MEMO) fail(machine, `a memo of at most ${MAX_MEMO} values`, `number ${index}`)
  machine.memo.set(index, top(machine))
}

function recall(machine: Machine, index: number): void {
  const value = machine.memo.get(index)
  machine.stack.push(value === undefined ? fail(machine, `value ${index} in the memo`, 'none') : value)
}

function stop(machine: Machine): PickleValue {
  const { stack, marks, bytes, at } = machine
  if (stack.length !== 1 || marks.length > 0) fail(machine, 'one value at the end', `${stack.length} and ${marks.length} marks`)
  if (at !== bytes.byteLength) fail(machine, 'the end of the pickle after STOP', `${bytes.byteLength - at} more bytes`)
  return stack[0]
}
