/** Pickles that nobody vouches for: whatever they try, they are read as a dict of tensors or refused, and nothing runs. */
import { describe, expect, test } from 'vitest'
import { bytesSource } from '../../src/checkpoint/byte-source.ts'
import { unpickle, type PickleWorld } from '../../src/checkpoint/pickle.ts'
import { OPCODE_NAMES } from '../../src/checkpoint/pickle-values.ts'
import { readTorchTensors } from '../../src/checkpoint/torch.ts'
import { bytesOf, little, op, pickleFixture, stateDict, storage, tensor, torchFile, type Part } from './torch-file.ts'

const WORLD: PickleWorld = { globals: new Map([['collections OrderedDict', () => ({ kind: 'dict', items: new Map() })], ['torch FloatStorage', null]]), load: (id) => id }
const run = (...parts: readonly Part[]) => unpickle(bytesOf(...parts), 'p', WORLD)
const textFixture = (name: string): string => new TextDecoder().decode(pickleFixture(name))
const tupleOf = (...items: unknown[]) => ({ kind: 'tuple', items })
const read = (pickle: Uint8Array) => readTorchTensors(bytesSource(torchFile(pickle), 'm.bin'))

describe('values', () => {
  test.each<[string, readonly Part[], unknown]>([
    ['None', [op.none], null], ['True', [op.true], true], ['False', [op.false], false], ['BININT1', ['K', 255], 255], ['BININT2', ['M', 0xff, 0xff], 65535],
    ['BININT', ['J', little(-2, 4)], -2], ['LONG1 of no bytes', [op.long(0n, 0)], 0], ['LONG1 of one byte', [op.long(-1n, 1)], -1], ['LONG1 of 5 bytes', [op.long(2n ** 33n, 5)], 2 ** 33],
    ['LONG1 of 8 bytes', [op.long(1n - 2n ** 53n, 8)], 1 - 2 ** 53], ['BINUNICODE', [op.text('né')], 'né'], ['SHORT_BINUNICODE', [op.shortText('né')], 'né'],
    ['TUPLE', [op.tuple(op.int(1), op.tuple(), op.int(2))], tupleOf(1, tupleOf(), 2)], ['EMPTY_TUPLE', [')'], tupleOf()], ['TUPLE1', ['K', 1, 0x85], tupleOf(1)],
    ['TUPLE2', ['K', 1, 'K', 2, 0x86], tupleOf(1, 2)], ['TUPLE3', ['K', 1, 'K', 2, 'K', 3, 0x87], tupleOf(1, 2, 3)],
    ['SETITEM', ['}', op.text('a'), 'K', 1, 's'], { kind: 'dict', items: new Map([['a', 1]]) }],
    ['SETITEMS', [op.dict([op.text('a'), op.int(1)], [op.text('__proto__'), op.none])], { kind: 'dict', items: new Map<string, unknown>([['a', 1], ['__proto__', null]]) }],
    ['BINPUT and BINGET', [op.text('x'), 'q', 7, 'h', 7, 0x86], tupleOf('x', 'x')], ['LONG_BINPUT and LONG_BINGET', [op.text('x'), 'r', little(300, 4), 'j', little(300, 4), 0x86], tupleOf('x', 'x')],
    ['MEMOIZE', [op.text('x'), 0x94, op.text('y'), 0x94, 'h', 0, 0x87], tupleOf('x', 'y', 'x')],
    ['GLOBAL', [op.global('torch', 'FloatStorage')], { kind: 'global', name: 'torch FloatStorage' }], ['STACK_GLOBAL', [op.stackGlobal('torch', 'FloatStorage')], { kind: 'global', name: 'torch FloatStorage' }],
    ['REDUCE', [op.orderedDict()], { kind: 'dict', items: new Map() }], ['BUILD', [op.orderedDict(), '}b'], { kind: 'dict', items: new Map() }], ['FRAME', [0x95, little(3, 8), 'K', 1], 1]
  ])('%s', (_, parts, value) => {
    expect(run(op.proto(4), ...parts, op.stop)).toEqual(value)
  })

  test('a persistent id is what its surroundings make of it', () => {
    expect(unpickle(bytesOf(op.proto(2), op.text('id'), 'Q.'), 'p', { ...WORLD, load: (id, place) => (id === 'id' ? place : null) })).toBe('p, offset 9')
  })

  test('the table of opcodes is that of Python', () => {
    expect(Object.fromEntries([...OPCODE_NAMES].map(([code, name]) => [name, code]))).toEqual(JSON.parse(textFixture('opcodes.json')))
  })
})

describe('code is refused by its name', () => {
  /** As an attacker writes them: objects whose reduction is a call. */
  const attacks: [number, string, number[]][] = JSON.parse(textFixture('attacks.json'))

  test.each(attacks)('protocol %i, %s', async (protocol, name, pickle) => {
    await expect(read(Uint8Array.from(pickle))).rejects.toMatchObject({
      name: 'UnsupportedError', place: expect.stringMatching(/^m\.bin, data\.pkl, offset \d+$/), expected: 'the types and functions of a state dict',
      // Protocol 2 has Python 2's name of the module.
      got: `the global "${protocol === 2 ? name.replace('builtins', '__builtin__') : name}"`
    })
  })

  test.each([
    ['os', 'system'], ['collections', 'OrderedDict.__init__'], ['collections.OrderedDict', ''], ['collections', 'OrderedDict '], ['', 'collections OrderedDict'], ['torch._utils', '_rebuild_tensor'],
    ['torch', 'storage._load_from_bytes'], ['torch.storage', '_load_from_bytes'], ['__proto__', 'constructor'], ['', ''], ['torch', 'QInt8Storage'], ['torch', 'ComplexFloatStorage']
  ])('%j %j, in either form', async (module, name) => {
    for (const callee of [op.global(module, name), op.stackGlobal(module, name)]) {
      const pickle = bytesOf(op.proto(4), op.dict([op.text('w'), op.call(callee)]), op.stop)
      await expect(read(pickle)).rejects.toMatchObject({ name: 'UnsupportedError', got: `the global ${JSON.stringify(`${module}.${name}`)}` })
    }
  })

  const ALLOWED = [
    'MARK', 'EMPTY_TUPLE', 'STOP', 'BININT', 'BININT1', 'BININT2', 'NONE', 'BINPERSID', 'REDUCE', 'BINUNICODE', 'BUILD', 'GLOBAL', 'BINGET', 'LONG_BINGET', 'BINPUT', 'LONG_BINPUT', 'SETITEM', 'TUPLE',
    'SETITEMS', 'EMPTY_DICT', 'PROTO', 'TUPLE1', 'TUPLE2', 'TUPLE3', 'NEWTRUE', 'NEWFALSE', 'LONG1', 'SHORT_BINUNICODE', 'STACK_GLOBAL', 'MEMOIZE', 'FRAME'
  ]
  test.each([...OPCODE_NAMES].filter(([, name]) => !ALLOWED.includes(name)))('opcode %i, %s', (code, name) => {
    // What it might take lies ready.
    expect(() => run(op.proto(4), op.orderedDict(), '(', op.global('collections', 'OrderedDict'), ')', code, little(1, 8), '.')).toThrow(`expected the opcodes of a state dict, got ${name}`)
  })

  test.each([
    ['LONG4', [0x8b, little(2 ** 31, 4)]], ['LONG4', [0x8b, little(-1, 4)]], ['BINBYTES8', [0x8e, little(2n ** 60n, 8)]], ['BINUNICODE8', [0x8d, little(2n ** 60n, 8)]], ['BYTEARRAY8', [0x96, little(2n ** 60n, 8)]],
    ['INST', ['(ios\nsystem\n']], ['EXT4', [0x84, little(2 ** 31 - 1, 4)]], ['PERSID', ['Pos.system\n']], ['NEWOBJ', [op.global('collections', 'OrderedDict'), ')', 0x81]]
  ])('%s, whatever it asks for', (name, parts) => {
    expect(() => run(op.proto(4), parts, op.stop)).toThrow(`expected the opcodes of a state dict, got ${name}`)
  })

  test('a byte that is no opcode', () => {
    expect(() => run(op.proto(4), 0xff)).toThrow('p, offset 2: expected an opcode, got byte 255')
  })

  test.each<[string, readonly Part[]]>([
    ['a text', [op.text('os.system'), ')R']], ['a type', [op.global('torch', 'FloatStorage'), ')R']], ['a dict', ['})R']], ['a number', ['K', 1, ')R']], ['None', ['N)R']]
  ])('a call of %s', (_, parts) => {
    expect(() => run(op.proto(4), ...parts, op.stop)).toThrow('expected a function to call')
  })

  test.each<[string, readonly Part[]]>([
    ['of a type', [op.global('torch', 'FloatStorage'), '}b']], ['of a text', [op.text('x'), '}b']], ['with a tuple', ['})b']], ['of a tensor', [tensor(), '}b']]
  ])('attributes %s', async (_, parts) => {
    await expect(read(bytesOf(op.proto(4), ...parts, op.stop))).rejects.toMatchObject({ name: 'CheckpointError' })
  })
})

describe('damage', () => {
  test.each<[string, readonly Part[], string]>([
    ['nothing', [], '1 more bytes'], ['no end', [op.proto(2)], '1 more bytes'], ['an empty stack at the end', [op.proto(2), '.'], 'one value at the end'],
    ['two values at the end', [op.proto(2), 'NN.'], 'one value at the end'], ['a mark at the end', [op.proto(2), 'N(.'], 'one value at the end'], ['bytes after the end', [op.proto(2), 'N.N'], 'the end of the pickle'],
    ['protocol 5', [op.proto(5), 'N.'], 'protocol 2 to 4'], ['protocol 1', [op.proto(1), 'N.'], 'protocol 2 to 4'], ['the protocol twice', [op.proto(2), op.proto(2), 'N.'], 'the protocol first'],
    ['a text beyond the end', ['X', little(5, 4), 'abc.'], 'a length of at most 4 bytes'], ['a text of 4 GiB', ['X', little(2 ** 32 - 1, 4), 'abc.'], 'a length of at most'],
    ['a text that is not UTF-8', ['X', little(2, 4), 0xc3, 0x28, '.'], 'text in UTF-8'], ['a frame of 2^60 bytes', [0x95, little(2n ** 60n, 8), 'N.'], 'a length of at most 2 bytes'],
    ['an integer of 255 bytes', [0x8a, 255, new Uint8Array(255), '.'], 'an integer of at most 8 bytes'], ['an integer beyond 2^53', [op.long(2n ** 53n, 8), '.'], 'an integer within 2^53'],
    ['a tuple of too few', ['K', 1, 0x86, '.'], '2 values on the stack'], ['a tuple without a mark', ['K', 1, 't.'], 'a mark on the stack'], ['a tuple that reaches below a mark', ['K', 1, '(K', 2, 0x86, '.'], '2 values on the stack'],
    ['a value without a key', ['}(', op.text('a'), 'u.'], 'pairs of a key and a value'], ['a number as a key', ['}K', 1, 'Ns.'], 'a text as a key'], ['a key twice', [op.dict([op.text('a'), 'N'], [op.text('a'), 'N']), '.'], 'each key once'],
    ['items of a tuple', [')', op.text('a'), 'Ns.'], 'a dict'], ['items without a dict', ['(', op.text('a'), 'Nu.'], '1 values on the stack'], ['a memo that is not there', ['h', 0, '.'], 'value 0 in the memo'],
    ['a memo at 2^31', ['Nr', little(2 ** 31, 4), '.'], 'a memo of at most'], ['a memo of nothing', ['q', 0, '.'], '1 values on the stack'], ['a memo of a mark', ['N(q', 0, '.'], '1 values on the stack'],
    ['a global without an end', ['ctorch\nFloatStorage'], 'the end of its line'], ['a long global', ['c', 'a'.repeat(1000), '\nb\n'], 'a name of fewer than 256 bytes'],
    ['a global of numbers', ['K', 1, 'K', 2, 0x93], 'two texts that name a global'], ['arguments that are no tuple', [op.global('collections', 'OrderedDict'), '}R'], 'a tuple'], ['a persistent id of nothing', ['Q.'], '1 values on the stack']
  ])('%s', (_, parts, expected) => {
    expect(() => run(...parts)).toThrow(expected)
  })

  test.each<[string, readonly Part[]]>([
    ['a text', [op.text('0'), 'Q']], ['another word', [op.tuple(op.text('module'), op.global('torch', 'FloatStorage'), op.text('0'), op.text('cpu'), op.int(6)), 'Q']],
    ['a type by its name', [op.tuple(op.text('storage'), op.text('FloatStorage'), op.text('0'), op.text('cpu'), op.int(6)), 'Q']],
    ['six parts', [op.tuple(op.text('storage'), op.global('torch', 'FloatStorage'), op.text('0'), op.text('cpu'), op.int(6), op.none), 'Q']],
    ['a number as a key', [op.tuple(op.text('storage'), op.global('torch', 'FloatStorage'), op.int(0), op.text('cpu'), op.int(6)), 'Q']],
    ['a function as a type', [op.tuple(op.text('storage'), op.global('collections', 'OrderedDict'), op.text('0'), op.text('cpu'), op.int(6)), 'Q']]
  ])('a storage of %s', async (_, parts) => {
    await expect(read(bytesOf(op.proto(2), ...parts, op.stop))).rejects.toMatchObject({ name: 'CheckpointError', expected: 'a storage: its type, key, device and number of elements' })
  })

  test.each<[string, readonly Part[]]>([
    ['a parameter of a text', [op.call(op.global('torch._utils', '_rebuild_parameter'), op.text('w'), op.true, op.none)]],
    ['a tensor of nothing', [op.call(op.global('torch._utils', '_rebuild_tensor_v2'))]], ['a tensor of itself', [op.call(op.global('torch._utils', '_rebuild_tensor_v2'), tensor(), op.int(0), ')', ')', op.false, op.none)]],
    ['a tensor whose size is a number', [op.call(op.global('torch._utils', '_rebuild_tensor_v2'), storage(), op.int(0), op.int(6), op.tuple(op.int(1)), op.false, op.none)]],
    ['an OrderedDict of pairs', [op.call(op.global('collections', 'OrderedDict'), op.tuple(op.tuple(op.text('w'), tensor())))]]
  ])('%s', async (_, parts) => {
    await expect(read(bytesOf(op.proto(2), ...parts, op.stop))).rejects.toMatchObject({ name: 'CheckpointError' })
  })

  test('every truncation', () => {
    const pickle = stateDict(['a', tensor()], ['b', tensor({ isParameter: true })])
    for (let length = 0; length < pickle.length; length++) {
      expect(() => unpickle(pickle.subarray(0, length), 'p', WORLD), `${length} bytes`).toThrow(/^p, offset \d+: expected /)
    }
  })
})

describe('limits', () => {
  test.each<[string, Uint8Array, string]>([
    ['marks', new Uint8Array(1000).fill(0x28), 'at most 64 levels of nesting'], ['values on the stack', new Uint8Array(100_000).fill(0x4e), 'at most 65536 values on the stack'],
    ['objects', bytesOf('(', ...Array.from({ length: 10 }, () => bytesOf(new Uint8Array(60_000).fill(0x7d), 't('))), 'at most 262144 objects'],
    ['nested tuples', bytesOf('N', new Uint8Array(300_000).fill(0x85)), 'at most 262144 objects'], ['the memo', bytesOf('N', new Uint8Array(300_000).fill(0x94)), 'a memo of at most 262144 values'],
    ['opcodes', bytesOf('N', ...Array.from({ length: 2200 }, () => new Uint8Array(2000).fill(0x71))), 'at most 2097152 opcodes']
  ])('of %s', (_, pickle, expected) => {
    expect(() => run(pickle)).toThrow(expected)
  })

  test('a tuple nested 250 000 deep is refused by its reader without a deep call', async () => {
    await expect(read(bytesOf('}', op.text('w'), 'N', new Uint8Array(250_000).fill(0x85), 's.'))).rejects.toMatchObject({ name: 'UnsupportedError', got: 'a tuple' })
  })

  test('a dict that holds itself is refused', async () => {
    await expect(read(bytesOf('}q', 0, op.text('w'), 'h', 0, 's.'))).rejects.toMatchObject({ name: 'UnsupportedError', place: 'm.bin, w', got: 'a dict' })
  })

  test('tuples that double in size are shared, not copied', async () => {
    const doubled = bytesOf(')', ...Array.from({ length: 60 }, () => bytesOf('q', 0, 'h', 0, 0x86)))
    await expect(read(bytesOf(doubled, '.'))).rejects.toMatchObject({ name: 'UnsupportedError', got: 'a tuple' })
  })

  test('16 MB of any one opcode end soon', () => {
    const pickle = new Uint8Array(2 ** 24)
    for (const [code] of OPCODE_NAMES) {
      pickle.fill(code)[0] = 0x7d
      const start = performance.now()
      expect(() => unpickle(pickle, 'p', WORLD), `opcode ${code}`).toThrow()
      expect(performance.now() - start, `opcode ${code}`).toBeLessThan(2000)
    }
  })
})
