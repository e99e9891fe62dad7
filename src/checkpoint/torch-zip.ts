/**
 * The zip around a torch.save file: where each entry's bytes are, by ranged reads. Entries are stored, never packed, so nothing is ever inflated.
 *
 *   local header | name | padding | data | (descriptor)   … once for each entry, data at a multiple of 64
 *   central directory: a record for each entry            | zip64 end, its locator | end
 *
 * Stricter than zip, as torch.save is: the directory ends where the end records begin, no comment, one disk, all paths in one folder. The directory
 * and the local headers must tell the same. Checksums are not compared: torch.save may leave them out, and a file of weights would have to be read twice.
 */
import { CheckpointError, UnsupportedError, describe } from '../errors.ts'
import { decodeText, type ByteSource } from './byte-source.ts'

/** Where an entry's bytes are. */
export interface ZipEntry {
  readonly start: number
  readonly byteLength: number
}

/** A record of the directory. */
interface DirectoryRecord {
  /** Below the archive's folder. */
  readonly path: string
  readonly nameBytes: Uint8Array
  readonly headerStart: number
  readonly byteLength: number
}

interface Directory {
  readonly start: number
  readonly end: number
  readonly nEntries: number
}

const END_BYTES = 22
const LOCATOR_BYTES = 20
const END64_BYTES = 56
const RECORD_BYTES = 46
const HEADER_BYTES = 30

const END_SIGNATURE = 0x06054b50
const LOCATOR_SIGNATURE = 0x07064b50
const END64_SIGNATURE = 0x06064b50
const RECORD_SIGNATURE = 0x02014b50
const HEADER_SIGNATURE = 0x04034b50

/** A field that has its value in a zip64 record. */
const SEE_ZIP64_16 = 0xffff
const SEE_ZIP64_32 = 0xffffffff
const ZIP64_EXTRA = 1
const FLAG_ENCRYPTED = 1
const FLAG_DESCRIPTOR = 8

/** Some 100 bytes an entry: more tensors than any model has. */
const MAX_DIRECTORY_BYTES = 2 ** 24
/** Local headers this close together come with one read; those of small tensors do. */
const WINDOW_BYTES = 2 ** 16
/** Over a network, one after the other would take a second for each ten tensors. */
const PARALLEL_READS = 16

/**
 * The entries by their paths below the archive's folder (`data.pkl`, `data/0`). Throws a CheckpointError for what is damaged or contradicts itself,
 * an UnsupportedError for entries that are compressed or encrypted.
 */
export async function readTorchZip(source: ByteSource, signal?: AbortSignal): Promise<ReadonlyMap<string, ZipEntry>> {
  const directory = await readEnd(source, signal)
  const records = readRecords(source, directory, await source.read(directory.start, directory.end, signal))
  records.sort((a, b) => a.headerStart - b.headerStart)
  const entries = new Map<string, ZipEntry>()
  let batch: Promise<void>[] = []
  for (const window of windowsOf(source, records, directory.start)) {
    batch.push(readHeaders(source, window, { entries, signal }))
    if (batch.length < PARALLEL_READS) continue
    await Promise.all(batch)
    batch = []
  }
  await Promise.all(batch)
  checkOverlaps(source, { records, entries, directory })
  return entries
}

/** The end of the file says where the directory is. */
async function readEnd(source: ByteSource, signal: AbortSignal | undefined): Promise<Directory> {
  const { byteLength } = source
  const place = `${source.name}, end of zip`
  const fail = (expected: string, got: string): never => {
    throw new CheckpointError({ place, expected, got })
  }
  const tailStart = Math.max(0, byteLength - END_BYTES - LOCATOR_BYTES - END64_BYTES)
  const tail = viewOf(await source.read(tailStart, byteLength, signal))
  const at = tail.byteLength - END_BYTES
  if (at < 0 || tail.getUint32(at, true) !== END_SIGNATURE || tail.getUint16(at + 20, true) !== 0) {
    return fail(`its end record in the last ${END_BYTES} bytes, without a comment`, 'other bytes')
  }
  const short = {
    disks: [tail.getUint16(at + 4, true), tail.getUint16(at + 6, true)], counts: [tail.getUint16(at + 8, true), tail.getUint16(at + 10, true)],
    byteLength: tail.getUint32(at + 12, true), start: tail.getUint32(at + 16, true)
  }
  const isZip64 = at === LOCATOR_BYTES + END64_BYTES && tail.getUint32(END64_BYTES, true) === LOCATOR_SIGNATURE
  const long = isZip64 ? readEnd64(tail, tailStart, fail) : short
  const agrees = (value: number, mark: number, whole: number): boolean => value === whole || (isZip64 && value === mark)
  if (
    short.disks.some((disk, i) => !agrees(disk, SEE_ZIP64_16, long.disks[i])) || short.counts.some((count, i) => !agrees(count, SEE_ZIP64_16, long.counts[i])) ||
    !agrees(short.byteLength, SEE_ZIP64_32, long.byteLength) || !agrees(short.start, SEE_ZIP64_32, long.start)
  ) {
    return fail('the same in its zip64 record', 'something else')
  }
  if (long.disks.some((disk) => disk !== 0) || long.counts[0] !== long.counts[1]) return fail('an archive on one disk', 'one of several')
  const end = isZip64 ? tailStart : byteLength - END_BYTES
  if (long.start + long.byteLength !== end) return fail(`a directory that ends at ${end}`, `one of ${long.byteLength} bytes from ${long.start} on`)
  if (long.byteLength > MAX_DIRECTORY_BYTES) return fail(`a directory of at most ${MAX_DIRECTORY_BYTES} bytes`, `${long.byteLength} bytes`)
  if (long.counts[0] * RECORD_BYTES > long.byteLength) return fail(`at most ${Math.floor(long.byteLength / RECORD_BYTES)} entries`, `${long.counts[0]}`)
  return { start: long.start, end, nEntries: long.counts[0] }
}

function readEnd64(tail: DataView, tailStart: number, fail: (expected: string, got: string) => never) {
  if (tail.getUint32(END64_BYTES + 4, true) !== 0 || tail.getUint32(END64_BYTES + 16, true) > 1) return fail('an archive on one disk', 'one of several')
  const recordStart = tail.getBigUint64(END64_BYTES + 8, true)
  if (recordStart !== BigInt(tailStart)) return fail(`its zip64 record at ${tailStart}`, `it at ${recordStart}`)
  if (tail.getUint32(0, true) !== END64_SIGNATURE || tail.getBigUint64(4, true) !== BigInt(END64_BYTES - 12)) {
    return fail(`a zip64 record of ${END64_BYTES} bytes`, 'other bytes')
  }
  const [nHere, nEntries, byteLength, start] = [24, 32, 40, 48].map((at) => {
    const value = tail.getBigUint64(at, true)
    return value <= Number.MAX_SAFE_INTEGER ? Number(value) : fail('numbers below 2^53', `${value}`)
  })
  return { disks: [tail.getUint32(16, true), tail.getUint32(20, true)], counts: [nHere, nEntries], byteLength, start }
}

function readRecords(source: ByteSource, { nEntries, start }: Directory, bytes: Uint8Array): DirectoryRecord[] {
  const view = viewOf(bytes)
  const records: DirectoryRecord[] = []
  const paths = new Set<string>()
  let root: string | undefined
  let at = 0
  for (let i = 0; i < nEntries; i++) {
    const place = `${source.name}, zip entry ${i}`
    if (at + RECORD_BYTES > bytes.byteLength || view.getUint32(at, true) !== RECORD_SIGNATURE) {
      throw new CheckpointError({ place, expected: `a record of the directory at ${start + at}`, got: 'other bytes' })
    }
    const [nameBytes, extraBytes, commentBytes] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true))
    const nameStart = at + RECORD_BYTES
    const recordEnd = nameStart + nameBytes + extraBytes + commentBytes
    if (recordEnd > bytes.byteLength) throw new CheckpointError({ place, expected: 'a record within the directory', got: `one that ends at ${start + recordEnd}` })
    const rawName = bytes.subarray(nameStart, nameStart + nameBytes)
    const name = decodeText(rawName, `${place}, name`)
    const extra = { start: nameStart + nameBytes, end: nameStart + nameBytes + extraBytes }
    const { folder, path } = splitPath(name, place)
    root ??= folder
    if (folder !== root) throw new CheckpointError({ place, expected: `a path in the folder ${describe(root)}`, got: describe(name) })
    if (paths.has(path)) throw new CheckpointError({ place, expected: 'each path once', got: `${describe(name)} again` })
    paths.add(path)
    records.push({ path, nameBytes: rawName, ...readSizes(view, { at, extra, place: `${source.name}, ${name}` }) })
    at = recordEnd
  }
  if (at !== bytes.byteLength) {
    throw new CheckpointError({ place: `${source.name}, zip directory`, expected: `${at} bytes for ${nEntries} entries`, got: `${bytes.byteLength} bytes` })
  }
  return records
}

/** `folder/path`, both of plain names: no way out of the folder. */
function splitPath(name: string, place: string): { folder: string; path: string } {
  const [folder, ...path] = name.split('/')
  // oxlint-disable-next-line no-control-regex -- control characters are what it looks for
  const isPlain = path.length > 0 && [folder, ...path].every((part) => part !== '' && part !== '.' && part !== '..' && !/[\\:\u0000-\u001f]/.test(part))
  if (!isPlain) throw new CheckpointError({ place, expected: 'a plain path in a folder', got: describe(name) })
  return { folder, path: path.join('/') }
}

interface RecordPlace {
  readonly at: number
  readonly extra: { readonly start: number; readonly end: number }
  readonly place: string
}

function readSizes(view: DataView, { at, extra, place }: RecordPlace): Pick<DirectoryRecord, 'headerStart' | 'byteLength'> {
  const flags = view.getUint16(at + 8, true)
  const method = view.getUint16(at + 10, true)
  if ((flags & FLAG_ENCRYPTED) !== 0) throw new UnsupportedError({ place, expected: 'an entry without encryption', got: 'an encrypted one' })
  if (method !== 0) throw new UnsupportedError({ place, expected: 'an entry stored as it is, as torch.save does', got: `compression method ${method}` })
  if (view.getUint16(at + 34, true) !== 0) throw new CheckpointError({ place, expected: 'an archive on one disk', got: 'one of several' })
  // In this order the zip64 field has those that did not fit.
  const sizes = [24, 20, 42].map((offset) => view.getUint32(at + offset, true))
  let field = sizes.includes(SEE_ZIP64_32) ? zip64Field(view, extra, place) : extra
  const [byteLength, storedBytes, headerStart] = sizes.map((size) => {
    if (size !== SEE_ZIP64_32) return size
    if (field.start + 8 > field.end) throw new CheckpointError({ place, expected: 'its sizes in a zip64 field', got: 'a shorter field' })
    const value = view.getBigUint64(field.start, true)
    field = { start: field.start + 8, end: field.end }
    if (value > Number.MAX_SAFE_INTEGER) throw new CheckpointError({ place, expected: 'sizes below 2^53', got: `${value}` })
    return Number(value)
  })
  if (storedBytes !== byteLength) throw new CheckpointError({ place, expected: `${byteLength} bytes stored`, got: `${storedBytes} bytes` })
  return { headerStart, byteLength }
}

/** The fields after a name: an id, a length, so many bytes. */
function zip64Field(view: DataView, extra: RecordPlace['extra'], place: string): RecordPlace['extra'] {
  for (let at = extra.start; at + 4 <= extra.end; ) {
    const end = at + 4 + view.getUint16(at + 2, true)
    if (view.getUint16(at, true) === ZIP64_EXTRA && end <= extra.end) return { start: at + 4, end }
    at = end
  }
  throw new CheckpointError({ place, expected: 'its sizes in a zip64 field', got: 'none' })
}

/** `records` sorted by place. Each window's headers are read together. */
function windowsOf(source: ByteSource, records: readonly DirectoryRecord[], directoryStart: number): DirectoryRecord[][] {
  const windows: DirectoryRecord[][] = []
  for (const record of records) {
    if (headerEnd(record) + record.byteLength > directoryStart) {
      const expected = `${record.byteLength} bytes before the directory at ${directoryStart}`
      throw new CheckpointError({ place: `${source.name}, ${record.path}`, expected, got: `a header at ${record.headerStart}` })
    }
    const window = windows.at(-1)
    if (window !== undefined && headerEnd(record) - window[0].headerStart <= WINDOW_BYTES) window.push(record)
    else windows.push([record])
  }
  return windows
}

/** Where padding or data begin. */
function headerEnd({ headerStart, nameBytes }: DirectoryRecord): number {
  return headerStart + HEADER_BYTES + nameBytes.byteLength
}

interface HeaderResults {
  readonly entries: Map<string, ZipEntry>
  readonly signal: AbortSignal | undefined
}

async function readHeaders(source: ByteSource, window: readonly DirectoryRecord[], { entries, signal }: HeaderResults): Promise<void> {
  const windowStart = window[0].headerStart
  const end = window.reduce((end, record) => Math.max(end, headerEnd(record)), 0)
  const bytes = await source.read(windowStart, end, signal)
  const view = viewOf(bytes)
  for (const record of window) {
    const at = record.headerStart - windowStart
    const nameBytes = view.getUint16(at + 26, true)
    const hasName = nameBytes === record.nameBytes.byteLength && record.nameBytes.every((byte, i) => byte === bytes[at + HEADER_BYTES + i])
    const isLater = (view.getUint16(at + 6, true) & FLAG_DESCRIPTOR) !== 0
    const hasSizes = [18, 22].every((offset) => {
      const size = view.getUint32(at + offset, true)
      return size === record.byteLength || size === SEE_ZIP64_32 || (isLater && size === 0)
    })
    if (view.getUint32(at, true) !== HEADER_SIGNATURE || view.getUint16(at + 8, true) !== 0 || !hasName || !hasSizes) {
      throw new CheckpointError({ place: `${source.name}, ${record.path}`, expected: `its header at ${record.headerStart}, as the directory says`, got: 'something else' })
    }
    entries.set(record.path, { start: headerEnd(record) + view.getUint16(at + 28, true), byteLength: record.byteLength })
  }
}

/** `records` sorted by place. */
function checkOverlaps(source: ByteSource, { records, entries, directory }: { records: readonly DirectoryRecord[]; entries: ReadonlyMap<string, ZipEntry>; directory: Directory }): void {
  for (const [i, { path }] of records.entries()) {
    const { start, byteLength } = entries.get(path) ?? { start: 0, byteLength: 0 }
    const next = records[i + 1]?.headerStart ?? directory.start
    if (start + byteLength <= next) continue
    const expected = `an end before ${next}, where ${records[i + 1]?.path ?? 'the directory'} begins`
    throw new CheckpointError({ place: `${source.name}, ${path}`, expected, got: `an end at ${start + byteLength}` })
  }
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength)
}
