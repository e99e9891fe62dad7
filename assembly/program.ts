/** Runs ops [first, end) of the program: fetch a record, run it. Each thread runs the same loop over its own share. */

import {
  CODE_CONV1D, CODE_EMBED, CODE_GATHER_ROWS, CODE_LINEAR, CODE_RMS_NORM, CODE_SELECTIVE_SCAN, CONTROL_PROGRAM, OP_CODE, OP_WORDS
} from './abi'
import { at, pointer, word } from './control'
import { conv1d } from './ops/conv1d'
import { linear } from './ops/linear'
import { rmsNorm } from './ops/rms-norm'
import { embed, gatherRows } from './ops/rows'
import { selectiveScan } from './ops/selective-scan'

export function runOps(control: usize, first: i32, end: i32, thread: i32): void {
  for (let i = first; i < end; i++) {
    const op = at(pointer(control, CONTROL_PROGRAM), i * OP_WORDS)
    switch (word(op, OP_CODE)) {
      case CODE_EMBED: embed(control, op, thread); break
      case CODE_GATHER_ROWS: gatherRows(control, op, thread); break
      case CODE_RMS_NORM: rmsNorm(control, op, thread); break
      case CODE_LINEAR: linear(control, op, thread); break
      case CODE_CONV1D: conv1d(control, op, thread); break
      case CODE_SELECTIVE_SCAN: selectiveScan(control, op, thread); break
    }
  }
}
