/** First come, first served: keeps the order of calls on an engine and on a session. */

export interface Lock {
  /** Resolves when all who asked before have released; to be called at once, so that order is the order of calls. */
  acquire(): Promise<() => void>
  /** `task` under the lock. */
  run<T>(task: () => Promise<T>): Promise<T>
}

export function createLock(): Lock {
  let tail: Promise<void> = Promise.resolve()
  const acquire = async (): Promise<() => void> => {
    const before = tail
    let release = (): void => {}
    tail = new Promise((resolve) => {
      release = resolve
    })
    await before
    return release
  }
  return {
    acquire,
    async run(task) {
      const release = await acquire()
      try {
        return await task()
      } finally {
        release()
      }
    }
  }
}
