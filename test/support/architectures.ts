/** Every architecture at once, for configs that are read and models that are built without waiting. */
import type { JsonObject } from '../../src/checkpoint/json.ts'
import * as table from '../../src/model/architectures.ts'

const loaded = new Map(await Promise.all(Object.entries(table.ARCHITECTURES).map(async ([type, load]) => [type, await load()] as const)))

function architectureOf(modelType: string): table.ModelArchitecture {
  const architecture = loaded.get(modelType)
  if (architecture === undefined) throw new TypeError(`no architecture ${modelType}`)
  return architecture
}

export function readModelConfig(config: JsonObject, place?: string): table.ModelConfig {
  return table.readModelConfig(architectureOf(table.modelTypeOf(config, place)), config, place)
}

export function overrideConfig(config: table.ModelConfig, overrides: table.ConfigOverrides): table.ModelConfig {
  return table.overrideConfig(architectureOf(config.modelType), config, overrides)
}

export function buildModel(config: table.ModelConfig, hasTensor: (name: string) => boolean): table.Model {
  return table.buildModel(architectureOf(config.modelType), config, hasTensor)
}
