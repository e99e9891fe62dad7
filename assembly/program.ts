/** Runs ops [first, end) of the program: fetch a record, run it, meet the other threads where it is flagged. */

import {
  CODE_ACTIVATION, CODE_ATTENTION, CODE_CACHE_KEY_VALUE, CODE_CONV1D, CODE_EMBED, CODE_EXPERT_LINEAR, CODE_GATHER_ROWS, CODE_LINEAR,
  CODE_MIX_EXPERTS, CODE_RMS_NORM, CODE_ROTARY, CODE_ROUTE, CODE_SCALED_ADD, CODE_SELECTIVE_SCAN, CODE_SSD_CHUNKS, CODE_SSD_SCAN,
  CONTROL_N_THREADS, CONTROL_N_TOKENS, CONTROL_PROGRAM, MEET_MANY, MEET_ONE, OP_CODE, OP_FLAGS, OP_WORDS
} from './abi'
import { at, pointer, word } from './control'
import { activation, scaledAdd } from './ops/activation'
import { attention } from './ops/attention'
import { conv1d } from './ops/conv1d'
import { expertLinear } from './ops/expert-linear'
import { cacheKeyValue, rotary } from './ops/key-value'
import { linear } from './ops/linear'
import { mixExperts, route } from './ops/route'
import { rmsNorm } from './ops/rms-norm'
import { embed, gatherRows } from './ops/rows'
import { selectiveScan } from './ops/selective-scan'
import { ssdChunks } from './ops/ssd-chunks'
import { ssdScan } from './ops/ssd-scan'
import { barrier } from './threads'

/** The share of one thread; every thread runs the same loop. False when a thread is missing. */
export function runOps(control: usize, first: i32, end: i32, thread: i32): bool {
  const meets = ASC_FEATURE_THREADS && word(control, CONTROL_N_THREADS) > 1
  const meeting = word(control, CONTROL_N_TOKENS) == 1 ? MEET_ONE : MEET_MANY
  for (let i = first; i < end; i++) {
    const op = at(pointer(control, CONTROL_PROGRAM), i * OP_WORDS)
    switch (word(op, OP_CODE)) {
      case CODE_EMBED: embed(control, op, thread); break
      case CODE_GATHER_ROWS: gatherRows(control, op, thread); break
      case CODE_RMS_NORM: rmsNorm(control, op, thread); break
      case CODE_LINEAR: linear(control, op, thread); break
      case CODE_CONV1D: conv1d(control, op, thread); break
      case CODE_SELECTIVE_SCAN: selectiveScan(control, op, thread); break
      case CODE_SSD_SCAN: ssdScan(control, op, thread); break
      // No program of the scalar build has it.
      case CODE_SSD_CHUNKS: if (ASC_FEATURE_SIMD) ssdChunks(control, op, thread); break
      case CODE_ROTARY: rotary(control, op, thread); break
      case CODE_CACHE_KEY_VALUE: cacheKeyValue(control, op, thread); break
      case CODE_ATTENTION: attention(control, op, thread); break
      case CODE_ACTIVATION: activation(control, op, thread); break
      case CODE_SCALED_ADD: scaledAdd(control, op, thread); break
      case CODE_ROUTE: route(control, op, thread); break
      case CODE_EXPERT_LINEAR: expertLinear(control, op, thread); break
      case CODE_MIX_EXPERTS: mixExperts(control, op, thread); break
    }
    // At the end all meet, so that whoever asked finds everything done.
    if (meets && (i == end - 1 || (word(op, OP_FLAGS) & meeting))) {
      if (!barrier(control)) return false
    }
  }
  return true
}
