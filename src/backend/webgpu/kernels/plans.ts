/** Which plan suits a matrix: measured on one large GPU (`bench/webgpu/linear.ts`), and meant for others as well. */

import type { WeightFormat } from '../../../program/formats.ts'
import type { DeviceFacts } from '../kernel.ts'
import { rowForm } from '../weights.ts'
import { type TilePlan, tileSize } from './linear-tiles.ts'
import type { VectorPlan } from './linear-vector.ts'

export interface MatrixShape {
  readonly format: WeightFormat
  readonly nIn: number
  readonly nOut: number
}

export interface VectorChoice {
  readonly plan: VectorPlan
  /** Of one or more times the plan's rows. */
  readonly most: number
}

/** For 1 row, and for up to 4 and 8 rows; the inputs of 8 rows beside 32 weights in 16 bytes would take too much workgroup memory. */
export function vectorChoices(shape: MatrixShape, device: DeviceFacts): VectorChoice[] {
  const { unitElements } = rowForm(shape.format, shape.nIn)
  // Two kernels to compile, and few threads.
  if (device.isSoftware) return [{ most: 1, plan: softwarePlan(1, device) }, { most: Number.POSITIVE_INFINITY, plan: softwarePlan(4, device) }]
  return [1, 4, 8].map((most) => ({ most, plan: vectorPlan(shape, unitElements === 32 ? Math.min(most, 4) : most, device) }))
}

const WORKGROUP_THREADS = 256
/** Threads that keep a large GPU busy with loads. */
const MANY_THREADS = 2 ** 17

export function vectorPlan({ format, nIn, nOut }: MatrixShape, rows: number, device: DeviceFacts): VectorPlan {
  const { nUnits } = rowForm(format, nIn)
  if (device.isSoftware) return softwarePlan(rows, device)
  // Without subgroups the sums of all threads go through workgroup memory.
  const outputs = device.subgroup === null ? Math.max(1, 8 / rows) : nOut >= 1024 ? 4 : 1
  let teamThreads = 32
  while (teamThreads < WORKGROUP_THREADS && nUnits / teamThreads > 4 && (nOut / outputs) * teamThreads < MANY_THREADS) teamThreads *= 2
  return { rows, outputs, teamThreads, teams: WORKGROUP_THREADS / teamThreads, unroll: rows === 1 ? 2 : 1, ahead: true }
}

/** As few threads as there can be: a subgroup for each output of a row, or for four of a lone row. */
function softwarePlan(rows: number, { subgroup }: DeviceFacts): VectorPlan {
  const outputs = rows === 1 ? 4 : 1
  return { rows, outputs, teamThreads: Math.max(subgroup?.min ?? 4, rows * outputs), teams: 4, unroll: 1, ahead: false }
}

/** The smallest number of rows for which a plan is taken, and the largest. */
export interface TileChoice {
  readonly plan: TilePlan
  readonly least: number
  readonly most: number
}

/** For tiles so few that they leave a large GPU without work: its threads share the inputs of a tile. 17 KiB of workgroup memory, and 9. */
const SHARED: TilePlan = { rowThreads: 4, outputThreads: 8, rows: 8, outputs: 4, quads: 16, splits: 8 }
const SHARED_LESS: TilePlan = { rowThreads: 8, outputThreads: 8, rows: 4, outputs: 4, quads: 8, splits: 4 }
const MEDIUM: TilePlan = { rowThreads: 16, outputThreads: 16, rows: 4, outputs: 4, quads: 4, splits: 1 }
const LARGE: TilePlan = { rowThreads: 16, outputThreads: 16, rows: 8, outputs: 8, quads: 2, splits: 1 }
/** Tiles that give a large GPU work, and those of shared ones that it does at once. */
const MANY_TILES = 192
const MANY_SHARED_TILES = 512

export function tilePlans({ nOut }: MatrixShape, { maxWorkgroupStorageBytes }: DeviceFacts): TileChoice[] {
  const shared = maxWorkgroupStorageBytes >= 2 ** 15 ? SHARED : SHARED_LESS
  const { rows, outputs } = tileSize(shared)
  const mostShared = rows * Math.max(1, Math.floor(MANY_SHARED_TILES / Math.ceil(nOut / outputs)))
  const large = tileSize(LARGE)
  const mostMedium = large.rows * (Math.ceil(MANY_TILES / Math.ceil(nOut / large.outputs)) - 1)
  return [
    { plan: shared, least: 0, most: mostShared },
    { plan: MEDIUM, least: mostShared + 1, most: mostMedium },
    { plan: LARGE, least: Math.max(mostShared, mostMedium) + 1, most: Number.POSITIVE_INFINITY }
  ]
}

/** The rows of one expert are seldom many. */
export const EXPERT_TILE: TilePlan = { rowThreads: 8, outputThreads: 16, rows: 4, outputs: 4, quads: 4, splits: 1 }
