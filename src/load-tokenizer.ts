/** A checkpoint's tokenizer: in tokenizer.json and its config, or in the GGUF file. */

import { type FileSet, readText } from './checkpoint/byte-source.ts'
import type { MetadataReader } from './checkpoint/gguf-metadata.ts'
import { parseJson } from './checkpoint/json.ts'
import { asFields } from './tokenizer/fields.ts'
import { readGgufTokenizer, type TokenizerFiles } from './tokenizer/gguf-tokenizer.ts'
import type { Tokenizer } from './tokenizer/tokenizer.ts'

/** Real tokenizers have some 20 MB. */
const MAX_TOKENIZER_BYTES = 200_000_000

/** What a tokenizer is made of, and where it stands; undefined where the checkpoint has none. */
export async function readTokenizerFiles(
  files: FileSet, metadata: MetadataReader | null, signal: AbortSignal | undefined
): Promise<(TokenizerFiles & { readonly place: string }) | undefined> {
  if (metadata !== null) {
    const found = readGgufTokenizer(metadata)
    return found && { ...found, place: `${metadata.name}: tokenizer` }
  }
  const readJson = async (fileName: string): Promise<unknown> => {
    const file = await files.open(fileName, signal)
    if (file === undefined) return undefined
    try {
      return parseJson(await readText(file, MAX_TOKENIZER_BYTES, signal), file.name)
    } finally {
      await file.close()
    }
  }
  const tokenizerJson = await readJson('tokenizer.json')
  if (tokenizerJson === undefined) return undefined
  const place = `${files.name}: tokenizer.json`
  return {
    tokenizerJson: asFields(tokenizerJson, place),
    tokenizerConfig: asFields((await readJson('tokenizer_config.json')) ?? {}, `${files.name}: tokenizer_config.json`),
    place
  }
}

/** The library behind it is loaded here alone: a model without a tokenizer does without it. */
export async function loadTokenizer(files: FileSet, metadata: MetadataReader | null, signal: AbortSignal | undefined): Promise<Tokenizer | null> {
  const found = await readTokenizerFiles(files, metadata, signal)
  if (found === undefined) return null
  const { createTokenizer } = await import('./tokenizer/tokenizer.ts')
  return createTokenizer(found.tokenizerJson, found.tokenizerConfig, found.place)
}
