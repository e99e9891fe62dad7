/** What this host's WebAssembly has. */

/** A module of one function with this body. */
function moduleOf(...body: number[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, body.length + 4, 1, body.length + 2, 0, ...body, 11)
}

const ZERO = [0xfd, 12, ...Array.from({ length: 16 }, () => 0)]
const DROP = 26
const RELAXED_MADD = [0xfd, 0x85, 2]

export function hostHasSimd(): boolean {
  return WebAssembly.validate(moduleOf(...ZERO, DROP))
}

/** Node has it from version 21 on, without a flag. */
export function hostHasRelaxedSimd(): boolean {
  return WebAssembly.validate(moduleOf(...ZERO, ...ZERO, ...ZERO, ...RELAXED_MADD, DROP))
}

/** A page without cross-origin isolation has none. */
export function hostHasSharedMemory(): boolean {
  try {
    return new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer instanceof SharedArrayBuffer
  } catch {
    return false
  }
}
