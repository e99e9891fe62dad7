/** Whole models: the embedded one, a random one of the shape of mamba-130m in every format, with one thread and two; and one of mamba2-130m's. */

import { loadFrom } from '../../src/load.ts'
import { classics8m } from '../../src/models/classics-8m.ts'
import type { WeightFormat } from '../../src/program/formats.ts'
import { createModelLines, type ModelLines, threadsLabel } from '../model-lines.ts'
import { createRandomBackend, createRandomModel, ENCODED_FORMATS, MAMBA2_130M, MAMBA_130M, type RandomModel } from '../random-model.ts'
import type { Core, Group, Suite } from '../suite.ts'

const QUICK_SHAPE = { vocabSize: 96, dModel: 64, nLayers: 2 }

export const classicsSuite: Suite = {
  name: 'classics',
  summary: 'the embedded model: a prompt of 512 tokens, decoding',
  isKernel: false,
  groups: ({ isQuick }) => [
    () => groupOf('classics-8m, as stored', [1, 2], isQuick ? { nTokens: 16, nSteps: 1 } : { nTokens: 512, nSteps: 8 }, async (threads) => {
      const { backend } = await loadFrom(classics8m(), { threads })
      return createModelLines(backend)
    })
  ]
}

export const mamba130mSuite: Suite = {
  name: '130m',
  summary: 'a random model of the shape of mamba-130m in every format: a prompt of 512 tokens, decoding (minutes)',
  isKernel: true,
  groups({ isQuick, isComparing }) {
    const model = createRandomModel(isQuick ? QUICK_SHAPE : MAMBA_130M)
    const name = isQuick ? 'small' : 'mamba-130m'
    // A build to be compared has no threads, and leaves no memory for further models.
    const threadCounts = isComparing ? [1] : [1, 2]
    const sizes = isQuick ? { nTokens: 16, nSteps: 1 } : { nTokens: 512, nSteps: 1 }
    return ENCODED_FORMATS.map((format) => (core: Core) =>
      groupOf(`${name}, ${format}`, threadCounts, sizes, (threads) => linesOfRandom(model, format, threads, core))
    )
  }
}

export const mamba2Suite: Suite = {
  name: 'mamba2',
  summary: 'a random model of the shape of mamba2-130m: a prompt of 512 tokens, with the scan token by token and by chunks (minutes)',
  isKernel: false,
  groups: ({ isQuick }) => (['f32', 'q8_0'] as const).map((format) => async () => {
    const model = createRandomModel(isQuick ? { ...QUICK_SHAPE, modelType: 'mamba2' } : MAMBA2_130M)
    const nTokens = isQuick ? 16 : 512
    const [recurrent, chunked] = await Promise.all((['recurrent', 'chunked'] as const).map(async (ssd) => {
      const lines = createModelLines(await createRandomBackend(model, { format, threads: 1, ssd }))
      return { ...lines, line: lines.prefill(nTokens, `prefill ${nTokens}${ssd === 'chunked' ? ', chunked' : ''}`) }
    }))
    return {
      name: `${isQuick ? 'small' : 'mamba2-130m'}, ${format}`,
      lines: [recurrent.line, { ...chunked.line, against: recurrent.line.name }],
      workingBytes: recurrent.weightBytes,
      async dispose() {
        await Promise.all([recurrent.dispose(), chunked.dispose()])
      }
    }
  })
}

async function linesOfRandom(model: RandomModel, format: WeightFormat, threads: number, core: Core): Promise<ModelLines> {
  return createModelLines(await createRandomBackend(model, { format, threads, ...(threads === 1 && { core }) }))
}

async function groupOf(
  name: string, threadCounts: readonly number[], { nTokens, nSteps }: { nTokens: number; nSteps: number }, create: (threads: number) => Promise<ModelLines>
): Promise<Group> {
  const models: ModelLines[] = []
  for (const threads of threadCounts) models.push(await create(threads))
  const lines = (['prefill', 'decode'] as const).flatMap((kind) =>
    models.map((model, i) => {
      const label = kind === 'prefill' ? `prefill ${nTokens}` : kind
      const name = threadsLabel(label, threadCounts[i])
      const line = kind === 'prefill' ? model.prefill(nTokens, name) : model.decode(nSteps, name)
      return i === 0 ? line : { ...line, against: threadsLabel(label, 1) }
    })
  )
  return {
    name, lines, workingBytes: models[0].weightBytes,
    async dispose() {
      for (const model of models) await model.dispose()
    }
  }
}
