/** What a worker of the compute core does before its first run. */
import { afterEach, expect, test, vi } from 'vitest'
import * as abi from '../../assembly/abi.ts'
import { platform } from '../../src/platform/node.ts'
import { threadWork } from '../../src/platform/thread-work.ts'

const PAGE = 4096

afterEach(() => vi.restoreAllMocks())

/** The touched addresses, with words of the control block set by which the thread returns where it would wait for a run. */
async function touched(...words: number[]): Promise<{ readonly addresses: number[]; readonly nReady: number; readonly isUnchanged: boolean }> {
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 4, shared: true })
  const control = 2 ** 16
  const bytes = new Uint8Array(memory.buffer)
  // Behind the module's data and the control block.
  const weights = 2 * 2 ** 16
  for (let i = weights; i < bytes.length; i++) bytes[i] = i * 37
  for (const word of words) new Int32Array(memory.buffer, control, abi.CONTROL_WORDS)[word] = 1
  const before = bytes.slice(weights)
  const or = vi.spyOn(Atomics, 'or')
  const onReady = vi.fn()
  threadWork({
    module: await platform.wasmModule('simd-threads'), memory, control, thread: 1, failed: control + 4 * abi.CONTROL_FAILED, exit: control + 4 * abi.CONTROL_EXIT,
    pages: { start: weights + PAGE, end: weights + 6 * PAGE - 64, step: 2 * PAGE }
  }, onReady)
  const addresses = or.mock.calls.map(([, index]) => 4 * index - weights)
  return { addresses, nReady: onReady.mock.calls.length, isUnchanged: Buffer.compare(bytes.subarray(weights), before) === 0 }
}

test('touches its share of the pages that are about to be written, and changes no byte', async () => {
  expect(await touched(abi.CONTROL_FAILED)).toEqual({ addresses: [PAGE, 3 * PAGE, 5 * PAGE], nReady: 1, isUnchanged: true })
})

test('touches none once it is told to return', async () => {
  expect(await touched(abi.CONTROL_EXIT, abi.CONTROL_RUN)).toEqual({ addresses: [], nReady: 1, isUnchanged: true })
})
