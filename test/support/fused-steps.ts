/** Steps of whole models by fused kernels, against the reference. */
import { expect } from 'vitest'
import type { Batch, Capacity } from '../../src/backend/backend.ts'
import { factsOf } from '../../src/backend/webgpu/device.ts'
import { findFusions } from '../../src/backend/webgpu/fusions.ts'
import type { KernelContext } from '../../src/backend/webgpu/kernel.ts'
import { layOutViews } from '../../src/backend/webgpu/memory.ts'
import type { Program } from '../../src/program/ops.ts'
import { openModel } from './backends.ts'
import { relativeError, scientific } from './compare.ts'
import { fixtureModel } from './fixtures.ts'
import { createNumbers } from './numbers.ts'
import { segmentsOf } from './op-rig.ts'

/** Of the largest logit or element of a state, as for the goldens. */
const TOLERANCE = 1e-5
/** A GPU's kernels, which this one, a CPU, would not be given. */
export const HARDWARE = { isSoftware: false } as const

const HEAD = 'gatherRows rmsNorm linear'
/** Some of the groups of ops that are found in each. */
const GROUPS: Readonly<Record<string, readonly string[]>> = {
  mamba: ['rmsNorm linear conv1d', 'linear selectiveScan', HEAD],
  mamba_bias_untied: ['rmsNorm linear conv1d', 'linear selectiveScan', HEAD],
  falcon_mamba: ['rmsNorm linear conv1d', 'rmsNorm rmsNorm rmsNorm linear selectiveScan', HEAD],
  jamba: ['rmsNorm linear conv1d', 'linear selectiveScan', 'rmsNorm linear linear linear', 'activation linear', HEAD],
  mamba2: ['rmsNorm linear conv1d', 'rmsNorm linear', HEAD],
  mamba2_groups: ['rmsNorm linear conv1d', 'rmsNorm linear', HEAD],
  bamba: ['rmsNorm linear conv1d', 'rmsNorm linear', HEAD],
  falcon_h1: ['activation linear', 'rmsNorm linear linear'],
  granitemoehybrid: ['rmsNorm linear conv1d', 'rmsNorm linear', 'activation linear'],
  nemotron_h: ['rmsNorm linear conv1d', 'rmsNorm linear', HEAD],
  zamba2: ['rmsNorm linear conv1d', 'rmsNorm linear', HEAD]
}

export const FUSED_MODELS = Object.keys(GROUPS)

const CONTEXT_LENGTH = 16

export function contextOf(program: Program, capacity: Capacity, device: GPUDevice): KernelContext {
  return { device: { ...factsOf(device), ...HARDWARE }, capacity, ssd: 'recurrent', view: layOutViews(program, capacity).view, formatOf: () => 'f32' }
}

function kindsOf(program: Program, { first, end }: { readonly first: number; readonly end: number }): string {
  return program.ops.slice(first, end).map(({ kind }) => kind).join(' ')
}

/** The next so many tokens of each sequence; a length of 0 leaves one out. */
function batchAt(lengths: readonly number[], positions: number[], tokens: (count: number) => Int32Array): Batch {
  const segments = segmentsOf(lengths, 'last').map((segment) => ({ ...segment, position: positions[segment.slot] })).filter(({ nRows }) => nRows > 0)
  for (const { slot, nRows } of segments) positions[slot] += nRows
  return { tokens: tokens(lengths.reduce((sum, length) => sum + length, 0)), segments }
}

/** Prompts, then steps of one sequence and of two; with `maxLogitRows` of 1 those of two are several submissions. */
export async function checkFusedSteps(name: string, device: GPUDevice, maxLogitRows = 2): Promise<void> {
  const model = await openModel(fixtureModel(name))
  const { program } = model
  const capacity: Capacity = { maxRows: 8, maxLogitRows, nSlots: 2, contextLength: CONTEXT_LENGTH }
  const found = findFusions(program, contextOf(program, capacity, device)).map((fusion) => kindsOf(program, fusion))
  expect(found).toEqual(expect.arrayContaining([...GROUPS[name]]))

  const [gpu, reference] = [await model.loadGpu(capacity, { device: device, facts: HARDWARE }), await model.load('reference', capacity)]
  const numbers = createNumbers(11)
  const tokens = (count: number): Int32Array => Int32Array.from({ length: count }, () => numbers.integer(0, program.vocabSize - 1))
  const positions = [0, 0]
  let largest = 0
  for (const lengths of [[3, 2], [1, 1], [1, 0], [0, 1], [2, 1], [1, 1]]) {
    const batch = batchAt(lengths, positions, tokens)
    const [got, want] = [gpu, reference].map(() => new Float32Array(batch.segments.length * program.vocabSize))
    await gpu.forward(batch, got)
    await reference.forward(batch, want)
    largest = Math.max(largest, relativeError(got, want))
    for (const [slot, position] of positions.entries()) largest = Math.max(largest, relativeError(await gpu.readState(slot, position), await reference.readState(slot, position)))
  }
  console.log(`${name}: ${scientific(largest)} of the largest`)
  expect(largest).toBeLessThanOrEqual(TOLERANCE)
  await gpu.dispose()
}
