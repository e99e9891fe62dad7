/**
 * Mamba-1 and Mamba-2 models of any shape with random weights, made in memory. The weights follow the references' initialisation (mamba_ssm:
 * `Mamba.__init__` and `_init_weights` of models/mixer_seq_simple.py; A_log of Mamba-2 as transformers has it), since others distort the times: states that die away become
 * subnormal numbers, which cost up to 300 times as much, and a large dt makes exp saturate.
 */

import type { Capacity, SsdForm, SteppingBackend } from '../src/backend/backend.ts'
import { createWasmBackend } from '../src/backend/wasm/wasm-backend.ts'
import { encoderFor } from '../src/checkpoint/quantize.ts'
import { hasFastByteDot } from '../src/byte-dot.ts'
import { capacityOf } from '../src/load.ts'
import type { Model, ModelConfig } from '../src/model/architectures.ts'
import { buildModel, readModelConfig } from '../test/support/architectures.ts'
import { platform } from '../src/platform/node.ts'
import { FORMATS, type WeightData, type WeightFormat } from '../src/program/formats.ts'
import { elementsOf, type Parameter } from '../src/program/ops.ts'
import { createNumbers, type Numbers } from './numbers.ts'

export interface Shape {
  readonly vocabSize: number
  readonly dModel: number
  readonly nLayers: number
  /** 'mamba' by default. */
  readonly modelType?: 'mamba' | 'mamba2'
}

/** state-spaces/mamba-130m. */
export const MAMBA_130M: Shape = { vocabSize: 50280, dModel: 768, nLayers: 24 }

/** state-spaces/mamba2-130m. */
export const MAMBA2_130M: Shape = { vocabSize: 50288, dModel: 768, nLayers: 24, modelType: 'mamba2' }

export interface RandomModel extends Model {
  /** A tensor's values as a checkpoint has them (A_log, not A), row-major, in parts of whole rows. The same ones at every call. */
  values(parameter: Parameter): Iterable<{ readonly values: Float32Array; readonly first: number }>
}

/** dInner is 2 · dModel, and of the references are state, convolution and dt rank (16, 4, dModel / 16), or state, convolution, heads and groups (128, 4, of 64, 1). */
export function createRandomModel({ vocabSize, dModel, nLayers, modelType = 'mamba' }: Shape, seed = 1): RandomModel {
  const heads = modelType === 'mamba2' ? { head_dim: 64, num_heads: dModel / 32, n_groups: 1, tie_word_embeddings: true } : {}
  const config = readModelConfig({ model_type: modelType, vocab_size: vocabSize, hidden_size: dModel, num_hidden_layers: nLayers, ...heads })
  // Names as transformers has them: A_log, not GGUF's A.
  const model = buildModel(config, (name) => !name.endsWith('.mixer.A'))
  return {
    ...model,
    *values(parameter) {
      const numbers = createNumbers(seed + parameter.id)
      const fill = fillOf(parameter, config, numbers)
      const rowSize = parameter.shape[parameter.shape.length - 1]
      const count = elementsOf(parameter.shape)
      const partSize = Math.max(rowSize, Math.floor(PART_ELEMENTS / rowSize) * rowSize)
      for (let first = 0; first < count; first += partSize) {
        const values = new Float32Array(Math.min(partSize, count - first))
        fill(values)
        yield { values, first }
      }
    }
  }
}

const PART_ELEMENTS = 2 ** 20

const DT_MIN = 0.001
const DT_MAX = 0.1

/** Writes the next values of a tensor. */
function fillOf({ name, shape }: Parameter, { nLayers }: ModelConfig, numbers: Numbers): (values: Float32Array) => void {
  const last = shape[shape.length - 1]
  // Both of torch's defaults, of linear and of convolution: uniform within 1 / sqrt(inputs of one output).
  const uniform = (inputs: number, divisor = 1) => (values: Float32Array): void => numbers.uniform(values, 1 / Math.sqrt(inputs) / divisor)
  switch (name.replace(/^backbone\.(?:layers\.\d+\.)?(?:mixer\.)?/, '')) {
    case 'embeddings.weight': return (values) => numbers.normal(values, 0.02)
    case 'in_proj.weight':
    case 'x_proj.weight':
    case 'dt_proj.weight': return uniform(last)
    // Each layer adds to the residual once.
    case 'out_proj.weight': return uniform(last, Math.sqrt(nLayers))
    case 'conv1d.weight': return uniform(last)
    case 'conv1d.bias': return uniform(4)
    case 'dt_bias':
    case 'dt_proj.bias': return (values) => values.forEach((_, i) => (values[i] = inverseSoftplus(numbers.logUniform(DT_MIN, DT_MAX))))
    case 'A_log': return (values) => values.forEach((_, i) => (values[i] = Math.log((i % last) + 1)))
    case 'D':
    case 'norm.weight':
    case 'norm_f.weight': return (values) => void values.fill(1)
    default: throw new RangeError(`${name}: no initialisation`)
  }
}

/** softplus(result) = dt. */
function inverseSoftplus(dt: number): number {
  return dt + Math.log(-Math.expm1(-dt))
}

export interface RandomBackendOptions {
  /** Of the large matrices, as `dtype` of `Mamba.load`. */
  readonly format: WeightFormat
  readonly threads: number
  /** Of Mamba-2's scans; 'recurrent' by default. */
  readonly ssd?: SsdForm
  /** Build of the core; by default the package's own. */
  readonly core?: WebAssembly.Module | undefined
  readonly capacity?: Capacity | undefined
}

/** The model's weights in a backend, as `Mamba.load` would put them there. */
export async function createRandomBackend(model: RandomModel, { format, threads, ssd, core, capacity }: RandomBackendOptions): Promise<SteppingBackend> {
  const build = `${threads > 1 ? 'simd-threads' : 'simd'}${hasFastByteDot() ? '-dot' : ''}` as const
  const backend = await createWasmBackend(model.program, capacity ?? capacityOf(model.program, 4), {
    module: core ?? await platform.wasmModule(build), build, nThreads: threads, reason: 'a benchmark', ssd,
    formatOf: ({ isSensitive }) => (isSensitive ? 'f32' : format)
  })
  for (const parameter of model.program.parameters) {
    const wanted = backend.formatOf(parameter)
    for (const { values, first } of transformedValues(model, parameter)) backend.write(parameter, encodeWeights(wanted, values), first)
  }
  await backend.ready?.()
  return backend
}

/** The values of a parameter as a backend takes them. */
export function* transformedValues(model: RandomModel, parameter: Parameter): ReturnType<RandomModel['values']> {
  for (const part of model.values(parameter)) {
    if (parameter.transform === 'negExp') part.values.forEach((value, i) => (part.values[i] = -Math.exp(value)))
    yield part
  }
}

/** Formats that values can be encoded in. */
export const ENCODED_FORMATS = (Object.keys(FORMATS) as WeightFormat[]).filter((format) => encoderFor(format) !== undefined)

/** Values, whole blocks, in a format: one of ENCODED_FORMATS, or q5_k, whose form of panels none of them has. */
export function encodeWeights(format: WeightFormat, values: Float32Array): WeightData {
  if (format === 'f32') return values
  if (format === 'q5_k') return withFifthBits(encodeBlocks('q4_k', values))
  const bytes = encodeBlocks(format, values)
  return FORMATS[format].blockElements === 1 ? new Uint16Array(bytes.buffer) : bytes
}

function encodeBlocks(format: WeightFormat, values: Float32Array): Uint8Array<ArrayBuffer> {
  const { blockElements, blockBytes } = FORMATS[format]
  const bytes = new Uint8Array((values.length / blockElements) * blockBytes)
  const encoder = encoderFor(format)
  if (encoder === undefined) throw new RangeError(`no encoder for ${format}`)
  const index = encoder.encode(values, bytes)
  if (index >= 0) throw new RangeError(`${values[index]} in ${format}`)
  return bytes
}

/** Q4_K as Q5_K, which has 32 bytes of fifth bits after the scales: all of them 0. */
function withFifthBits(blocks: Uint8Array): Uint8Array {
  const [from, to] = [FORMATS.q4_k.blockBytes, FORMATS.q5_k.blockBytes]
  const nScaleBytes = 16
  const bytes = new Uint8Array((blocks.length / from) * to)
  for (let i = 0; i < blocks.length / from; i++) {
    const block = blocks.subarray(i * from, (i + 1) * from)
    bytes.set(block.subarray(0, nScaleBytes), i * to)
    bytes.set(block.subarray(nScaleBytes), i * to + nScaleBytes + to - from)
  }
  return bytes
}
