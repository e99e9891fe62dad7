/** The options that say how a text goes on; for every command that generates. */

import { DEFAULT_MAX_TOKENS, type GenerateOptions } from '../generate.ts'
import { SAMPLER_DEFAULTS } from '../sampler.ts'
import type { OptionTable, Values } from './options.ts'

export const SAMPLING_OPTIONS = {
  'max-tokens': { kind: 'integer', short: 'n', value: 'N', min: 0, fallback: DEFAULT_MAX_TOKENS, help: 'tokens at most' },
  temperature: { kind: 'number', short: 't', value: 'X', min: 0, fallback: SAMPLER_DEFAULTS.temperature, help: '0 takes the most likely token' },
  'top-k': { kind: 'integer', value: 'N', min: 0, fallback: SAMPLER_DEFAULTS.topK, help: 'only the N most likely tokens; 0 for no limit' },
  'top-p': { kind: 'number', value: 'X', min: 0, max: 1, fallback: SAMPLER_DEFAULTS.topP, help: 'only the most likely tokens that reach this probability' },
  'min-p': { kind: 'number', value: 'X', min: 0, max: 1, fallback: SAMPLER_DEFAULTS.minP, help: 'only tokens X times as likely as the most likely one' },
  'repetition-penalty': {
    kind: 'number', value: 'X', min: 1e-6, max: 1e6, fallback: SAMPLER_DEFAULTS.repetitionPenalty, help: 'above 1 makes tokens seen before less likely'
  },
  seed: { kind: 'integer', short: 's', value: 'N', min: 0, help: 'the same seed gives the same text (default: a random one)' },
  stop: { kind: 'texts', value: 'TEXT', help: 'end before this text; may be given several times' },
  'ignore-eos': { kind: 'flag', help: 'go on after an end-of-text token' }
} as const satisfies OptionTable

export function samplingOptions(values: Values<typeof SAMPLING_OPTIONS>): GenerateOptions {
  const { 'max-tokens': maxTokens, temperature, 'top-k': topK, 'top-p': topP, 'min-p': minP, 'repetition-penalty': repetitionPenalty } = values
  const { seed, stop, 'ignore-eos': ignoreEos } = values
  return { maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop, ignoreEos }
}
