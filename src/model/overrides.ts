/** Options in place of what a config says. */

import { UnsupportedError } from '../errors.ts'
import type { ConfigOverrides, ModelArchitecture, ModelConfig } from './architectures.ts'

/** Throws an UnsupportedError or a RangeError that names the option where the model has no place for it. */
export function overrideConfig(architecture: ModelArchitecture, config: ModelConfig, { normGroups }: ConfigOverrides): ModelConfig {
  if (normGroups === undefined) return config
  const changed = architecture.withNormGroups?.(config, normGroups) ?? null
  if (changed !== null) return changed
  throw new UnsupportedError({ place: 'normGroups', expected: 'a model with a gated norm, as mamba2', got: config.modelType })
}
