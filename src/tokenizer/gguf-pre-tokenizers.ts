/** The pre-tokenizers of byte-level BPE that GGUF files know by name: llama.cpp's `llm_tokenizer_bpe`. */

/** How a text is cut before merging: by GPT-2's rule in the ByteLevel step, or by these expressions, one after another. */
export interface PreTokenizer {
  readonly splits: readonly string[]
  readonly usesGpt2Rule: boolean
  readonly isComposed: boolean
  /** A piece that is a token stays one, whatever the merges. */
  readonly ignoresMerges: boolean
  /** Where the file does not say. */
  readonly addsBos: boolean
}

export const GPT2: PreTokenizer = { splits: [], usesGpt2Rule: true, isComposed: false, ignoresMerges: false, addsBos: false }
export const NEOX: PreTokenizer = { ...GPT2, isComposed: true }
const DIGITS: PreTokenizer = { ...GPT2, splits: ['\\p{N}'] }
export const CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
const bySplit = (split: string): PreTokenizer => ({ ...GPT2, splits: [split], usesGpt2Rule: false })
const QWEN2 = bySplit(`${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`)
const LLAMA3 = bySplit(`${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`)
const LLAMA_BPE: PreTokenizer = { ...LLAMA3, ignoresMerges: true, addsBos: true }
/** For files from before names were written. */
const DEFAULT: PreTokenizer = {
  ...GPT2,
  splits: ['[\\p{P}\\$\\+<=>\\^~\\|]+', "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)", '\\p{N}+', '[0-9][0-9][0-9]'],
  usesGpt2Rule: false
}

/** By name. llama.cpp's converter calls GPT-NeoX's tokenizer `olmo` or `mpt`, whichever it met last. */
export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ['default', DEFAULT],
  ...['gpt-2', 'phi-2'].map((name) => [name, GPT2] as const),
  ...['olmo', 'mpt'].map((name) => [name, NEOX] as const),
  ['stablelm2', QWEN2],
  ['qwen2', { ...QWEN2, isComposed: true }],
  ...['dbrx', 'smaug-bpe'].map((name) => [name, LLAMA3] as const),
  ...['llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral'].map((name) => [name, LLAMA_BPE] as const),
  ...['starcoder', 'refact', 'smollm', 'command-r'].map((name) => [name, DIGITS] as const)
])
