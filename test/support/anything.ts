/** Values as a caller without types might pass them. */

/** A value of whatever type is asked for. */
export function untyped<T>(value: unknown): T {
  return value as never
}

/** What a promise or a call was rejected with. */
export async function reasonOf(task: () => unknown): Promise<unknown> {
  try {
    await task()
  } catch (error) {
    return error
  }
  throw new Error('expected a rejection')
}
