/** All suites, in the order in which they run. */

import type { Suite } from '../suite.ts'
import { attentionSuite } from './attention.ts'
import { batchSuite } from './batch.ts'
import { expertsSuite } from './experts.ts'
import { limitsSuite } from './limits.ts'
import { linearSuite } from './linear.ts'
import { loadSuite } from './load.ts'
import { mathSuite } from './math.ts'
import { classicsSuite, mamba130mSuite, mamba2Suite } from './models.ts'
import { primitiveSuite } from './primitive.ts'
import { samplerSuite } from './sampler.ts'
import { scanSuite } from './scan.ts'
import { conv1dSuite, embedSuite, rmsNormSuite } from './small-ops.ts'
import { ssdSuite } from './ssd.ts'
import { stateSuite } from './state.ts'
import { threadsSuite } from './threads.ts'

export const SUITES: readonly Suite[] = [
  limitsSuite, mathSuite, linearSuite, scanSuite, ssdSuite, attentionSuite, expertsSuite, conv1dSuite, rmsNormSuite, embedSuite, primitiveSuite, samplerSuite, classicsSuite, mamba130mSuite, mamba2Suite,
  batchSuite, threadsSuite, stateSuite, loadSuite
]
