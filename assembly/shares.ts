/**
 * Threads that help each other with an op: one that is done asks one that is not for a part of its share. The owner looks between two steps whether somebody
 * asks, and gives the second half of what is left: as long as nobody does it pays a load for a step, without the lock of a common counter, and no step is done
 * twice. Two cores seldom get the same from memory or from the host, nor are all cores alike: without help the slowest decides. Between two such ops all meet.
 */

import { CONTROL_N_THREADS, CONTROL_N_TOKENS, CONTROL_WORDS, HELP_MANY, HELP_ONE, OP_FLAGS, SHARE_ASKED, SHARE_MAIL, SHARE_WORDS } from './abi'
import { at, firstOf, word } from './control'
import { fail, hasFailed } from './threads'

/** What SHARE_ASKED holds besides ASKER + a thread. */
const CLOSED: i32 = 0
const OPEN: i32 = 1
const ASKER: i32 = 2
/** The answer of an owner that has nothing to give; steps [from, to) are from << STEP_BITS | to. */
const NOTHING: i32 = -1
const NO_MAIL: i32 = 0
const STEP_BITS: i32 = 15
/** Turns of waiting for an answer, after which the question is taken back: some 150 µs, more than most steps take. */
const TURNS: i32 = 200000

/** `thread` does steps [from, to) of a share, which is items [first, end). */
type Steps = (control: usize, op: usize, thread: i32, first: i32, end: i32, from: i32, to: i32) => void

/** Whether the threads may help each other with an op, as the planner has it. */
// @ts-ignore: decorator
@inline
export function isHelped(control: usize, op: usize): bool {
  return (word(op, OP_FLAGS) & (word(control, CONTROL_N_TOKENS) == 1 ? HELP_ONE : HELP_MANY)) != 0
}

/** The thread's own share of nItems, in nSteps, fewer than 2^STEP_BITS, the first `atOnce` of them in one go; and then steps of threads that are not done yet. */
export function helpEachOther(control: usize, op: usize, thread: i32, nItems: i32, nSteps: i32, atOnce: i32, steps: Steps): void {
  const nThreads = word(control, CONTROL_N_THREADS)
  let first = firstOf(control, nItems, thread)
  let end = firstOf(control, nItems, thread + 1)
  openShare(control, thread)
  if (atOnce > 0) steps(control, op, thread, first, end, 0, atOnce)
  for (let step = atOnce, stop = nSteps; step < stop; step++) {
    stop = giveAway(control, thread, step + 1, stop)
    steps(control, op, thread, first, end, step, step + 1)
  }
  closeShare(control, thread)
  for (let i = 1; i < nThreads; i++) {
    const owner = (thread + i) % nThreads
    first = firstOf(control, nItems, owner)
    end = firstOf(control, nItems, owner + 1)
    for (let given = askFor(control, thread, owner); given != NOTHING; given = askFor(control, thread, owner)) {
      steps(control, op, thread, first, end, given >> STEP_BITS, given & (1 << STEP_BITS) - 1)
    }
  }
}

// @ts-ignore: decorator
@inline
function wordOf(control: usize, thread: i32, word: i32): usize {
  return at(control, CONTROL_WORDS + thread * SHARE_WORDS + word)
}

function openShare(control: usize, thread: i32): void {
  atomic.store<i32>(wordOf(control, thread, SHARE_ASKED), OPEN)
}

/** The thread is about to do a step of its share, after which there are [step, stop): where the share ends from now on. */
function giveAway(control: usize, thread: i32, step: i32, stop: i32): i32 {
  const address = wordOf(control, thread, SHARE_ASKED)
  const asked = atomic.load<i32>(address)
  // It may just have been taken back.
  if (asked < ASKER || atomic.cmpxchg<i32>(address, asked, OPEN) != asked) return stop
  const middle = step + (stop - step + 1 >> 1)
  answer(control, asked, middle < stop ? middle << STEP_BITS | stop : NOTHING)
  return middle
}

function closeShare(control: usize, thread: i32): void {
  const asked = atomic.xchg<i32>(wordOf(control, thread, SHARE_ASKED), CLOSED)
  if (asked >= ASKER) answer(control, asked, NOTHING)
}

function answer(control: usize, asked: i32, mail: i32): void {
  atomic.store<i32>(wordOf(control, asked - ASKER, SHARE_MAIL), mail)
}

/** Steps of the owner's share that are now the thread's, or NOTHING. */
function askFor(control: usize, thread: i32, owner: i32): i32 {
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
