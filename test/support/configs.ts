/** Configs as texts that are read, and what is refused in them. */
import { readFileSync } from 'node:fs'
import { expect } from 'vitest'
import { expectObject, parseJson } from '../../src/checkpoint/json.ts'
import { CheckpointError, UnsupportedError } from '../../src/errors.ts'
import type { ModelConfig } from '../../src/model/architectures.ts'
import { readModelConfig } from './architectures.ts'
import { fixtureModel } from './fixtures.ts'
import { type Config, configText } from './tiny-checkpoint.ts'

export function fixtureConfig(name: string): Config {
  return JSON.parse(readFileSync(`${fixtureModel(name)}/config.json`, 'utf8'))
}

/** Through the package's own parser, with infinity as Python writes it. */
export function readConfig(config: Config): ModelConfig {
  return readModelConfig(expectObject(parseJson(configText(config), 'config.json'), 'config.json'))
}

/** `config` without some keys. */
export function without(config: Config, ...keys: readonly string[]): Config {
  return Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)))
}

/** The error's message has all `parts`. */
export function expectRefused(config: Config, parts: readonly string[], type: typeof CheckpointError | typeof UnsupportedError = CheckpointError): void {
  expect(() => readConfig(config)).toThrow(type)
  for (const part of parts) expect(() => readConfig(config)).toThrow(part)
}
