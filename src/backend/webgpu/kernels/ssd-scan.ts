/**
 * Mamba-2's state space: as its recurrence (ssd-steps.ts), or, asked for, long segments as matrix products over chunks of tokens (ssd-chunks.ts): 80 heads
 * of 64 channels and 128 states took an H200 215 and 137 us for 512 tokens, 910 and 476 us for 2048 (bench/webgpu/ssd.ts).
 */

import type { OpKernels } from '../kernel.ts'
import { ssdChunks } from './ssd-chunks.ts'
import { planSsd, SSD_LEAST_ROWS } from './ssd-plan.ts'
import { ssdSteps } from './ssd-steps.ts'

export const ssdScan: OpKernels['ssdScan'] = (op, context) => {
  const plan = planSsd(op, context)
  const chunks = context.ssd === 'chunked' ? ssdChunks(plan, context) : null
  return chunks === null ? [ssdSteps(plan, context, { mostRows: Infinity })] : [ssdSteps(plan, context, { mostRows: SSD_LEAST_ROWS - 1 }), ...chunks]
}
