/** A text on the page and its session in the engine: it goes on, is forked, is saved. */

import type { WorkerSession } from 'mamba-wasm/worker'
import { formatBytes, formatCount, within } from './dom.ts'
import type { SavedState } from './files.ts'

export interface WriteOptions {
  readonly temperature: number
  readonly maxTokens: number
  readonly seed: number | undefined
  readonly signal: AbortSignal
}

export interface PaneActions {
  goOn(pane: Pane): void
  fork(pane: Pane): void
  save(pane: Pane): void
  close(pane: Pane): void
}

export interface Pane {
  readonly element: HTMLElement
  readonly session: WorkerSession
  /** Writes on until its end or the signal's. */
  write(options: WriteOptions): Promise<void>
  /** The text so far is what was given from here on, to this one and to its forks. Returns it. */
  settle(): string
  saved(): Promise<SavedState>
  setName(name: string, isAlone: boolean): void
  setBusy(isBusy: boolean): void
  showEnd(): void
  remove(): void
}

export function createPane(session: WorkerSession, given: string, actions: PaneActions, before = ''): Pane {
  const template = document.getElementById('pane') as HTMLTemplateElement
  const element = within(template.content, 'article', HTMLElement).cloneNode(true) as HTMLElement
  const title = within(element, 'h2', HTMLHeadingElement)
  const figures = within(element, '.figures', HTMLElement)
  const scroller = within(element, '.text', HTMLElement)
  const start = document.createTextNode(given)
  within(element, '.given', HTMLElement).append(start)
  // One text node that grows: what was there is not laid out again for a new piece of the document.
  const written = document.createTextNode(before)
  within(element, '.written', HTMLElement).append(written)
  const buttons = { goOn: '.go-on', fork: '.fork', save: '.save', close: '.close' } as const
  const pane: Pane = {
    element,
    session,
    settle() {
      start.appendData(written.data)
      written.data = ''
      return start.data
    },
    async write({ signal, ...options }) {
      const show = createShower(written, scroller)
      const speed = createSpeed()
      pane.showEnd()
      // Screen readers read the text when it stands still, not every piece.
      scroller.setAttribute('aria-busy', 'true')
      element.classList.add('writing')
      try {
        for await (const { text, ids, finish } of session.generate({ ...options, signal })) {
          show.add(text)
          const rate = speed.add(ids.length)
          if (finish !== null) showFigures(finish.timings.generatedTokensPerSecond)
          else if (rate !== null) showFigures(rate)
        }
      } finally {
        show.flush()
        scroller.removeAttribute('aria-busy')
        element.classList.remove('writing')
      }
    },
    async saved() {
      const bytes = await session.save()
      figures.textContent = `${formatCount(session.position)} tokens · saved, ${formatBytes(bytes.byteLength)}`
      return { given: start.data, written: written.data, session: bytes }
    },
    setName(name, isAlone) {
      title.textContent = name
      scroller.setAttribute('aria-label', name)
      for (const selector of Object.values(buttons)) {
        const button = within(element, selector, HTMLButtonElement)
        button.setAttribute('aria-label', isAlone ? (button.textContent ?? '') : `${button.textContent} (${name})`)
      }
    },
    setBusy(isBusy) {
      // Not `disabled`: the button that was pressed keeps the focus.
      for (const selector of Object.values(buttons)) within(element, selector, HTMLButtonElement).setAttribute('aria-disabled', `${isBusy}`)
    },
    showEnd() {
      scroller.scrollTop = scroller.scrollHeight
    },
    remove() {
      element.remove()
      void session.dispose().catch(() => {})
    }
  }
  const showFigures = (tokensPerSecond: number): void => {
    figures.textContent = `${formatCount(session.position)} tokens · ${tokensPerSecond.toFixed(0)} tokens/s`
  }
  figures.textContent = `${formatCount(session.position)} tokens`
  for (const [action, selector] of Object.entries(buttons)) {
    const button = within(element, selector, HTMLButtonElement)
    button.addEventListener('click', () => {
      if (button.getAttribute('aria-disabled') !== 'true') actions[action as keyof PaneActions](pane)
    })
  }
  return pane
}

/** Pieces go to the page once a frame, however many there are; who reads at the end stays there. */
function createShower(target: Text, scroller: HTMLElement): { add(text: string): void; flush(): void } {
  let pending = ''
  let frame = 0
  const flush = (): void => {
    cancelAnimationFrame(frame)
    frame = 0
    const isAtEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 40
    target.appendData(pending)
    pending = ''
    if (isAtEnd) scroller.scrollTop = scroller.scrollHeight
  }
  return {
    add(text) {
      pending += text
      frame ||= requestAnimationFrame(flush)
    },
    flush
  }
}

const SHOW_EVERY_MS = 250

/** Tokens a second since the last time it was shown; null while it is too early to show another. */
function createSpeed(): { add(count: number): number | null } {
  let startMs: number | null = null
  let nTokens = 0
  return {
    add(count) {
      const nowMs = performance.now()
      // The first piece comes with the reading of the prompt.
      if (startMs === null) {
        startMs = nowMs
        return null
      }
      nTokens += count
      const elapsedMs = nowMs - startMs
      if (elapsedMs < SHOW_EVERY_MS) return null
      const rate = (1000 * nTokens) / elapsedMs
      startMs = nowMs
      nTokens = 0
      return rate
    }
  }
}
