/** A checkpoint's tokenizer with its chat templates: in tokenizer.json and the files beside it, or in the GGUF file. */

import { Chat, type ChatOptions } from './chat.ts'
import type { ChatMessage } from './chat-template.ts'
import { type FileSet, readText } from './checkpoint/byte-source.ts'
import { withArrays } from './checkpoint/gguf-arrays.ts'
import type { MetadataReader } from './checkpoint/gguf-metadata.ts'
import { expectObject, parseJson } from './checkpoint/json.ts'
import { readTokenIds } from './model/config.ts'
import { createConfigReader } from './model/config-reader.ts'
import type { SessionContext } from './session.ts'
import { byteEncoder } from './tokenizer/byte-encoder.ts'
import { readChatTemplates } from './tokenizer/chat-templates.ts'
import { asFields } from './tokenizer/fields.ts'
import { readGgufTokenizer, type TokenizerFiles } from './tokenizer/gguf-tokenizer.ts'
import { readTokenizerParts, type Tokenizer, tokenizerOf } from './tokenizer/tokenizer-parts.ts'

/** Real tokenizers have some 20 MB. */
const MAX_TOKENIZER_BYTES = 200_000_000

/** What a tokenizer is made of, and where it stands; undefined where the checkpoint has none. */
export async function readTokenizerFiles(
  files: FileSet, metadata: MetadataReader | null, signal: AbortSignal | undefined
): Promise<(TokenizerFiles & { readonly place: string; readonly templatePlace: string }) | undefined> {
  if (metadata !== null) {
    const found = readGgufTokenizer(withArrays(metadata))
    const place = `${metadata.name}: tokenizer`
    return found && { ...found, place, templatePlace: place }
  }
  const read = async (fileName: string): Promise<string | undefined> => readFileText(files, fileName, { maxBytes: MAX_TOKENIZER_BYTES, signal })
  const place = `${files.name}: tokenizer.json`
  const tokenizer = await read('tokenizer.json')
  if (tokenizer === undefined) return undefined
  const configPlace = `${files.name}: tokenizer_config.json`
  const config = asFields(parseJson((await read('tokenizer_config.json')) ?? '{}', configPlace), configPlace)
  // A file of its own is the newer form, and wins.
  const template = await read('chat_template.jinja')
  return {
    tokenizerJson: asFields(parseJson(tokenizer, place), place),
    tokenizerConfig: template === undefined ? config : { ...config, chat_template: template },
    place,
    templatePlace: template === undefined ? configPlace : `${files.name}: chat_template.jinja`
  }
}

/** A file's whole text, or undefined where there is none of that name. */
async function readFileText(
  files: FileSet, fileName: string, { maxBytes, signal }: { readonly maxBytes: number; readonly signal: AbortSignal | undefined }
): Promise<string | undefined> {
  const file = await files.open(fileName, signal)
  if (file === undefined) return undefined
  try {
    return await readText(file, maxBytes, signal)
  } finally {
    await file.close()
  }
}

export interface LoadedTokenizer {
  readonly tokenizer: Tokenizer
  /** By its chat templates: a chat needs a tokenizer, and comes with it. */
  readonly startChat: (context: SessionContext, messages: readonly ChatMessage[], options: ChatOptions) => Chat
}

/** What encodes is loaded here alone: a model without a tokenizer, or with one of bytes, does without it. */
export async function loadTokenizer(files: FileSet, metadata: MetadataReader | null, signal: AbortSignal | undefined): Promise<LoadedTokenizer | null> {
  const found = await readTokenizerFiles(files, metadata, signal)
  if (found === undefined) return null
  const { tokenizerJson, tokenizerConfig, place, templatePlace } = found
  const parts = readTokenizerParts(tokenizerJson, tokenizerConfig, place)
  const encode = byteEncoder(parts) ?? (await import('./tokenizer/tokenizer.ts')).anyEncoder(parts)
  const templates = readChatTemplates(tokenizerConfig, templatePlace)
  return { tokenizer: tokenizerOf(parts, encode), startChat: (context, messages, options) => new Chat(context, templates, { messages, options }) }
}

/** Tokens that end a text by generation_config.json, where there is one: chat models name the end of a turn there. A GGUF file has its own keys. */
export async function readGenerationEos(files: FileSet, metadata: MetadataReader | null, signal: AbortSignal | undefined): Promise<readonly number[]> {
  if (metadata !== null) return []
  const place = `${files.name}: generation_config.json`
  const text = await readFileText(files, 'generation_config.json', { maxBytes: MAX_TOKENIZER_BYTES, signal })
  return text === undefined ? [] : readTokenIds(createConfigReader(expectObject(parseJson(text, place), place), place), 'eos_token_id')
}
