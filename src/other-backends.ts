/** The backends beside wasm's, loaded where the option asks for them. */

import { type AutoOptions, openWhereItPays } from './auto-backend.ts'
import type { Backend, Capacity, SsdForm } from './backend/backend.ts'
import type { Program } from './program/ops.ts'

export interface OtherOptions extends Omit<AutoOptions, 'open'> {
  readonly backend: 'webgpu' | 'auto' | 'reference'
  /** A GPUDevice: checkEngineOptions has seen to that. */
  readonly gpu?: object | undefined
  readonly ssd?: SsdForm | undefined
  /** For chunks of so much. */
  readonly capacityFor: (chunk?: { readonly opCost: number; readonly rows: number }) => Capacity
}

/** The backend, or why 'auto' takes wasm's: the beginning of its reason. UnsupportedError where the host does not have it. */
export async function openOther(program: Program, options: OtherOptions): Promise<Backend | string> {
  const { backend, formatOf, capacityFor, gpu, ssd } = options
  if (backend === 'reference') {
    const { createReferenceBackend } = await import('./backend/reference/reference-backend.ts')
    // The interpreter is a hundred times slower: few rows at a time leave the event loop its turns.
    return createReferenceBackend(program, { ...capacityFor(), maxRows: 4, maxLogitRows: 4 }, 'asked for')
  }
  const openGpu = async (reason?: string): Promise<Backend> => {
    const { openWebGpuBackend } = await import('#webgpu')
    return openWebGpuBackend(program, capacityFor, { device: gpu as GPUDevice | undefined, formatOf, ssd, reason })
  }
  if (backend === 'webgpu') return openGpu()
  const found = await openWhereItPays(program, { ...options, open: openGpu })
  return typeof found === 'string' ? `auto: ${found}; ` : found
}
