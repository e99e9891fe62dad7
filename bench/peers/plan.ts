/** What is measured, and how often: in full in less than 25 minutes, though the slowest peer takes minutes for what others do in seconds. */

import type { Dtype } from './model-files.ts'
import type { MatrixShape } from './onnx-matmul.ts'

export interface PlannedTask {
  readonly nPrompt: number
  /** 0: the prompt alone is measured. */
  readonly nDecode: number
  /** Whether the prompt counts: that of one token before decoding does not. */
  readonly measuresPrefill: boolean
  readonly minRounds: number
  readonly maxRounds: number
  /** An engine takes part in as many rounds as take this long for it. */
  readonly budgetMs: number
  /** An engine that would take longer for one is left out. */
  readonly limitMs: number
}

const SECOND = 1000

const prefill = (nPrompt: number, rest: Partial<PlannedTask> = {}): PlannedTask => ({
  nPrompt, nDecode: 0, measuresPrefill: true, minRounds: 2, maxRounds: 5, budgetMs: 20 * SECOND, limitMs: 60 * SECOND, ...rest
})
const decode = (nDecode: number, rest: Partial<PlannedTask> = {}): PlannedTask => ({ ...prefill(1), nDecode, measuresPrefill: false, ...rest })

export const LONGEST_PROMPT = 8192
/** Tokens after the first one. */
const N_DECODE = 64

/** Time per token does not depend on the dtype in how it depends on the length: the longest prompts are for one dtype. */
export function plannedTasks(dtype: Dtype, isQuick: boolean): readonly PlannedTask[] {
  if (isQuick) return [
    prefill(128, { minRounds: 1, maxRounds: 3, budgetMs: 3 * SECOND, limitMs: 30 * SECOND }),
    decode(16, { minRounds: 1, maxRounds: 5, budgetMs: 2 * SECOND, limitMs: 10 * SECOND })
  ]
  const long = { minRounds: 1, maxRounds: 2, limitMs: 40 * SECOND }
  return [
    prefill(16, { maxRounds: 7 }), prefill(128), prefill(512), decode(N_DECODE),
    ...(dtype === 'Q4_0' ? [] : [prefill(2048, { ...long, budgetMs: 30 * SECOND })]),
    ...(dtype === 'Q8_0' ? [prefill(LONGEST_PROMPT, { ...long, nDecode: N_DECODE, budgetMs: 60 * SECOND, limitMs: 100 * SECOND })] : [])
  ]
}

/** Before anything counts: engines compile, and fill their caches. An engine for which one would take longer than `limitMs` goes without it. */
export const WARM_UPS = [
  { nPrompt: 16, nDecode: 4, limitMs: Infinity },
  { nPrompt: 16, nDecode: 8, limitMs: Infinity },
  { nPrompt: 128, nDecode: 16, limitMs: 10 * SECOND }
]
export const CONTEXT_LENGTH = LONGEST_PROMPT + 512

/** Loads in new processes beside the one that each measurement starts with. */
export const extraLoads = (isQuick: boolean): number => (isQuick ? 0 : 2)
export const matmulRounds = (isQuick: boolean): number => (isQuick ? 3 : 9)

/** in_proj and out_proj of the model. */
export function matmulShapes(isQuick: boolean): readonly MatrixShape[] {
  const inProj = { nRows: 512, nIn: 768, nOut: 3072 }
  return isQuick ? [inProj] : [{ ...inProj, nRows: 128 }, inProj, { nRows: 512, nIn: 1536, nOut: 768 }]
}
