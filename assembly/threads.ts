/**
 * Threads over one shared memory. Thread 0 is whoever calls `run`; the others sit in `work` and run the same ops on their own shares.
 * They meet at barriers: a bounded number of turns of spinning, then sleep in slices, with a deadline and a flag that releases everyone,
 * so that nothing hangs when a thread dies. What they share is in the control block alone; each has learnt for itself how long to spin.
 */

import {
  CONTROL_ARRIVED, CONTROL_END_OP, CONTROL_EXIT, CONTROL_FAILED, CONTROL_FIRST_OP, CONTROL_N_THREADS, CONTROL_PHASE, CONTROL_RUN, CONTROL_SLEEPERS
} from './abi'
import { at, word } from './control'

/**
 * Turns of spinning before a thread sleeps: at most some 0.3 ms, since JavaScript takes 0.1 ms between the runs of a text's tokens, and at a barrier others on the
 * machine hold a thread back by some 0.05 ms now and then, which is what it costs to sleep and to be woken. But whoever spins keeps a core, on which the awaited
 * thread may have to run: after turns in vain there are LEAST_TURNS again, some 20 µs, and with every wait that ends in time an eighth more.
 */
const MOST_TURNS: i32 = 400000
const LEAST_TURNS: i32 = 20000
/** Of this thread alone: every thread has an instance of its own. */
let spinTurns: i32 = LEAST_TURNS
/** 30 s at a barrier, in slices of 100 ms: no op takes that long. */
const MAX_SLICES: i32 = 300

/** Sleeps until the word is notified, at most a slice, if it is still `value`: see src/core-imports.ts. */
// @ts-ignore: decorator
@external('env', 'sleep')
declare function sleep(address: usize, value: i32): void

/** Thread 0: starts the workers on ops [first, end). */
export function startRun(control: usize, first: i32, end: i32): void {
  store<i32>(at(control, CONTROL_FIRST_OP), first)
  store<i32>(at(control, CONTROL_END_OP), end)
  atomic.add<i32>(at(control, CONTROL_RUN), 1)
  wake(control, at(control, CONTROL_RUN))
}

/** A worker: waits for a run that is not `seen`, without a deadline; false when it is to return. */
export function awaitRun(control: usize, seen: i32): bool {
  while (!changes(control, at(control, CONTROL_RUN), seen)) {
    if (hasFailed(control)) return false
  }
  return !atomic.load<i32>(at(control, CONTROL_EXIT)) && !hasFailed(control)
}

/** All threads meet; false when one is missing. */
export function barrier(control: usize): bool {
  const phase = at(control, CONTROL_PHASE)
  const current = atomic.load<i32>(phase)
  if (atomic.add<i32>(at(control, CONTROL_ARRIVED), 1) == word(control, CONTROL_N_THREADS) - 1) {
    atomic.store<i32>(at(control, CONTROL_ARRIVED), 0)
    atomic.add<i32>(phase, 1)
    wake(control, phase)
    return !hasFailed(control)
  }
  for (let slice = 0; slice < MAX_SLICES; slice++) {
    if (changes(control, phase, current)) return !hasFailed(control)
    if (hasFailed(control)) return false
  }
  fail(control)
  return false
}

/** A thread is missing: releases everyone. */
export function fail(control: usize): void {
  atomic.store<i32>(at(control, CONTROL_FAILED), 1)
}

export function hasFailed(control: usize): bool {
  return atomic.load<i32>(at(control, CONTROL_FAILED)) != 0
}

/** Whether the word is another one than `value`: spins, then sleeps until it is woken or a slice has passed, and says false, to be asked again. */
function changes(control: usize, address: usize, value: i32): bool {
  for (let turn = spinTurns; turn > 0; turn--) {
    if (atomic.load<i32>(address) == value) continue
    spinTurns = min(MOST_TURNS, spinTurns + (spinTurns >> 3))
    return true
  }
  spinTurns = LEAST_TURNS
  atomic.add<i32>(at(control, CONTROL_SLEEPERS), 1)
  sleep(address, value)
  atomic.sub<i32>(at(control, CONTROL_SLEEPERS), 1)
  return false
}

/** The word has changed. Whoever is about to sleep sees that, whoever sleeps is counted. */
function wake(control: usize, address: usize): void {
  if (atomic.load<i32>(at(control, CONTROL_SLEEPERS)) > 0) atomic.notify(address, -1)
}
