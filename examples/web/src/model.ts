/** The page's one model: loaded in a worker, with its progress shown, replaced by the next. */

import { deleteCachedFiles, listCachedFiles, type ModelSource } from 'mamba-wasm'
import { loadInWorker, type WorkerMamba } from 'mamba-wasm/worker'
import { byId, formatBytes } from './dom.ts'

const facts = byId('facts', HTMLElement)
const loading = byId('loading', HTMLElement)
const bar = byId('progress', HTMLProgressElement)
const barText = byId('progress-text', HTMLElement)
const kept = byId('kept', HTMLDetailsElement)
const keptList = byId('kept-list', HTMLUListElement)
const onGpu = byId('gpu', HTMLInputElement)

let current: Promise<WorkerMamba> | null = null

/** The model there is, or the built-in one. */
export function currentModel(): Promise<WorkerMamba> {
  return current ?? loadModel('the built-in model')
}

/** Replaces the model there is, without a source by the built-in one. Cancelled, or without success, there is none. */
export function loadModel(name: string, source?: ModelSource): Promise<WorkerMamba> {
  const before = current
  const mine = replace(before, name, source)
  current = mine
  mine.catch(() => {
    if (current === mine) current = null
  })
  return mine
}

async function replace(before: Promise<WorkerMamba> | null, name: string, source?: ModelSource): Promise<WorkerMamba> {
  const controller = new AbortController()
  const cancel = byId('cancel', HTMLButtonElement)
  const onCancel = (): void => controller.abort(new Error('Loading was cancelled.'))
  cancel.addEventListener('click', onCancel)
  facts.textContent = `Loading ${name} …`
  bar.removeAttribute('value')
  barText.textContent = ''
  loading.hidden = false
  try {
    await (await before?.catch(() => null))?.dispose().catch(() => {})
    const mamba = await loadInWorker(source, {
      backend: onGpu.checked ? 'webgpu' : 'wasm',
      signal: controller.signal,
      onProgress({ phase, file, loadedBytes, totalBytes }) {
        bar.value = totalBytes > 0 ? loadedBytes / totalBytes : 1
        barText.textContent = `${phase === 'download' ? file : 'weights'}: ${formatBytes(loadedBytes)} of ${formatBytes(totalBytes)}`
      }
    })
    facts.textContent = describe(mamba, name)
    facts.title = mamba.backend.reason
    return mamba
  } catch (error) {
    facts.textContent = 'None yet: writing takes the built-in one.'
    throw error
  } finally {
    loading.hidden = true
    cancel.removeEventListener('click', onCancel)
    if (kept.open) void showKept()
  }
}

function describe({ config, backend, notKept }: WorkerMamba, name: string): string {
  const { threads, memoryBytes } = backend
  const where = backend.name === 'webgpu' ? 'GPU' : threads === 1 ? '1 thread' : `${threads} threads`
  const parts = [`${name[0].toUpperCase()}${name.slice(1)}`, `${config.nLayers} layers`, where, `${formatBytes(memoryBytes.total)} of memory`]
  if (notKept.size > 0) parts.push(`not kept: ${[...notKept.values()][0]}`)
  return parts.join(' · ')
}

/** What the browser keeps of hub downloads. */
async function showKept(): Promise<void> {
  const files = await listCachedFiles()
  const items = files.map(({ model, file, byteLength }) => {
    const item = document.createElement('li')
    const button = Object.assign(document.createElement('button'), { type: 'button', textContent: 'Delete' })
    button.setAttribute('aria-label', `Delete ${model} ${file}`)
    button.addEventListener('click', () => void deleteCachedFiles({ model, file }).then(showKept))
    item.append(`${model} · ${file} · ${formatBytes(byteLength)} `, button)
    return item
  })
  const none = Object.assign(document.createElement('li'), { textContent: 'None. A model that is loaded by its hub id is kept here.' })
  keptList.replaceChildren(...(items.length === 0 ? [none] : items))
  byId('delete-kept', HTMLButtonElement).hidden = items.length === 0
}

kept.addEventListener('toggle', () => void (kept.open && showKept()))
byId('delete-kept', HTMLButtonElement).addEventListener('click', () => void deleteCachedFiles().then(showKept))

/** The choice is there where the browser gives this page a GPU; it holds from the next loading on. */
async function offerGpu(): Promise<void> {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null)
  byId('gpu-field', HTMLElement).hidden = (adapter ?? null) === null
}

void offerGpu()
