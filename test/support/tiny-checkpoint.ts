/** The tiny `mamba` checkpoint, to be changed and loaded. */
import { type TensorData, writeSafetensors } from './safetensors-writer.ts'
import { type LoadOptions, Mamba } from '../../src/mamba.ts'
import { filesOf, fixtureModel, readGolden } from './fixtures.ts'

export type Config = Record<string, unknown>

const FILES = filesOf(fixtureModel('mamba'))
const WEIGHTS = readGolden(`${fixtureModel('mamba')}/model.safetensors`)

export function tinyConfig(): Config {
  return JSON.parse(new TextDecoder().decode(FILES['config.json']))
}

/** As text, with the numbers that JSON has no words for as Python writes them. */
export function configText(config: Config): string {
  const marks = new Map([[NaN, 'NaN'], [Infinity, 'Infinity'], [-Infinity, '-Infinity']])
  return JSON.stringify(config, (_, value: unknown) => (typeof value === 'number' && marks.has(value) ? `@@${marks.get(value)}@@` : value)).replaceAll(/"@@(.*?)@@"/g, '$1')
}

/** All tensors, with data of their own. */
export function tinyTensors(): TensorData[] {
  return WEIGHTS.names.map((name) => ({ name, dtype: 'F32', ...WEIGHTS.floats(name) }))
}

export interface Changes {
  readonly config?: Config | undefined
  readonly tensors?: readonly TensorData[] | undefined
}

export async function loadTiny({ config = tinyConfig(), tensors }: Changes = {}, options: LoadOptions = {}): Promise<Mamba> {
  return Mamba.load({
    'config.json': new TextEncoder().encode(configText(config)),
    'model.safetensors': tensors ? writeSafetensors(tensors) : FILES['model.safetensors']
  }, { threads: 1, ...options })
}

/** The tiny checkpoint's files, with memory of their own. */
export function tinyFiles(): { 'config.json': Uint8Array, 'model.safetensors': Uint8Array } {
  return { 'config.json': FILES['config.json'].slice(), 'model.safetensors': FILES['model.safetensors'].slice() }
}
