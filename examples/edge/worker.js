// A conversation with the embedded model at the edge: `POST /NAME` with a text answers with its continuation, in pieces as they are made, and keeps
// the state of conversation NAME in KV, where the next request finds it, wherever it runs. `DELETE /NAME` forgets it.
import { CheckpointError, Mamba, StateStore } from 'mamba-wasm'

const MAX_PROMPT = 4000
/** Tokens that are read at a time. */
const PART = 256

/** One model for all requests of this isolate. */
let loading

/** It is loaded to its end though the request that began with it may go away: others wait for the same one. */
function load({ ASSETS }, context) {
  if (loading === undefined) {
    loading = loadModel(ASSETS).catch((error) => {
      loading = undefined
      throw error
    })
    context.waitUntil(loading)
  }
  return loading
}

/** The file is a static asset (wrangler.jsonc); from R2 or KV, too, it is `Mamba.load(await object.arrayBuffer())`. */
async function loadModel(assets) {
  const response = await assets.fetch('https://assets/model.gguf')
  if (!response.ok) throw new Error(`model.gguf: expected it among the assets, got status ${response.status}`)
  return Mamba.load(await response.arrayBuffer())
}

/** A namespace of KV as a storage of states: 0.47 MB for a conversation, however long it is. */
function storageOf(kv) {
  return {
    getItemRaw: (key) => kv.get(key, 'arrayBuffer'),
    setItemRaw: (key, value, { ttl } = {}) => kv.put(key, value, ttl === undefined ? {} : { expirationTtl: Math.max(60, ttl) }),
    removeItem: (key) => kv.delete(key),
    getKeys: async (prefix) => (await kv.list({ prefix })).keys.map(({ name }) => name)
  }
}

/** A turn of the event loop: other requests have theirs, and what was written is sent. */
const turnOfOthers = () => new Promise((resolve) => setTimeout(resolve))

/** Reads a prompt in parts. (`tokenize` begins with the token that begins a text, where a model has one; this one has none.) */
async function read(session, ids, signal) {
  for (let start = 0; start < ids.length; start += PART) {
    await session.append(ids.slice(start, start + PART), { signal })
    await turnOfOthers()
  }
}

/** The continuation of a session, which is saved before the end is told. */
async function* continuation(session, options, save) {
  const encoder = new TextEncoder()
  try {
    for await (const { text } of session.generate(options)) yield encoder.encode(text)
    await save()
  } finally {
    await session.dispose()
  }
}

/** What is made as it is asked for: who goes away ends the work. */
function streamOf(pieces) {
  return new ReadableStream({
    async pull(controller) {
      const { value, done } = await pieces.next()
      if (done) controller.close()
      else controller.enqueue(value)
      await turnOfOthers()
    },
    cancel: () => pieces.return()
  })
}

const refused = (status, text, headers = {}) => new Response(`${text}\n`, { status, headers })

export default {
  async fetch(request, env, context) {
    const { pathname, searchParams } = new URL(request.url)
    const [, name] = /^\/([\w-]{1,64})$/.exec(pathname) ?? []
    if (name === undefined) return refused(400, 'expected the path /NAME, of letters, digits, - and _')
    const store = new StateStore(storageOf(env.CONVERSATIONS), { ttlSeconds: 86_400 })
    if (request.method === 'DELETE') return new Response(null, { status: (await store.delete(name)) ? 204 : 404 })
    if (request.method !== 'POST') return refused(405, 'expected POST or DELETE', { allow: 'POST, DELETE' })
    const prompt = await request.text()
    if (prompt === '') return refused(400, 'expected a text')
    if (prompt.length > MAX_PROMPT) return refused(413, `expected at most ${MAX_PROMPT} characters`)
    const seed = Number(searchParams.get('seed') ?? crypto.getRandomValues(new Uint32Array(1))[0])
    if (!Number.isInteger(seed) || seed < 0) return refused(400, 'expected seed to be an integer')

    const mamba = await load(env, context)
    let stored
    try {
      stored = await store.load(name, mamba)
    } catch (error) {
      if (error instanceof CheckpointError) return refused(409, `${name}: begun with another model; DELETE forgets it`)
      throw error
    }
    const session = stored?.session ?? mamba.session()
    // Of whoever goes away while the prompt is read nothing else is heard: the request ends where it waits.
    request.signal.addEventListener('abort', () => session.dispose())
    await read(session, mamba.tokenize(prompt), request.signal)
    // Somebody else's answer in between is a ConflictError, which breaks the stream off.
    const save = () => store.save(name, session, { ifRevision: stored?.revision ?? 0 })
    const pieces = continuation(session, { maxTokens: 200, seed, signal: request.signal }, save)
    // Compressed on its way it would come as one piece at the end.
    return new Response(streamOf(pieces), { headers: { 'content-type': 'text/plain; charset=utf-8', 'content-encoding': 'identity' } })
  }
}
