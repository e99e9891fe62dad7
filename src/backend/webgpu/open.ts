/** A program on the host's GPU, or on a device that is given. */

import { UnsupportedError } from '../../errors.ts'
import type { WeightFormat } from '../../program/formats.ts'
import type { Parameter, Program } from '../../program/ops.ts'
import type { Capacity, SsdForm } from '../backend.ts'
import { adapterName, isSoftware, openDevice } from './device.ts'
import { createWebGpuBackend, type WebGpuBackend } from './webgpu-backend.ts'
import { platform } from '#platform'

/**
 * What a GPU is given at a time: its largest op takes 50 ms on one of 1 TFLOP/s, far from what a watchdog allows, and so many rows that the
 * weights are used often enough. A software adapter has what a core has.
 */
const CHUNKS = { hardware: { opCost: 5e10, rows: 1024 }, software: { opCost: 6e8, rows: 256 } } as const

export interface OpenOptions {
  /** The caller's own, which stays the caller's. */
  readonly device: GPUDevice | undefined
  readonly formatOf: (parameter: Parameter) => WeightFormat
  readonly ssd: SsdForm | undefined
  /** Why a GPU was chosen for the caller, who then gets no software adapter; by default the caller asked for whatever there is. */
  readonly reason?: string | undefined
}

/** `capacityOf` makes a capacity of what a chunk may be. Throws as createWebGpuBackend does, and an UnsupportedError without a GPU. */
export async function openWebGpuBackend(
  program: Program, capacityOf: (chunk: { readonly opCost: number, readonly rows: number }) => Capacity, { device: given, reason: chosen, ...options }: OpenOptions
): Promise<WebGpuBackend> {
  const device = given ?? (await openDevice(await platform.gpu()))
  try {
    const isOnCpu = isSoftware(device)
    if (chosen !== undefined && isOnCpu) throw new UnsupportedError({ place: 'backend webgpu', expected: 'an adapter that is a GPU', got: `${adapterName(device)}, which computes on the CPU` })
    const reason = chosen ?? `${given ? 'a device that was given' : 'asked for'}${isOnCpu ? '; it computes on the CPU, which backend wasm does faster' : ''}`
    const backend = await createWebGpuBackend(program, capacityOf(CHUNKS[isOnCpu ? 'software' : 'hardware']), { device, ownsDevice: given === undefined, reason, ...options })
    // A CPU takes seconds for the large kernels, which a short prompt does not need.
    await (isOnCpu ? backend.prepare('token') : backend.prepare('token', 'chunk'))
    return backend
  } catch (error) {
    if (given === undefined) device.destroy()
    throw error
  }
}
