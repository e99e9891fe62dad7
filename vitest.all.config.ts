import { configDefaults, mergeConfig } from 'vitest/config'
import base from './vitest.config.ts'

/** Every test, the long ones too. */
const all = mergeConfig(base, { test: {} })
all.test.exclude = configDefaults.exclude
export default all
