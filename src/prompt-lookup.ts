/** Prompt lookup (github.com/apoorvumang/prompt-lookup-decoding): what followed the last few tokens when they came before is likely to follow again. */

export interface PromptLookup {
  push(id: number): void
  /** `count` tokens that may come next; none where the last `minMatch` tokens are new. */
  draft(count: number): number[]
}

export function createPromptLookup(ids: Iterable<number>, minMatch: number): PromptLookup {
  const text: number[] = []
  /** Where each run of `minMatch` tokens ended last, of those that something follows. */
  const ends = new Map<string, number>()
  const lastRun = (): string => text.slice(-minMatch).join()
  const push = (id: number): void => {
    if (text.length >= minMatch) ends.set(lastRun(), text.length)
    text.push(id)
  }
  for (const id of ids) push(id)
  return {
    push,
    draft(count) {
      const first = text.length >= minMatch ? ends.get(lastRun()) : undefined
      if (first === undefined) return []
      // Beyond the end of the text it repeats itself.
      const period = text.length - first
      return Array.from({ length: count }, (_, i) => text[first + (i % period)])
    }
  }
}
