/**
 * A thread that is done asks one that is not for a part of its share of an op. The owner looks between two steps whether somebody asks, and gives the
 * second half of what is left: as long as nobody does it pays a load for a step, without the lock of a common counter, and no step is done twice.
 * Between two such ops all meet.
 */

import { CONTROL_WORDS, SHARE_ASKED, SHARE_MAIL, SHARE_WORDS } from './abi'
import { at } from './control'
import { fail, hasFailed } from './threads'

/** What SHARE_ASKED holds besides ASKER + a thread. */
const CLOSED: i32 = 0
const OPEN: i32 = 1
const ASKER: i32 = 2
/** The answer of an owner that has nothing to give; steps [from, to) are from << 8 | to. */
export const NOTHING: i32 = -1
const NO_MAIL: i32 = 0
/** Turns of waiting for an answer, after which the question is taken back: some 75 µs, more than most steps take. */
const TURNS: i32 = 100000

// @ts-ignore: decorator
@inline
function wordOf(control: usize, thread: i32, word: i32): usize {
  return at(control, CONTROL_WORDS + thread * SHARE_WORDS + word)
}

export function openShare(control: usize, thread: i32): void {
  atomic.store<i32>(wordOf(control, thread, SHARE_ASKED), OPEN)
}

/** The thread is about to do a step of its share, after which there are [step, stop): where the share ends from now on. */
export function giveAway(control: usize, thread: i32, step: i32, stop: i32): i32 {
  const address = wordOf(control, thread, SHARE_ASKED)
  const asked = atomic.load<i32>(address)
  // It may just have been taken back.
  if (asked < ASKER || atomic.cmpxchg<i32>(address, asked, OPEN) != asked) return stop
  const middle = step + (stop - step + 1 >> 1)
  answer(control, asked, middle < stop ? middle << 8 | stop : NOTHING)
  return middle
}

export function closeShare(control: usize, thread: i32): void {
  const asked = atomic.xchg<i32>(wordOf(control, thread, SHARE_ASKED), CLOSED)
  if (asked >= ASKER) answer(control, asked, NOTHING)
}

function answer(control: usize, asked: i32, mail: i32): void {
  atomic.store<i32>(wordOf(control, asked - ASKER, SHARE_MAIL), mail)
}

/** Steps of the owner's share that are now the thread's, or NOTHING. */
export function askFor(control: usize, thread: i32, owner: i32): i32 {
  const asked = wordOf(control, owner, SHARE_ASKED)
  const mail = wordOf(control, thread, SHARE_MAIL)
  if (atomic.load<i32>(asked) != OPEN) return NOTHING
  atomic.store<i32>(mail, NO_MAIL)
  if (atomic.cmpxchg<i32>(asked, OPEN, ASKER + thread) != OPEN) return NOTHING
  for (let turn = 0; atomic.load<i32>(mail) == NO_MAIL; turn++) {
    // Whoever does not answer is held up; if it has just seen the question the answer is on its way, unless the thread has died meanwhile.
    if (turn >= TURNS && (atomic.cmpxchg<i32>(asked, ASKER + thread, OPEN) == ASKER + thread || hasFailed(control))) return NOTHING
    if (turn == i32.MAX_VALUE) fail(control)
  }
  return atomic.load<i32>(mail)
}
