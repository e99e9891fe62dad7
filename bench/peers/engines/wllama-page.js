// wllama in a page: what ./wllama.ts calls from outside. Browsers do not strip types.

import { Wllama } from './wllama/index.js'

let wllama

/** The model's file to the browser's own storage, from where it is loaded. */
async function download(url) {
  wllama = new Wllama({ default: '/wllama/wasm/wllama.wasm' }, { suppressNativeLog: true, logger: { debug() {}, log() {}, warn() {}, error: console.error } })
  // No fallback to a build from a CDN.
  wllama.setCompat(null)
  withoutCheckpoints(wllama)
  return wllama.modelManager.downloadModel(url)
}

async function load({ url, threads, contextLength, first }) {
  const model = await download(url)
  const startMs = performance.now()
  await wllama.loadModel(model, {
    n_threads: threads, n_gpu_layers: 0, n_ctx: contextLength, n_batch: 512, n_ubatch: 512, n_parallel: 1,
    flash_attn: false, cache_idle_slots: false, warmup: false
  })
  const loadMs = performance.now() - startMs
  const { prefillMs } = await run({ prompt: first, nDecode: 0 })
  const { n_batch, n_ubatch } = wllama.getLoadedContextInfo()
  const detail = { version: Wllama.getLibllamaVersion(), threads: wllama.getNumThreads(), isMultithread: wllama.isMultithread(), isolated: crossOriginIsolated, nBatch: n_batch, nUbatch: n_ubatch }
  return { loadMs, firstTokenMs: prefillMs, detail: JSON.stringify(detail) }
}

/**
 * llama-server, which is inside, keeps copies of a recurrent model's state and cuts a prompt in two to take one shortly before its end. A
 * message to it can say no; wllama's own options cannot.
 */
function withoutCheckpoints(target) {
  let proxy = null
  Object.defineProperty(target, 'proxy', {
    get: () => proxy,
    set(value) {
      proxy = value
      const action = value?.wllamaAction
      if (action !== undefined) value.wllamaAction = (name, body) => action.call(value, name, name === 'load' ? { ...body, n_ctx_checkpoints: 0 } : body)
    }
  })
}

/** Prompts of ids do not get through: it takes text, which is made of words of one token each. */
async function run({ prompt: { ids, text }, nDecode }) {
  const startMs = performance.now()
  const { timings } = await wllama.createCompletion({
    prompt: text, max_tokens: nDecode + 1, ignore_eos: true, cache_prompt: false,
    // Greedy, by one sampler.
    temperature: 0, samplers: ['temperature'], top_k: 1
  })
  const wallMs = performance.now() - startMs
  if (timings.prompt_n !== ids.length || timings.predicted_n !== nDecode + 1) throw new Error(JSON.stringify(timings))
  return { prefillMs: timings.prompt_ms, decodeMs: timings.predicted_ms, wallMs }
}

async function top({ text }) {
  const { choices } = await wllama.createCompletion({ prompt: text, max_tokens: 1, ignore_eos: true, cache_prompt: false, temperature: 0, samplers: ['temperature'], logprobs: 1 })
  return choices[0].logprobs.content[0].top_logprobs[0].logprob
}

globalThis.peer = { load, run, top }
