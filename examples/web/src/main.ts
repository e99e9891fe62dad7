/** A page on which a model writes. The engine is in a worker: the page is never busy. */

import type { ModelSource } from 'mamba-wasm'
import { byId } from './dom.ts'
import { filesOf, isState, modelOf, readState, saveState } from './files.ts'
import { currentModel, loadModel } from './model.ts'
import { createPane, type Pane, type PaneActions, type WriteOptions } from './pane.ts'

const problem = byId('problem', HTMLElement)
const prompt = byId('prompt', HTMLTextAreaElement)
const writeButton = byId('write', HTMLButtonElement)
const texts = byId('texts', HTMLElement)

let panes: readonly Pane[] = []
/** Of the writing under way. */
let controller: AbortController | null = null

/** Runs what the user asked for, one thing at a time, and shows what went wrong. */
async function run(task: (signal: AbortSignal) => Promise<void>): Promise<void> {
  if (controller !== null) return
  const own = new AbortController()
  controller = own
  problem.hidden = true
  showBusy(true)
  try {
    await task(own.signal)
  } catch (error) {
    if (!own.signal.aborted) showProblem(error)
  } finally {
    controller = null
    showBusy(false)
  }
}

function stop(): void {
  controller?.abort(new Error('stopped'))
}

function showBusy(isBusy: boolean): void {
  // One button in one place, so that it keeps the focus.
  writeButton.textContent = isBusy ? 'Stop' : 'Write'
  writeButton.setAttribute('aria-keyshortcuts', isBusy ? 'Escape' : 'Control+Enter')
  document.body.classList.toggle('busy', isBusy)
  for (const pane of panes) pane.setBusy(isBusy)
}

function showProblem(error: unknown): void {
  problem.textContent = error instanceof Error ? error.message : String(error)
  problem.hidden = false
}

function showPanes(next: readonly Pane[]): void {
  for (const pane of panes) if (!next.includes(pane)) pane.remove()
  panes = next
  panes.forEach((pane, i) => {
    pane.setName(panes.length === 1 ? 'Text' : `Text ${'AB'[i]}`, panes.length === 1)
    pane.setBusy(controller !== null)
  })
  // Those that are there stay as they are, so that nothing loses the focus.
  for (const pane of panes) {
    if (texts.contains(pane.element)) continue
    texts.append(pane.element)
    pane.showEnd()
  }
}

/** The options of the form; with a seed, each pane has its own. */
function writeOptions(index: number, signal: AbortSignal): WriteOptions {
  const numberOf = (id: string): number => byId(id, HTMLInputElement).valueAsNumber
  const seed = numberOf('seed')
  return { temperature: numberOf('temperature'), maxTokens: numberOf('max-tokens'), seed: Number.isNaN(seed) ? undefined : seed + index, signal }
}

async function goOn(chosen: readonly Pane[], signal: AbortSignal): Promise<void> {
  await Promise.all(chosen.map((pane) => pane.write(writeOptions(panes.indexOf(pane), signal))))
}

const actions: PaneActions = {
  goOn: (pane) => void run((signal) => goOn([pane], signal)),
  // Two ways on from here, side by side.
  fork: (pane) =>
    void run(async (signal) => {
      showPanes([pane, createPane(pane.session.fork(), pane.settle(), actions)])
      await goOn(panes, signal)
    }),
  save: (pane) => void run(async () => saveState(await pane.saved())),
  close(pane) {
    showPanes(panes.filter((other) => other !== pane))
    prompt.focus()
  }
}

async function writeAnew(signal: AbortSignal): Promise<void> {
  const mamba = await currentModel()
  const session = mamba.session()
  const pane = createPane(session, prompt.value, actions)
  showPanes([pane])
  await session.append(prompt.value, { defer: true })
  await goOn([pane], signal)
}

/** A model, or a state to go on from. */
async function take(files: readonly File[]): Promise<void> {
  const state = files.find(isState)
  if (state === undefined) return load(files.length === 1 ? files[0].name : `${files.length} files`, modelOf(files))
  const { given, written, session } = await readState(state)
  const mamba = await currentModel()
  showPanes([createPane(await mamba.restore(session), given, actions, written)])
  panes[0].element.querySelector<HTMLElement>('.go-on')?.focus()
}

async function load(name: string, source?: ModelSource): Promise<void> {
  // Sessions belong to their model.
  showPanes([])
  await loadModel(name, source)
}

function onPicked(id: string): void {
  const input = byId(id, HTMLInputElement)
  input.addEventListener('change', () => {
    const files = [...(input.files ?? [])]
    // So that the same ones may be picked again.
    input.value = ''
    if (files.length > 0) void run(() => take(files))
  })
}

function dropAnywhere(): void {
  const cover = byId('drop', HTMLElement)
  const isOfFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') === true
  addEventListener('dragover', (event) => {
    if (!isOfFiles(event)) return
    event.preventDefault()
    cover.hidden = false
  })
  addEventListener('dragleave', (event) => {
    if (event.relatedTarget === null) cover.hidden = true
  })
  addEventListener('drop', (event) => {
    cover.hidden = true
    if (!isOfFiles(event) || event.dataTransfer === null) return
    event.preventDefault()
    const files = filesOf(event.dataTransfer)
    void run(async () => take(await files))
  })
}

byId('embedded', HTMLButtonElement).addEventListener('click', () => void run(() => load('the built-in model')))
byId('address-form', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault()
  const address = byId('address', HTMLInputElement).value.trim()
  void run(() => load(address, address))
})
byId('write-form', HTMLFormElement).addEventListener('submit', (event) => {
  event.preventDefault()
  if (controller === null) void run(writeAnew)
  else stop()
})
addEventListener('keydown', (event) => {
  if (event.key === 'Escape') stop()
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && controller === null) byId('write-form', HTMLFormElement).requestSubmit()
})
onPicked('files')
onPicked('folder')
dropAnywhere()
