/** The cache of downloads on a disk. */
import { randomUUID } from 'node:crypto'
import { mkdir, open, readFile, readdir, rename, rm, rmdir, stat, writeFile, type FileHandle } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, dirname, isAbsolute, join, relative, sep } from 'node:path'
import { type CacheEntry, type FileCache, NoRoomError, type PartialFile } from '../checkpoint/file-cache.ts'
import { checkFileName } from '../checkpoint/file-set.ts'
import { codeOf, hasCode, openIfThere } from './node-files.ts'

/** `$XDG_CACHE_HOME/mamba-wasm`, by default `~/.cache/mamba-wasm`. The convention ignores a relative path. */
export function defaultCacheFolder(): string {
  const base = process.env['XDG_CACHE_HOME']
  return join(base !== undefined && isAbsolute(base) ? base : join(homedir(), '.cache'), 'mamba-wasm')
}

/**
 * A cache in a folder. Any number of processes may use it at once: a file is written under a name of its writer's own,
 * `KEY.PID.UUID.part`, and renamed when complete. A part is taken over, by renaming it, when its writer gave it up (PID 0), died or stalled.
 */
export function folderCache(folder: string = defaultCacheFolder()): FileCache {
  const pathOf = (key: string): string => {
    const names = key.split('/')
    for (const name of names) checkFileName(name, folder)
    return join(folder, ...names)
  }
  return {
    name: folder,
    async readRecord(key) {
      try {
        return await readFile(pathOf(key), 'utf8')
      } catch (error) {
        if (hasCode(error, 'ENOENT', 'ENOTDIR')) return undefined
        throw error
      }
    },
    async writeRecord(key, text) {
      const path = pathOf(key)
      const ownPath = `${path}.${process.pid}.${randomUUID()}.tmp`
      await mkdir(dirname(path), { recursive: true })
      await orRemoved(ownPath, () => writeFile(ownPath, text))
      await rename(ownPath, path)
    },
    openFile: (key) => openIfThere(pathOf(key)),
    openPart: (key, { resume }) => withRoom(() => openPart(pathOf(key), resume)),
    removeOthers: (key) => removeOthers(pathOf(key)),
    list: () => listFolder(folder),
    async remove(key) {
      await rm(pathOf(key), { force: true })
      // The folders as far as they are empty.
      for (let path = dirname(key); path !== '.'; path = dirname(path)) await rmdir(pathOf(path)).catch(() => {})
    }
  }
}

/** Files at any depth; none where there is no folder. */
async function listFolder(folder: string): Promise<readonly CacheEntry[]> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true }).catch((error: unknown) => {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return []
    throw error
  })
  const entries = await Promise.all(found.filter((entry) => entry.isFile()).map(async (entry): Promise<CacheEntry | undefined> => {
    const path = join(entry.parentPath, entry.name)
    if (/\.(?:part|tmp)$/.test(entry.name) && (await isBeingWritten(path))) return undefined
    // Removed since, by somebody else.
    const stats = await stat(path).catch(() => undefined)
    return stats && { key: relative(folder, path).split(sep).join('/'), byteLength: stats.size }
  }))
  return entries.filter((entry) => entry !== undefined)
}

/** A NoRoomError where the disk, or the user's part of it, is full. */
async function withRoom<T>(task: () => Promise<T>): Promise<T> {
  try {
    return await task()
  } catch (error) {
    if (hasCode(error, 'ENOSPC', 'EDQUOT')) throw new NoRoomError(`no room on the disk (${codeOf(error)})`, { cause: error })
    throw error
  }
}

/** `withRoom`, and what does not fit is not left lying about. */
async function orRemoved(path: string, task: () => Promise<void>): Promise<void> {
  try {
    await withRoom(task)
  } catch (error) {
    await rm(path, { force: true })
    throw error
  }
}

async function openPart(path: string, resume: boolean): Promise<PartialFile> {
  await mkdir(dirname(path), { recursive: true })
  const ownPath = partPath(path, process.pid)
  const handle = (resume ? await takeOver(path, ownPath) : undefined) ?? (await open(ownPath, 'wx+'))
  const { size } = await handle.stat()
  return {
    byteLength: size,
    async write(bytes, offset) {
      await withRoom(async () => {
        for (let written = 0; written < bytes.byteLength; ) {
          written += (await handle.write(bytes, written, bytes.byteLength - written, offset + written)).bytesWritten
        }
      })
    },
    async finish() {
      try {
        await orRemoved(ownPath, () => handle.sync())
      } finally {
        await handle.close()
      }
      await renameIfThere(ownPath, path)
    },
    async abandon({ keep }) {
      await handle.close()
      await (keep ? renameIfThere(ownPath, partPath(path, NOBODY)) : rm(ownPath, { force: true }))
    }
  }
}

/** In the place of a process id: the writer gave the part up. */
const NOBODY = 0

function partPath(path: string, pid: number): string {
  return `${path}.${pid}.${randomUUID()}.part`
}

/** After so long without a write nobody is taken to write a part, whoever has the number of its writer now. */
const STALLED_MS = 300_000

/** The parts of the file at `path` that nobody writes any more, the longest first. */
async function leftParts(path: string): Promise<readonly string[]> {
  const left: { part: string; byteLength: number }[] = []
  for (const name of await readdir(dirname(path))) {
    const part = join(dirname(path), name)
    if (!name.startsWith(`${basename(path)}.`) || !name.endsWith('.part') || (await isBeingWritten(part))) continue
    const stats = await stat(part).catch(() => undefined)
    left.push({ part, byteLength: stats?.size ?? 0 })
  }
  return left.sort((a, b) => b.byteLength - a.byteLength).map(({ part }) => part)
}

/** Renaming is atomic: of two that want the same part one gets it. */
async function takeOver(path: string, ownPath: string): Promise<FileHandle | undefined> {
  for (const part of await leftParts(path)) {
    if (await renameIfThere(part, ownPath)) return open(ownPath, 'r+')
  }
  return undefined
}

async function renameIfThere(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to)
    return true
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false
    throw error
  }
}

async function removeOthers(path: string): Promise<void> {
  for (const name of await readdir(dirname(path))) {
    const other = join(dirname(path), name)
    const isNeeded = name === basename(path) || name === 'record.json' || (/\.(?:part|tmp)$/.test(name) && (await isBeingWritten(other)))
    // Some systems do not remove a file that is open elsewhere; the next download tries again.
    if (!isNeeded) await rm(other, { force: true }).catch(() => {})
  }
}

/** `PATH.PID.UUID.part`, or a record on its way, `PATH.PID.UUID.tmp`. */
async function isBeingWritten(path: string): Promise<boolean> {
  const stats = await stat(path).catch(() => undefined)
  return stats !== undefined && isAlive(Number(path.split('.').at(-3))) && Date.now() - stats.mtimeMs < STALLED_MS
}

/**
 * Whether a process of this number runs. A living writer may look dead here, on another machine that shares the folder; that harms
 * nothing: whoever resumes a part writes the same bytes at the same offsets.
 */
function isAlive(pid: number): boolean {
  if (!Number.isSafeInteger(pid) || pid <= NOBODY) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return hasCode(error, 'EPERM')
  }
}
