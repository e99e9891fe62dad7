/** One op on all backends, batch after batch: the builds against the float64 reference, and against each other. */
import type { Segment } from '../../src/backend/backend.ts'
import { BUILDS } from './backends.ts'
import { compareSnapshots, createRig, expectSameSnapshot, type OpSpec, type RigKind } from './op-rig.ts'

/** Runs every batch on all backends and compares. Gives the largest error. */
export async function compareAll(
  spec: OpSpec, batches: readonly (readonly Segment[])[], { place, ...limits }: { tolerance: number, size?: number, place: string }
): Promise<number> {
  const [reference, scalar, simd] = await Promise.all((['reference', ...BUILDS] as const).map((kind) => createRig(kind, spec)))
  let error = 0
  for (const segments of batches) {
    const where = `${place}, segments of ${segments.map(({ nRows, position }) => `${nRows} rows at ${position}`).join(', ')}`
    const [want, fromScalar, fromSimd] = [await reference.run(segments), await scalar.run(segments), await simd.run(segments)]
    error = Math.max(error, compareSnapshots(fromScalar, want, { ...limits, place: `${where}, scalar` }))
    expectSameSnapshot(fromSimd, fromScalar, `${where}, simd beside scalar`)
  }
  return error
}

/** One op on a GPU, batch after batch, against the float64 reference. Gives the largest error. */
export async function compareGpu(
  spec: OpSpec, batches: readonly (readonly Segment[])[], { place, kind = 'webgpu', ...limits }: { tolerance: number, size?: number, place: string, kind?: RigKind }
): Promise<number> {
  const [reference, gpu] = await Promise.all([createRig('reference', spec), createRig(kind, spec)])
  let error = 0
  for (const segments of batches) {
    const where = `${place}, segments of ${segments.map(({ nRows, position }) => `${nRows} rows at ${position}`).join(', ')}, ${kind}`
    error = Math.max(error, compareSnapshots(await gpu.run(segments), await reference.run(segments), { ...limits, place: where }))
  }
  return error
}
