/** Checkpoints as GGUF files, which also run in llama.cpp: the package's own quantized checkpoints are such files. */

import type { FileSet } from './checkpoint/byte-source.ts'
import { modelToGguf } from './checkpoint/gguf-convert.ts'
import { type GgufSink, writeGguf } from './checkpoint/gguf-writer.ts'
import { checkTensors } from './checkpoint/load-parameters.ts'
import { openCheckpoint } from './checkpoint/open-checkpoint.ts'
import type { EncodedType } from './checkpoint/quantize.ts'
import { readTokenizerFiles } from './load-tokenizer.ts'
import { buildModel, type ConfigOverrides, overrideConfig, readModelConfig } from './model/architectures.ts'
import { writeGgufTokenizer } from './tokenizer/gguf-tokenizer.ts'

export interface ConvertOptions extends ConfigOverrides {
  /** Of the larger matrices; vectors, norms, convolution, A and D are F32, the dt projection stays as it is. */
  readonly type: EncodedType
  /** general.name in the file. */
  readonly name: string
  readonly sink: GgufSink
  readonly signal?: AbortSignal | undefined
}

/**
 * Writes a checkpoint as a GGUF file with llama.cpp's names, metadata and tokenizer keys; returns its bytes. Never holds more than a slice.
 * CheckpointError and UnsupportedError as in loading, and for what llama.cpp's architecture has no place for.
 */
export async function convertToGguf(files: FileSet, { type, name, sink, signal, normGroups }: ConvertOptions): Promise<number> {
  const checkpoint = await openCheckpoint(files, { signal })
  try {
    const config = overrideConfig(readModelConfig(checkpoint.config, checkpoint.configPlace), { normGroups })
    const { program, copies } = buildModel(config, (tensor) => checkpoint.tensors.has(tensor))
    checkTensors(checkpoint, { parameters: program.parameters, copies })
    const found = await readTokenizerFiles(files, checkpoint.metadata, signal)
    const ids = { bos: config.bosTokenId, eos: config.eosTokenIds }
    const tokenizer = found ? writeGgufTokenizer({ ...found, vocabSize: config.vocabSize, ids }) : null
    const wanted = new Set(program.parameters.map((parameter) => parameter.name))
    // A tied head that was saved all the same is none of the model's parameters.
    const tensors = new Map([...checkpoint.tensors].filter(([tensor]) => wanted.has(tensor)))
    const contents = modelToGguf({ config, tensors, type, name, tokenizer, place: checkpoint.name, signal })
    return await writeGguf({ ...contents, sink })
  } finally {
    await checkpoint.close()
  }
}
