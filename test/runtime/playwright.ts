/** What the tests use of playwright-core, which is no dependency. */

import { GPU_FLAGS } from './browsers.ts'
import { tool } from './installs.ts'

export interface Locator {
  click(): Promise<void>
  fill(value: string): Promise<void>
  press(key: string): Promise<void>
  focus(): Promise<void>
  count(): Promise<number>
  waitFor(options?: { readonly state?: 'visible' | 'hidden' }): Promise<void>
  textContent(): Promise<string | null>
  setInputFiles(files: string | readonly string[]): Promise<void>
  nth(index: number): Locator
  locator(selector: string): Locator
}

export interface Page {
  goto(url: string): Promise<unknown>
  locator(selector: string): Locator
  getByRole(role: string, options?: { readonly name?: string; readonly exact?: boolean }): Locator
  /** `expression` runs in the page; `task` too, and sees nothing but its argument. */
  evaluate<T, A = undefined>(task: string | ((argument: A) => T | Promise<T>), argument?: A): Promise<T>
  waitForFunction(expression: string): Promise<unknown>
  waitForEvent(event: 'download'): Promise<{ path(): Promise<string>; suggestedFilename(): string }>
  readonly keyboard: { press(key: string): Promise<void> }
  addInitScript(script: string): Promise<void>
  setViewportSize(size: { readonly width: number; readonly height: number }): Promise<void>
  emulateMedia(options: { readonly colorScheme: 'light' | 'dark' }): Promise<void>
  screenshot(options: { readonly path: string; readonly fullPage: boolean }): Promise<unknown>
  on(event: 'pageerror', listener: (error: Error) => void): void
  waitForTimeout(ms: number): Promise<void>
  workers(): { url(): string; evaluate(expression: string): Promise<unknown> }[]
}

export interface Route {
  request(): { url(): string; method(): string }
  fulfill(options: { readonly status: number; readonly headers?: Readonly<Record<string, string>>; readonly body?: Buffer | string }): Promise<void>
}

export interface DevtoolsSession {
  /** Its answer is as the protocol has it. */
  send<T>(method: string, parameters: object): Promise<T>
}

export interface BrowserContext {
  newPage(): Promise<Page>
  route(url: string, handler: (route: Route) => Promise<void>): Promise<void>
  newCDPSession(page: Page): Promise<DevtoolsSession>
  setDefaultTimeout(ms: number): void
}

export interface Browser {
  newContext(options?: object): Promise<BrowserContext>
  newBrowserCDPSession(): Promise<DevtoolsSession>
  close(): Promise<void>
}

/** Debian's Chromium, headless; with a GPU in software, or none. */
export async function launchChromium({ hasGpu = false } = {}): Promise<Browser> {
  const { default: playwright } = await tool<{ readonly default: { readonly chromium: { launch(options: object): Promise<Browser> } } }>('playwright-core', 'playwright')
  return playwright.chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', ...(hasGpu ? GPU_FLAGS : ['--disable-gpu'])] })
}
