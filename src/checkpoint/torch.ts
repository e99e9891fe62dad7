/**
 * The container of torch.save (`pytorch_model.bin`): a zip with a pickled dict of tensors, `data.pkl`, and the bytes of each storage, `data/<key>`.
 *
 * What is read is a state dict, tensors by their names. Several tensors may be views of one storage (a tied head is); each must be contiguous.
 */
import { CheckpointError, UnsupportedError, describe } from '../errors.ts'
import { decodeText, type ByteSource } from './byte-source.ts'
import { unpickle, type PickleFunction, type PickleWorld } from './pickle.ts'
import { describeValue, type PickleValue, type TorchStorage, type TorchTensor } from './pickle-values.ts'
import type { TensorEntry } from './safetensors.ts'
import { readTorchZip, type ZipEntry } from './torch-zip.ts'

/** The typed storages, by their names in `torch`: the dtype as safetensors names it, and its bytes. */
const STORAGES: ReadonlyMap<string, readonly [dtype: string, elementBytes: number]> = new Map([
  ['torch DoubleStorage', ['F64', 8]],
  ['torch FloatStorage', ['F32', 4]],
  ['torch HalfStorage', ['F16', 2]],
  ['torch BFloat16Storage', ['BF16', 2]],
  ['torch LongStorage', ['I64', 8]],
  ['torch IntStorage', ['I32', 4]],
  ['torch ShortStorage', ['I16', 2]],
  ['torch CharStorage', ['I8', 1]],
  ['torch ByteStorage', ['U8', 1]],
  ['torch BoolStorage', ['BOOL', 1]]
])

const FUNCTIONS: ReadonlyMap<string, PickleFunction> = new Map([
  ['collections OrderedDict', orderedDict],
  ['torch._utils _rebuild_tensor_v2', rebuildTensor],
  ['torch._utils _rebuild_parameter', rebuildParameter]
])

/** Some 130 bytes a tensor. */
const MAX_PICKLE_BYTES = 2 ** 24
const MAX_BYTEORDER_BYTES = 16
const ZIP_MAGIC = [0x50, 0x4b, 0x03, 0x04]
/** A pickle of torch's magic number, 0x1950a86a20f9469cfc6c: before version 1.6 a file began with it. */
const LEGACY_MAGIC = [0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19]

/**
 * The tensors of a torch.save file; no tensor's bytes are read. Throws a CheckpointError that names the file and the tensor for what is damaged or
 * contradicts itself; an UnsupportedError for what is no state dict, for tensors that are not contiguous, for big-endian files and for the older format.
 */
export async function readTorchTensors(source: ByteSource, signal?: AbortSignal): Promise<readonly TensorEntry[]> {
  await checkMagic(source, signal)
  const files = await readTorchZip(source, signal)
  await checkByteOrder(source, files, signal)
  const place = `${source.name}, data.pkl`
  const stateDict = unpickle(await readSmall(source, files, { path: 'data.pkl', maxBytes: MAX_PICKLE_BYTES, signal }), place, createWorld())
  if (typeof stateDict !== 'object' || stateDict?.kind !== 'dict') {
    throw new UnsupportedError({ place, expected: 'a state dict: tensors by their names', got: describeValue(stateDict) })
  }
  return [...stateDict.items].map(([name, value]) => entryOf(source, files, { name, value }))
}

async function checkMagic(source: ByteSource, signal: AbortSignal | undefined): Promise<void> {
  const head = await source.read(0, Math.min(16, source.byteLength), signal)
  if (ZIP_MAGIC.every((byte, i) => head[i] === byte)) return
  const expected = 'a zip, as torch.save writes them since PyTorch 1.6'
  // After the two bytes that tell the protocol.
  if (LEGACY_MAGIC.every((byte, i) => head[i + 2] === byte)) {
    const got = 'the older format (to convert it, in Python: torch.save(torch.load(path, map_location="cpu", weights_only=True), path))'
    throw new UnsupportedError({ place: source.name, expected, got })
  }
  throw new CheckpointError({ place: source.name, expected, got: `other bytes, ${describe(String.fromCharCode(...head))} first` })
}

/** Files without a word about it are of versions that wrote the machine's own order, little-endian but for a few. */
async function checkByteOrder(source: ByteSource, files: ReadonlyMap<string, ZipEntry>, signal: AbortSignal | undefined): Promise<void> {
  if (!files.has('byteorder')) return
  const place = `${source.name}, byteorder`
  const order = decodeText(await readSmall(source, files, { path: 'byteorder', maxBytes: MAX_BYTEORDER_BYTES, signal }), place)
  if (order === 'big') throw new UnsupportedError({ place, expected: 'a little-endian file', got: 'a big-endian one' })
  if (order !== 'little') throw new CheckpointError({ place, expected: '"little" or "big"', got: describe(order) })
}

interface SmallFile {
  readonly path: string
  readonly maxBytes: number
  readonly signal: AbortSignal | undefined
}

async function readSmall(source: ByteSource, files: ReadonlyMap<string, ZipEntry>, { path, maxBytes, signal }: SmallFile): Promise<Uint8Array> {
  const file = files.get(path)
  const place = `${source.name}, ${path}`
  if (file === undefined) throw new CheckpointError({ place, expected: 'an entry of that name in the zip', got: 'none' })
  if (file.byteLength > maxBytes) throw new CheckpointError({ place, expected: `at most ${maxBytes} bytes`, got: `${file.byteLength} bytes` })
  return source.read(file.start, file.start + file.byteLength, signal)
}

/** Storages are the same where their keys are. */
function createWorld(): PickleWorld {
  const storages = new Map<string, TorchStorage>()
  const types = [...STORAGES.keys()].map((name) => [name, null] as const)
  return {
    globals: new Map<string, PickleFunction | null>([...FUNCTIONS, ...types]),
    load(id, place) {
      const storage = storageOf(id, place)
      const known = storages.get(storage.key)
      if (known === undefined) {
        storages.set(storage.key, storage)
        return storage
      }
      if (known.dtype === storage.dtype && known.nElements === storage.nElements) return known
      const { key, dtype, nElements } = known
      throw new CheckpointError({ place, expected: `storage ${describe(key)} again of ${nElements} ${dtype}`, got: `${storage.nElements} ${storage.dtype}` })
    }
  }
}

/** `('storage', type, key, device, number of elements)`. */
function storageOf(id: PickleValue, place: string): TorchStorage {
  const [word, type, key, device, nElements] = typeof id === 'object' && id?.kind === 'tuple' && id.items.length === 5 ? id.items : []
  const typeName = typeof type === 'object' && type?.kind === 'global' ? type.name : ''
  const [dtype, elementBytes] = STORAGES.get(typeName) ?? []
  if (word !== 'storage' || dtype === undefined || elementBytes === undefined || typeof key !== 'string' || typeof device !== 'string' || !isNatural(nElements)) {
    throw new CheckpointError({ place, expected: 'a storage: its type, key, device and number of elements', got: describeValue(id) })
  }
  return { kind: 'storage', dtype, elementBytes, key, nElements }
}

function orderedDict(args: readonly PickleValue[], place: string): PickleValue {
  if (args.length > 0) throw new CheckpointError({ place, expected: 'an OrderedDict that starts empty', got: `${args.length} arguments` })
  return { kind: 'dict', items: new Map() }
}

/** `(storage, offset, size, stride, requires_grad, hooks)`, and perhaps metadata, which may say that the values are negated or conjugated. */
function rebuildTensor(args: readonly PickleValue[], place: string): PickleValue {
  const [storage, offset, size, stride, , , metadata] = args
  const shape = naturalsOf(size)
  const strides = naturalsOf(stride)
  const isComplete = args.length === 6 || args.length === 7
  const hasStorage = typeof storage === 'object' && storage?.kind === 'storage'
  if (!isComplete || !hasStorage || !isNatural(offset) || shape === undefined || shape.length !== strides?.length) {
    throw new CheckpointError({ place, expected: 'a tensor: its storage, offset, size and stride', got: `(${args.map(describeValue).slice(0, 8).join(', ')})` })
  }
  const isPlain = metadata === undefined || metadata === null || (typeof metadata === 'object' && metadata.kind === 'dict' && metadata.items.size === 0)
  if (!isPlain) throw new UnsupportedError({ place, expected: 'a tensor without metadata', got: describeValue(metadata) })
  return { kind: 'tensor', storage, offset, shape, strides }
}

/** `(tensor, requires_grad, hooks)`. */
function rebuildParameter(args: readonly PickleValue[], place: string): PickleValue {
  const [tensor] = args
  if (args.length === 3 && typeof tensor === 'object' && tensor?.kind === 'tensor') return tensor
  throw new CheckpointError({ place, expected: 'a parameter: a tensor and two more', got: `(${args.map(describeValue).slice(0, 8).join(', ')})` })
}

function isNatural(value: PickleValue | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function naturalsOf(value: PickleValue | undefined): readonly number[] | undefined {
  if (typeof value !== 'object' || value?.kind !== 'tuple') return undefined
  const numbers = value.items.filter(isNatural)
  return numbers.length === value.items.length ? numbers : undefined
}

function entryOf(source: ByteSource, files: ReadonlyMap<string, ZipEntry>, { name, value }: { name: string; value: PickleValue }): TensorEntry {
  const place = `${source.name}, ${name}`
  if (typeof value !== 'object' || value?.kind !== 'tensor') {
    throw new UnsupportedError({ place, expected: 'a tensor, as in a state dict', got: describeValue(value) })
  }
  const { storage, offset, shape } = value
  const nElements = elementsOf(value, place)
  const file = files.get(`data/${storage.key}`)
  if (file === undefined) throw new CheckpointError({ place, expected: `an entry data/${storage.key} in the zip`, got: 'none' })
  if (file.byteLength !== storage.nElements * storage.elementBytes) {
    const expected = `${storage.nElements} elements of ${storage.dtype} in data/${storage.key}`
    throw new CheckpointError({ place, expected, got: `${file.byteLength} bytes` })
  }
  if (offset + nElements > storage.nElements) {
    throw new CheckpointError({ place, expected: `at most ${storage.nElements} elements, as its storage has`, got: `${nElements} from ${offset} on` })
  }
  const { dtype, elementBytes } = storage
  return { name, dtype, shape, source, start: file.start + offset * elementBytes, byteLength: nElements * elementBytes }
}

/** Elements of a tensor, which must lie in row-major order without gaps. The stride of a dimension of one element says nothing. */
function elementsOf({ shape, strides, storage }: TorchTensor, place: string): number {
  let nElements = 1
  let isContiguous = true
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== nElements) isContiguous = false
    nElements *= shape[i]
    if (!Number.isSafeInteger(nElements * storage.elementBytes)) {
      throw new CheckpointError({ place, expected: 'fewer than 2^53 bytes', got: `${storage.dtype} ${describe(shape)}` })
    }
  }
  if (isContiguous || nElements === 0) return nElements
  throw new UnsupportedError({ place, expected: `a contiguous tensor of shape ${describe(shape)}`, got: `strides ${describe(strides)}` })
}
