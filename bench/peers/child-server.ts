/** The child's side: answers the calls of ./child-client.ts, one at a time. */

/** A call's arguments and results are JSON. */
export type Methods = Readonly<Record<string, (argument: never) => Promise<unknown>>>

export interface Call {
  readonly method: string
  readonly argument: unknown
}

export type Answer = { readonly result: unknown } | { readonly error: string }

export function serve(methods: Methods): void {
  const answer = async ({ method, argument }: Call): Promise<Answer> => {
    try {
      return { result: await (methods[method] as (argument: unknown) => Promise<unknown>)(argument) }
    } catch (error) {
      return { error: error instanceof Error ? (error.stack ?? error.message) : String(error) }
    }
  }
  // Workers are not to outlive a benchmark that was stopped.
  process.on('disconnect', () => process.exit())
  process.on('message', (call: Call) => {
    void answer(call).then((result) => process.send?.(result))
  })
}
