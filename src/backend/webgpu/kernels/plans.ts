/** Which plan suits a matrix: measured on one large GPU (`bench/webgpu/linear.ts`), and meant for others as well. */

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

export function vectorPlan(shape: MatrixShape, rows: number, device: DeviceFacts): VectorPlan {
  const { nOut } = shape
  const { nUnits } = rowForm(shape.format, shape.nIn)
  if (device.isSoftware) return softwarePlan(rows, device)
  // Without subgroups the sums of all threads go through workgroup memory.
  if (rows === 1 && device.subgroup !== null) return rowPlan(shape)
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
/** Units for each thread of a team that has more threads than a subgroup. */
const LEAST_UNITS = 4

/**
 * Loads that are there for all threads of a team need no conditions: the largest number of units that divides those of a thread.
 * On an H200 by its own clock, microseconds as chosen and by another form (`bench/webgpu/linear.ts --plans`): few outputs, in teams of up to 128 threads and of 256, q8_0 5120 → 192
 * 4.0 and 6.2, f16 3.7 and 5.4, q4_0 4.3 and 7.8. Many of them, with a norm and a convolution, in teams of 16 and of 32: f16 2048 → 8192 11.8 and 12.1, 2560 → 10240 16.7 and 17.4;
 * q8_0 2560 → 10240 11.7 and 11.9, 2560 → 50280 39.5 and 40.9; q4_0 2048 → 8192 7.4 and 7.5, 2560 → 10240 10.2 and 13.2, 2560 → 50280 29.8 and 40.7.
 * The rest, by the next best: q8_0 5120 → 2560 8.6 and 8.8, f16 4096 → 2048 7.3 and 7.5, 5120 → 2560 10.4 and 10.3, q4_0 4096 → 2048 5.3 and 5.6, 5120 → 2560 7.2 and 7.0.
 */
function rowPlan({ format, nIn, nOut }: MatrixShape): VectorPlan {
  const { nUnits, unitElements } = rowForm(format, nIn)
  const planOf = (teamThreads: number, outputs: number, mostUnits: number, threads = WORKGROUP_THREADS): VectorPlan =>
    ({ rows: 1, teamThreads, teams: threads / teamThreads, outputs, unroll: largestDivisor(nUnits / teamThreads, mostUnits), ahead: false })
  const isBytes = unitElements === 16
  if (nOut < MANY_OUTPUTS) return planOf([128, 64].find((threads) => nUnits % threads === 0 && nUnits >= LEAST_UNITS * threads) ?? TEAM_THREADS, 1, 10)
  if (nOut >= MOST_OUTPUTS && format !== 'f32') return planOf(TEAM_THREADS / 2, 4, isBytes && nOut >= HEAD_OUTPUTS ? 5 : 4, WORKGROUP_THREADS / 2)
  if (nOut <= FEW_OUTPUTS && (isBytes || unitElements === 8)) return planOf(TEAM_THREADS, 1, 8)
  return planOf(TEAM_THREADS, 2, unitElements >= 16 ? 5 : 4)
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

/** For tiles so few that they leave a large GPU without work: its threads share the inputs of a tile, of the fewest many. 25 KiB of workgroup memory, 13, 17, and 9. */
const SHARED_LONG: TilePlan = { rowThreads: 2, outputThreads: 8, rows: 8, outputs: 4, quads: 32, splits: 16 }
const SHARED_FLAT: TilePlan = { rowThreads: 4, outputThreads: 8, rows: 4, outputs: 4, quads: 16, splits: 8 }
const SHARED: TilePlan = { rowThreads: 4, outputThreads: 8, rows: 8, outputs: 4, quads: 16, splits: 8 }
const SHARED_LESS: TilePlan = { rowThreads: 8, outputThreads: 8, rows: 4, outputs: 4, quads: 8, splits: 4 }
const MEDIUM: TilePlan = { rowThreads: 16, outputThreads: 16, rows: 4, outputs: 4, quads: 4, splits: 1 }
const LARGE: TilePlan = { rowThreads: 16, outputThreads: 16, rows: 8, outputs: 8, quads: 2, splits: 1 }
/** Tiles that give a large GPU work, and those of shared ones that it does at once. */
const MANY_TILES = 192
const MANY_SHARED_TILES = 512
const MANY_LONG_TILES = 128

/**
 * On an H200, microseconds of q8_0 as chosen and by tiles of 32 × 32 (`bench/webgpu/linear.ts --plans --tiles`): 16 rows of 2048 → 8192 38 and 50, 2560 → 10240 61 and 98,
 * 4096 → 2048 43 and 64, 5120 → 2560 54 and 78; 32 rows of 4096 → 2048 43 and 68.
 */
export function tilePlans(shape: MatrixShape, device: DeviceFacts): TileChoice[] {
  const { nOut } = shape
  const isLeast = device.maxWorkgroupStorageBytes < 2 ** 15
  const shared = isLeast ? SHARED_LESS : SHARED
  /** Rows of so many tiles. */
  const mostRows = (plan: TilePlan, nTiles: number): number => tileSize(plan).rows * Math.floor(nTiles / Math.ceil(nOut / tileSize(plan).outputs))
  const mostShared = Math.max(tileSize(shared).rows, mostRows(shared, MANY_SHARED_TILES))
  const plans = [
    ...(isLeast ? [] : [{ plan: SHARED_LONG, most: mostRows(SHARED_LONG, MANY_LONG_TILES) }, { plan: SHARED_FLAT, most: tileSize(SHARED_FLAT).rows }]),
    { plan: shared, most: mostShared },
    { plan: MEDIUM, most: tileSize(LARGE).rows * (Math.ceil(MANY_TILES / Math.ceil(nOut / tileSize(LARGE).outputs)) - 1) },
    { plan: LARGE, most: Number.POSITIVE_INFINITY }
  ]
  return plans.map(({ plan, most }, i) => ({ plan: fittingPlan(plan, shape, device), least: 1 + Math.max(-1, ...plans.slice(0, i).map((before) => before.most)), most }))
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
