/** Checkpoints as GGUF files, which also run in llama.cpp: the package's own quantized checkpoints are such files. */

import type { FileSet } from './checkpoint/byte-source.ts'
import { modelToGguf } from './checkpoint/gguf-convert.ts'
import { ggufByteLength, type GgufSink, type GgufTensor, writeGguf } from './checkpoint/gguf-writer.ts'
import { checkTensors } from './checkpoint/load-parameters.ts'
import { openCheckpoint } from './checkpoint/open-checkpoint.ts'
import type { EncodedType } from './checkpoint/quantize.ts'
import { readGenerationEos, readTokenizerFiles } from './load-tokenizer.ts'
import { buildModel, type ConfigOverrides, loadArchitecture, readModelConfig } from './model/architectures.ts'
import { overrideConfig } from './model/overrides.ts'
import { writeGgufTokenizer } from './tokenizer/gguf-tokenizer-writer.ts'

export interface ConvertProgress {
  readonly doneBytes: number
  /** Of the whole file. */
  readonly totalBytes: number
}

/** `normGroups` as in loading: a file says it by its groups. */
export interface ConvertOptions extends ConfigOverrides {
  /** Of the larger matrices; vectors, norms, convolution, A and D are F32, the dt projection stays as it is. */
  readonly type: EncodedType
  /** general.name in the file. */
  readonly name: string
  readonly sink: GgufSink
  /** Called for each tensor before the first is written, with the type that it gets: not every matrix can have the one asked for. */
  readonly onTensor?: ((tensor: Pick<GgufTensor, 'name' | 'dtype' | 'shape'>) => void) | undefined
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: ConvertProgress) => void) | undefined
}

/**
 * Writes a checkpoint as a GGUF file with llama.cpp's names, metadata and tokenizer keys; returns its bytes. Never holds more than a slice.
 * CheckpointError and UnsupportedError as in loading, and for what llama.cpp's architecture has no place for.
 */
export async function convertToGguf(files: FileSet, { type, name, sink, signal, onTensor, onProgress, ...overrides }: ConvertOptions): Promise<number> {
  const checkpoint = await openCheckpoint(files, { signal })
  try {
    const architecture = await loadArchitecture(checkpoint.config, checkpoint.configPlace)
    const config = overrideConfig(architecture, readModelConfig(architecture, checkpoint.config, checkpoint.configPlace), overrides)
    const { program, copies } = buildModel(architecture, config, (tensor) => checkpoint.tensors.has(tensor))
    checkTensors(checkpoint, { parameters: program.parameters, copies })
    const found = await readTokenizerFiles(files, checkpoint.metadata, signal)
    const generationEos = await readGenerationEos(files, checkpoint.metadata, signal)
    const ids = { bos: config.bosTokenId, eos: [...new Set([...config.eosTokenIds, ...generationEos])] }
    const tokenizer = found ? writeGgufTokenizer({ ...found, vocabSize: config.vocabSize, ids }) : null
    const wanted = new Set(program.parameters.map((parameter) => parameter.name))
    // A tied head that was saved all the same is none of the model's parameters.
    const tensors = new Map([...checkpoint.tensors].filter(([tensor]) => wanted.has(tensor)))
    const contents = modelToGguf({ config, tensors, type, name, tokenizer, place: checkpoint.name, signal })
    for (const tensor of contents.tensors) onTensor?.(tensor)
    return await writeGguf({ ...contents, sink: onProgress ? reporting(sink, ggufByteLength(contents), onProgress) : sink })
  } finally {
    await checkpoint.close()
  }
}

/** A sink that tells how far the file is. */
function reporting(sink: GgufSink, totalBytes: number, onProgress: (progress: ConvertProgress) => void): GgufSink {
  let doneBytes = 0
  onProgress({ doneBytes, totalBytes })
  return {
    async write(bytes) {
      await sink.write(bytes)
      doneBytes += bytes.byteLength
      onProgress({ doneBytes, totalBytes })
    }
  }
}
