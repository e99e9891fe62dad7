/** unstorage's storages as the tests use them, by a text that another process can be given. */
import { createStorage, type Storage } from 'unstorage'
import fsDriver from 'unstorage/drivers/fs'
import redisDriver from 'unstorage/drivers/redis'

/** `fs:FOLDER`, `redis:PORT`, or `memory`. */
export function openStorage(place: string): Storage {
  const [kind, where] = [place.split(':', 1)[0], place.slice(place.indexOf(':') + 1)]
  if (kind === 'memory') return createStorage()
  if (kind === 'fs') return createStorage({ driver: fsDriver({ base: where }) })
  if (kind === 'redis') return createStorage({ driver: redisDriver({ base: 'test', host: '127.0.0.1', port: Number(where) }) })
  throw new Error(`no storage ${place}`)
}
