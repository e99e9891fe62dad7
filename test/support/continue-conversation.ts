/**
 * A process that a conversation moves to: `node continue-conversation.ts MODEL STORAGE KEY TURN_IDS OPTIONS`. Loads the session, adds the turn, completes it,
 * stores it again, and prints the ids that came, as JSON.
 */
import { Mamba, StateStore } from '../../src/index.ts'
import { openStorage } from './storages.ts'

const [model, place, key, turn, options] = process.argv.slice(2)
const storage = openStorage(place)
const store = new StateStore(storage)
await using mamba = await Mamba.load(model, { build: 'scalar', threads: 1 })
const stored = await store.load(key, mamba)
if (stored === null) throw new Error(`no session ${key}`)
await stored.session.append(JSON.parse(turn))
const { ids } = await stored.session.complete(JSON.parse(options))
const revision = await store.save(key, stored.session, { ifRevision: stored.revision })
process.stdout.write(JSON.stringify({ ids, revision }))
await storage.dispose()
