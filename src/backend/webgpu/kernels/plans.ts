/** Which plan suits a matrix: measured on one large GPU (`bench/webgpu/linear.ts`), and meant for others as well. */

import { isBlockFormat } from '../../../ggml-blocks.ts'
import type { WeightFormat } from '../../../program/formats.ts'
import type { DeviceFacts } from '../kernel.ts'
import { rowForm } from '../weights.ts'
import { tileBytes, type TilePlan, tileSize } from './linear-tiles.ts'
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

/** So few outputs make so few tiles that a GPU has more work with a workgroup for a few outputs and every 8 rows: on an H200 up to so many rows. */
const FEW_TILES_OUTPUTS = 256
const FEW_TILES_ROWS = 64

/** For 1 row, and for up to 4 and 8 rows, or more; the inputs of 8 rows beside 32 weights in 16 bytes would take too much workgroup memory. */
export function vectorChoices(shape: MatrixShape, device: DeviceFacts): VectorChoice[] {
  const { unitElements } = rowForm(shape.format, shape.nIn)
  // Two kernels to compile, and few threads.
  if (device.isSoftware) return [{ most: 1, plan: softwarePlan(1, device) }, { most: Number.POSITIVE_INFINITY, plan: softwarePlan(4, device) }]
  return [1, 4, 8].map((rows) => ({
    most: rows === 8 && shape.nOut <= FEW_TILES_OUTPUTS ? FEW_TILES_ROWS : rows,
    plan: vectorPlan(shape, unitElements === 32 ? Math.min(rows, 4) : rows, device)
  }))
}

const WORKGROUP_THREADS = 256
/** Threads that keep a large GPU busy with loads; more of them would not run at once. */
const MANY_THREADS = 2 ** 17
/** Fewer outputs than that are no work for teams of a subgroup each. */
const MANY_OUTPUTS = 1024

export function vectorPlan({ format, nIn, nOut }: MatrixShape, rows: number, device: DeviceFacts): VectorPlan {
  const { nUnits } = rowForm(format, nIn)
  if (device.isSoftware) return softwarePlan(rows, device)
  // Without subgroups the sums of all threads go through workgroup memory.
  if (rows === 1 && device.subgroup !== null && nOut >= MANY_OUTPUTS) return rowPlan({ format, nIn, nOut })
  const outputs = device.subgroup === null ? Math.max(1, 8 / rows) : nOut >= MANY_OUTPUTS ? 4 : 1
  const mostUnits = rows === 1 ? 2 : 4
  let teamThreads = TEAM_THREADS
  while (teamThreads < WORKGROUP_THREADS && nUnits / teamThreads > mostUnits && (nOut / outputs) * teamThreads < MANY_THREADS) teamThreads *= 2
  return { rows, outputs, teamThreads, teams: WORKGROUP_THREADS / teamThreads, unroll: rows === 1 ? 2 : 1, ahead: true }
}

const TEAM_THREADS = 32

/** So many outputs that threads with four of each of a few units still fill a large GPU, with fewer threads that all run at once. */
const MOST_OUTPUTS = 8192
/** So few that threads have one each, and ask for much of its row at once. */
const FEW_OUTPUTS = 2048
/** A head's: they keep a GPU busy for long, with more loads at a time. */
const HEAD_OUTPUTS = 2 ** 15

/**
 * Loads that are there for all threads of a team need no conditions: the largest number of units that divides those of a thread.
 * On an H200 by its own clock, microseconds as chosen and by the next best form (`bench/webgpu/linear.ts --plans`): q8_0 4096 → 2048 5.8 and 6.0, 5120 → 2560 8.7 and 8.8,
 * 2560 → 50280 36.5 and 37.0; f16 4096 → 2048 7.3 and 7.4, 5120 → 2560 10.3 and 10.3. With a norm and a convolution: q8_0 2560 → 10240 12.0 and 12.3, f16 2048 → 8192 12.1 and 12.1.
 */
function rowPlan({ format, nIn, nOut }: MatrixShape): VectorPlan {
  const { nUnits, unitElements } = rowForm(format, nIn)
  const plan = { rows: 1, teamThreads: TEAM_THREADS, teams: WORKGROUP_THREADS / TEAM_THREADS, ahead: false }
  const whole = (most: number): number => largestDivisor(nUnits / TEAM_THREADS, most)
  const isBytes = unitElements === 16
  if (nOut >= MOST_OUTPUTS && format !== 'f32') {
    if (isBytes) return { ...plan, outputs: 4, unroll: whole(nOut >= HEAD_OUTPUTS ? 5 : 2) }
    return { ...plan, outputs: 4, unroll: isBlockFormat(format) ? 1 : 2, ahead: isBlockFormat(format) }
  }
  if (nOut <= FEW_OUTPUTS && (isBytes || unitElements === 8)) return { ...plan, outputs: 1, unroll: whole(8) }
  return { ...plan, outputs: 2, unroll: isBytes ? whole(5) : isBlockFormat(format) ? 2 : 4 }
}

/** Of `count` that is at most `most`; 2 where the count is no integer. */
function largestDivisor(count: number, most: number): number {
  if (!Number.isInteger(count)) return 2
  let divisor = most
  while (count % divisor !== 0) divisor--
  return divisor
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

export function tilePlans(shape: MatrixShape, device: DeviceFacts): TileChoice[] {
  const { nOut } = shape
  const shared = device.maxWorkgroupStorageBytes >= 2 ** 15 ? SHARED : SHARED_LESS
  const { rows, outputs } = tileSize(shared)
  const mostShared = rows * Math.max(1, Math.floor(MANY_SHARED_TILES / Math.ceil(nOut / outputs)))
  const large = tileSize(LARGE)
  const mostMedium = large.rows * (Math.ceil(MANY_TILES / Math.ceil(nOut / large.outputs)) - 1)
  const choices: TileChoice[] = [
    { plan: shared, least: 0, most: mostShared },
    { plan: MEDIUM, least: mostShared + 1, most: mostMedium },
    { plan: LARGE, least: Math.max(mostShared, mostMedium) + 1, most: Number.POSITIVE_INFINITY }
  ]
  return choices.map((choice) => ({ ...choice, plan: fittingPlan(choice.plan, shape, device) }))
}

/** With whole units of weights at a time, and with fewer rows where that takes more workgroup memory than there is. */
export function fittingPlan(plan: TilePlan, { format, nIn }: MatrixShape, device: DeviceFacts): TilePlan {
  const quads = Math.max(plan.quads, rowForm(format, nIn).unitElements / 4)
  let { rows } = plan
  while (rows > 1 && tileBytes({ ...plan, quads, rows }) > device.maxWorkgroupStorageBytes) rows /= 2
  return { ...plan, quads, rows }
}

/** The rows of one expert are seldom many. */
const EXPERT_TILE: TilePlan = { rowThreads: 8, outputThreads: 16, rows: 4, outputs: 4, quads: 4, splits: 1 }

export function expertTile(shape: MatrixShape, device: DeviceFacts): TilePlan {
  return fittingPlan(EXPERT_TILE, shape, device)
}
