/** Kernels that make every element by itself: a thread for each, neighbours in neighbouring threads. */

import type { View } from '../../../program/ops.ts'
import type { BatchCounts, Binding, Kernel, KernelContext } from '../kernel.ts'

export interface Elements {
  readonly label: string
  /** The kernel runs over its rows. */
  readonly out: View
  /** Elements of a row, by default as many as `out` has columns. */
  readonly width?: number
  readonly bindings?: readonly Binding[]
  readonly declarations?: string
  /** What is done for element `i` of `row`. */
  readonly body: string
}

const LANES = 256

export function elementKernel({ device }: KernelContext, { label, out, width = out.width, bindings = [], declarations = '', body }: Elements): Kernel {
  return {
    label,
    bindings,
    code: `${declarations}
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * ${LANES}u + lane;
  let row = index / ${width}u;
  let i = index % ${width}u;
  if (row >= ${rowCount(out)}) { return; }
  ${body}
}
`,
    workgroups(counts) {
      const count = Math.ceil((rowsOf(out, counts) * width) / LANES)
      return count === 0 ? null : [Math.min(count, device.maxWorkgroups), Math.ceil(count / device.maxWorkgroups), 1]
    }
  }
}

/** Rows of this forward in a view's buffer. */
export function rowsOf({ buffer }: View, { nTokens, nLogitRows }: BatchCounts): number {
  return buffer.rows === 'token' ? nTokens : nLogitRows
}

/** The same in WGSL. */
export function rowCount({ buffer }: View): string {
  return buffer.rows === 'token' ? 'nTokens()' : 'nLogitRows()'
}

/** An element of a view in WGSL: row and column are expressions. */
export function elementOf(context: KernelContext, view: View): (row: string, column: string) => string {
  const { offset, stride } = context.view(view)
  return (row, column) => `activations[${offset}u + (${row}) * ${stride}u + ${column}]`
}

/** A literal of f32. */
export function float(value: number): string {
  return `f32(${Math.fround(value)})`
}
