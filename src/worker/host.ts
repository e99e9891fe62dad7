/** Where an engine of its own thread runs. One implementation for each kind of host, chosen by the import condition of "#worker-host". */

export interface EngineHost {
  /** To `serveEngine` on the other side. */
  readonly port: MessagePort
  /** Whether somebody waits for an answer; a process may end by itself where nobody does. */
  hold(isHeld: boolean): void
  /** Ends the worker and what it started. */
  end(): Promise<void>
}

export interface EngineOptions {
  /** How long a worker may say nothing while somebody waits, where the host does not tell that one has ended. */
  readonly silenceLimitMs?: number | undefined
}

/** Starts a worker; `onEnd` is called once, with the reason, when it ends. Throws an UnsupportedError where there are none. */
export type StartEngine = (onEnd: (reason: string) => void, options?: EngineOptions) => EngineHost
