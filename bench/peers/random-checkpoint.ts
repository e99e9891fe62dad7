/** A checkpoint of any architecture and shape with random weights, in memory: what a fixture does not have is then there to be proved. */

import { type TensorData, writeSafetensors } from '../../test/support/safetensors-writer.ts'
import type { JsonObject } from '../../src/checkpoint/json.ts'
import { buildModel, readModelConfig } from '../../test/support/architectures.ts'
import { elementsOf, type Parameter } from '../../src/program/ops.ts'
import { createNumbers } from '../numbers.ts'

/** By the names of transformers' checkpoints; the same numbers at every call. */
export function randomCheckpoint(config: JsonObject): Readonly<Record<string, Uint8Array>> {
  // Nothing is there yet: no other spelling of a name, no experts in one tensor.
  const { program } = buildModel(readModelConfig(config), () => false)
  return { 'config.json': new TextEncoder().encode(JSON.stringify(config)), 'model.safetensors': writeSafetensors(program.parameters.map(tensorOf)) }
}

/** Sizes as trained models have them: norms about 1, decays from 1 to 16, dt about 0.01 to 1, matrices that keep the size of what they multiply. */
function tensorOf({ id, name, shape }: Parameter): TensorData {
  const numbers = createNumbers(id + 1)
  const data = new Float32Array(elementsOf(shape))
  if (name.endsWith('A_log')) data.forEach((_, i) => (data[i] = Math.log(numbers.logUniform(1, 16))))
  else if (/dt_bias$|dt_proj\.bias$/.test(name)) numbers.uniform(data, 2)
  else if (shape.length > 1) numbers.normal(data, name.includes('embed') ? 1 : 1 / Math.sqrt(shape[shape.length - 1]))
  else numbers.uniform(data, 0.2)
  if (/norm[^.]*\.weight$|\.D$/.test(name)) data.forEach((value, i) => (data[i] = 1 + value))
  return { name, dtype: 'F32', shape, data }
}
