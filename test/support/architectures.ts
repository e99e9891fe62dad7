/** Every architecture at once, for configs that are read and models that are built without waiting. */
import type { JsonObject } from '../../src/checkpoint/json.ts'
import * as table from '../../src/model/architectures.ts'
import { overrideConfig as overrideByOptions } from '../../src/model/overrides.ts'

const loaders = [...Object.values(table.ARCHITECTURES), ...Object.values(table.LISTED), ...Object.values(table.ORIGINALS)]
const loaded = new Map(await Promise.all(loaders.map(async (load) => [load, await load()] as const)))

function loadedBy(loader: () => Promise<table.ModelArchitecture>): table.ModelArchitecture {
  const architecture = loaded.get(loader)
  if (architecture === undefined) throw new TypeError('no architecture of the tables')
  return architecture
}

export function readModelConfig(config: JsonObject, place?: string): table.ModelConfig {
  return table.readModelConfig(loadedBy(table.architectureLoader(config, place)), config, place)
}

export function overrideConfig(config: table.ModelConfig, overrides: table.ConfigOverrides): table.ModelConfig {
  return overrideByOptions(loadedBy(table.ARCHITECTURES[config.modelType]), config, overrides)
}

export function buildModel(config: table.ModelConfig, hasTensor: (name: string) => boolean): table.Model {
  return table.buildModel(loadedBy(table.ARCHITECTURES[config.modelType]), config, hasTensor)
}
