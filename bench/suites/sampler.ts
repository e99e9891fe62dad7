/** From logits to the next token, on a vocabulary of mamba-130m's size. */

import { createSampler, type SamplerOptions } from '../../src/sampler.ts'
import { createNumbers } from '../numbers.ts'
import { elements, type Line, type Suite } from '../suite.ts'

const OPTIONS: Readonly<Record<string, SamplerOptions>> = {
  'temperature 0': { temperature: 0 },
  'temperature 0.8, topP 0.95 (default)': {},
  'temperature 0.8, topK 40': { topK: 40, topP: 1 },
  'temperature 0.8, minP 0.05': { minP: 0.05, topP: 1 }
}

export const samplerSuite: Suite = {
  name: 'sampler',
  summary: 'from logits to a token',
  isKernel: false,
  groups: ({ isQuick }) => [
    async () => {
      const vocabSize = isQuick ? 64 : 50280
      const logits = new Float32Array(vocabSize)
      // As peaked as a language model's: most of the probability is on some hundred tokens.
      createNumbers(12).normal(logits, 3)
      const lines = Object.entries(OPTIONS).map(([name, options]): Line => {
        const sampler = createSampler({ ...options, seed: 1 }, vocabSize)
        return { name, amounts: [elements(vocabSize)], run: () => void sampler.sample(logits) }
      })
      return { name: `vocabulary ${vocabSize}`, lines }
    }
  ]
}
