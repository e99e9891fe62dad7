/**
 * What a file of kernels/ makes of an op: compute shaders in WGSL, with what they are bound to and how they are dispatched. All that a
 * shape decides is written into the shader as a constant, so the ops of all layers share their pipelines: same code, same pipeline.
 */

import type { Capacity, SsdForm } from '../backend.ts'
import type { WeightFormat } from '../../program/formats.ts'
import type { KeyValuePart, OpKind, OpOf, Parameter, RotaryOp, StatePart, View } from '../../program/ops.ts'

/** What is known at load. */
export interface KernelContext {
  readonly device: DeviceFacts
  readonly capacity: Capacity
  readonly ssd: SsdForm
  /** Where the rows of a view lie in `activations`, in elements: row r, column c at offset + r · stride + c. Strides are multiples of 4. */
  readonly view: (view: View) => { readonly offset: number; readonly stride: number }
  /** In which format a parameter lies in GPU memory; weights.ts says how. */
  readonly formatOf: (parameter: Parameter) => WeightFormat
}

export interface DeviceFacts {
  /** Lanes of a subgroup, least and most; null without subgroup operations. */
  readonly subgroup: { readonly min: number; readonly max: number } | null
  /** Computes on the CPU (SwiftShader, lavapipe): every thread of a workgroup costs microseconds there, and code the time to compile it. */
  readonly isSoftware: boolean
  /** WGSL's unpack2x16float gives the exact value of every half, the subnormal ones' too. */
  readonly unpacksHalves: boolean
  /** WGSL has products of four signed bytes: dot4I8Packed and pack4xI8. */
  readonly dotsBytes: boolean
  readonly maxWorkgroupInvocations: number
  readonly maxWorkgroupStorageBytes: number
  /** In each dimension. */
  readonly maxWorkgroups: number
  readonly maxBindingBytes: number
}

/** What is known of a batch before it runs. */
export interface BatchCounts {
  readonly nTokens: number
  readonly nLogitRows: number
  readonly nSegments: number
  /** Rows of the longest segment. */
  readonly maxSegmentRows: number
  /** Positions that a row looks at, at most: of attention alone. */
  readonly maxPositions: number
}

/**
 * Bound from binding 2 on, in their order, each by a declaration in the kernel's own code: `@group(0) @binding(2) var<storage, read> weight: …`.
 * No buffer may be bound twice, and every one that is declared has to be used.
 */
export type Binding =
  /** Parameters laid end to end (one, or the experts' of an op); `part` of those that are split since they are beyond maxBindingBytes. */
  | { readonly kind: 'parameters'; readonly parameters: readonly Parameter[]; readonly part?: number }
  /** (nSlots + 1, elements of the part), canonical: f32, row-major; slot-states.ts says whose place each is. */
  | { readonly kind: 'state'; readonly state: StatePart }
  /** (nSlots, contextLength, width), f32; `keys` after the rotation. */
  | { readonly kind: 'keys' | 'values'; readonly cache: KeyValuePart }
  /** (rows of the batch, rotaryDim): cosines of rotaryDim / 2 angles, then their sines, as program/rotary.ts makes them. */
  | { readonly kind: 'angles'; readonly rotary: Pick<RotaryOp, 'theta' | 'rotaryDim'> }
  /** Memory that all ops share: nothing stays in it from one op to the next, from one kernel of an op to the next it does. */
  | { readonly kind: 'scratch'; readonly bytes: number }

export interface Kernel {
  /** Shown by errors and profiles, e.g. `linear q8_0 vector`. */
  readonly label: string
  /** Extensions of WGSL that the code uses; only those that DeviceFacts tells of. */
  readonly enables?: readonly 'subgroups'[]
  /** Behind the prelude; entry point `main`. The backend reads the bindings' access from their declarations: `var<storage, read>` or `read_write`. */
  readonly code: string
  readonly bindings: readonly Binding[]
  /** Workgroups in x, y and z, or null where this kernel has nothing to do for such a batch: an op may have one for few rows and one for many. */
  workgroups(counts: BatchCounts): readonly [x: number, y: number, z: number] | null
}

/** The kernels of every op, in the order in which they run. */
export type OpKernels = { readonly [K in OpKind]: (op: OpOf<K>, context: KernelContext) => readonly Kernel[] }

/** Words before the segments in `batch`. */
export const BATCH_HEADER_WORDS = 4
export const SEGMENT_WORDS = 6

/** The first token's word in `batch`. */
export function tokensAt({ nSlots }: Capacity): number {
  return BATCH_HEADER_WORDS + SEGMENT_WORDS * nSlots
}

/**
 * Before every kernel's code. `activations` holds all buffers; `batch` what is known of this forward alone:
 *
 *   │ nTokens, nLogitRows, nSegments, 0 │ nSlots × segment │ maxRows tokens │ maxRows segments, by row │ maxLogitRows rows │
 *
 * A sequence's keys and values are those of `cacheSlot`. Its states are read at the place `stateFrom` and written at `stateTo` (slot-states.ts): another
 * one only for a segment of one row.
 */
export function prelude(capacity: Capacity): string {
  const { maxRows } = capacity
  const tokens = tokensAt(capacity)
  return `
@group(0) @binding(0) var<storage, read_write> activations: array<f32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;

struct Segment { cacheSlot: u32, position: u32, firstRow: u32, nRows: u32, stateFrom: u32, stateTo: u32 }

fn nTokens() -> u32 { return batch[0]; }
fn nLogitRows() -> u32 { return batch[1]; }
fn nSegments() -> u32 { return batch[2]; }
fn segmentAt(i: u32) -> Segment {
  let at = ${BATCH_HEADER_WORDS}u + ${SEGMENT_WORDS}u * i;
  return Segment(batch[at], batch[at + 1u], batch[at + 2u], batch[at + 3u], batch[at + 4u], batch[at + 5u]);
}
fn tokenOf(row: u32) -> u32 { return batch[${tokens}u + row]; }
fn segmentOf(row: u32) -> Segment { return segmentAt(batch[${tokens + maxRows}u + row]); }
/** The token row of the i-th row whose logits are asked for. */
fn tokenRowOf(i: u32) -> u32 { return batch[${tokens + 2 * maxRows}u + i]; }
`
}
