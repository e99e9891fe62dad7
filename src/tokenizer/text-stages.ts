/**
 * Steps on streamed text: each gives what can no longer change and holds back what may. Whole characters in, whole characters out.
 */

export interface TextStage {
  push(text: string): string
  /** The end of the text: what was held back. The stage is then as new. */
  flush(): string
}

/** All stages after one another. */
export function chain(stages: readonly TextStage[]): TextStage {
  return {
    push: text => stages.reduce((carried, stage) => stage.push(carried), text),
    flush: () => stages.reduce((carried, stage) => stage.push(carried) + stage.flush(), '')
  }
}

/** `replaceAll(from, to)` of the whole text. Holds back an end that may become `from`. */
export function createReplacer(from: string, to: string): TextStage {
  let held = ''
  return {
    push(text) {
      if (text === '') return ''
      const parts = (held + text).split(from)
      const last = parts[parts.length - 1]
      let nHeld = Math.min(from.length - 1, last.length)
      while (nHeld > 0 && !last.endsWith(from.slice(0, nHeld))) nHeld--
      held = last.slice(last.length - nHeld)
      parts[parts.length - 1] = last.slice(0, last.length - nHeld)
      return parts.join(to)
    },
    flush() {
      const rest = held
      held = ''
      return rest
    }
  }
}

/** Without up to `start` characters `content` at the start of the text and up to `stop` at its end. */
export function createStripper({ content, start, stop }: { content: string, start: number, stop: number }): TextStage {
  let nToSkip = start
  let held = ''
  return {
    push(text) {
      if (text === '') return ''
      let from = 0
      while (nToSkip > 0 && from < text.length) {
        if (text.startsWith(content, from)) {
          from += content.length
          nToSkip--
        } else nToSkip = 0
      }
      const all = held + text.slice(from)
      let end = all.length
      for (let n = 0; n < stop && all.endsWith(content, end) && end > 0; n++) end -= content.length
      held = all.slice(end)
      return all.slice(0, end)
    },
    flush() {
      nToSkip = start
      held = ''
      return ''
    }
  }
}

/** `clean_up_tokenization` of transformers, in its order. */
const CLEAN_UP: readonly (readonly [string, string])[] = [
  [' .', '.'], [' ?', '?'], [' !', '!'], [' ,', ','], [" ' ", "'"], [" n't", "n't"], [" 'm", "'m"], [" 's", "'s"], [" 've", "'ve"], [" 're", "'re"]
]

/** Takes the spaces out before punctuation and English contractions, as WordPiece tokenizers want it. */
export function createCleanUp(): TextStage {
  return chain(CLEAN_UP.map(([from, to]) => createReplacer(from, to)))
}

/** `createCleanUp` on a text by itself. */
export function cleanUp(text: string): string {
  return CLEAN_UP.reduce((cleaned, [from, to]) => cleaned.replaceAll(from, to), text)
}
