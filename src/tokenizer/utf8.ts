/**
 * Bytes and text: the byte alphabet of byte-level BPE, and UTF-8 decoded piece by piece.
 *
 * Streaming is ours, not TextDecoder's `stream: true`: runtimes have differed there on invalid sequences, and whether anything is
 * pending must be known.
 */

/**
 * GPT-2's printable stand-ins for bytes: the printable bytes of Latin-1 stand for themselves, the others, in order, for U+0100 and on.
 * From a stand-in's code to its byte; -1 where there is none.
 */
const BYTE_OF_CODE = new Int16Array(324).fill(-1)
for (let byte = 0, nOthers = 0; byte < 256; byte++) {
  const isPrintable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad)
  BYTE_OF_CODE[isPrintable ? byte : 256 + nOthers++] = byte
}

const encoder = new TextEncoder()
// A byte order mark is a character like any other: none may get lost.
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** The bytes a byte-level token stands for. A token with a character outside the alphabet is literal text, as in HuggingFace's tokenizers. */
export function bytesOfToken(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length)
  for (let i = 0; i < token.length; i++) {
    const code = token.charCodeAt(i)
    const byte = code < BYTE_OF_CODE.length ? BYTE_OF_CODE[code] : -1
    if (byte < 0) return encoder.encode(token)
    bytes[i] = byte
  }
  return bytes
}

export interface Utf8Stream {
  /** The text that is complete with these bytes. Invalid sequences become U+FFFD, as TextDecoder has it. */
  push(bytes: Uint8Array): string
  /** What an unfinished sequence at the end becomes: U+FFFD, or ''. The stream is then as new. */
  flush(): string
}

/** Decodes UTF-8 in pieces: together they are the text of all bytes. At most three bytes are pending. */
export function createUtf8Stream(): Utf8Stream {
  let pending = new Uint8Array(0)
  return {
    push(bytes) {
      let all = bytes
      if (pending.length > 0) {
        all = new Uint8Array(pending.length + bytes.length)
        all.set(pending)
        all.set(bytes, pending.length)
      }
      const nComplete = all.length - unfinishedBytes(all)
      pending = all.slice(nComplete)
      return decoder.decode(all.subarray(0, nComplete))
    },
    flush() {
      const rest = decoder.decode(pending)
      pending = pending.slice(0, 0)
      return rest
    }
  }
}

/** How many bytes at the end may still become a character: 0 to 3. */
export function unfinishedBytes(bytes: Uint8Array): number {
  for (let n = 1; n <= 3 && n <= bytes.length; n++) {
    const lead = bytes[bytes.length - n]
    if (lead >= 0x80 && lead < 0xc0) continue
    return n < sequenceBytes(lead) && (n < 2 || isSecondByte(lead, bytes[bytes.length - n + 1])) ? n : 0
  }
  return 0
}

function sequenceBytes(lead: number): number {
  if (lead < 0xc2 || lead > 0xf4) return 1
  if (lead < 0xe0) return 2
  return lead < 0xf0 ? 3 : 4
}

/** After some leads fewer continuation bytes are valid: no overlong forms, no surrogates, nothing above U+10FFFF. */
function isSecondByte(lead: number, second: number): boolean {
  if (lead === 0xe0) return second >= 0xa0
  if (lead === 0xed) return second < 0xa0
  if (lead === 0xf0) return second >= 0x90
  return lead !== 0xf4 || second < 0x90
}
