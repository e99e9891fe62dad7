/**
 * Q8_0 blocks of a file to their places in panels (blocks.ts). In wasm since loading is mostly this loop and a new process has not compiled a JavaScript
 * one: 7.4e6 weights of classics-8m took 20 to 30 ms of a processor there, hot 9.
 *
 *   file:   row by row    │ d, half │ 32 signed bytes │
 *   panel:  block by block │ d of rows 0–7, f32 │ row 0: k, k + 2, k + 1, k + 3 │ … │ row 7 │ k + 4 …    a word is a row's four inputs
 *
 * Where bytes are multiplied they stay signed, and their sum goes into the low bits of d (SignedBytes); else they are stored plus Q8_ZERO (Bytes).
 */

import { PANEL_ROWS, Q8_BLOCK_BYTES, Q8_ZERO, QUANT_BLOCK, SUM_BITS } from '../abi'

/** In a file. */
const BLOCK_BYTES: i32 = 34
/** A half's exponent and fraction, in a float32's places, are 2^-112 times the half, whether it is normal or not. */
const HALF_IN_FLOAT: f32 = 5192296858534827628530496329220096.0
/** Signed bytes plus Q8_ZERO. */
const SIGNS: u32 = 0x80808080
const EVEN_BYTES: u32 = 0x00ff00ff

/**
 * Reads `nBlocks` blocks at `source`, block `block` of the rows of all matrices (nOut, nIn) first, and writes them to `panels`: of each matrix
 * ceil(nOut / PANEL_ROWS) panels.
 */
export function packQ80(source: usize, nBlocks: i32, panels: usize, nOut: i32, nIn: i32, block: i32): void {
  const rowBlocks = nIn / QUANT_BLOCK
  const panelBytes = rowBlocks * Q8_BLOCK_BYTES
  const matrixPanels = (nOut + PANEL_ROWS - 1) / PANEL_ROWS
  let row = block / rowBlocks
  block -= row * rowBlocks
  const end = source + <usize>nBlocks * BLOCK_BYTES
  while (source < end) {
    const inMatrix = row % nOut
    const panel = panels + <usize>(row / nOut * matrixPanels + inMatrix / PANEL_ROWS) * panelBytes
    let place = panel + <usize>block * Q8_BLOCK_BYTES + (<usize>(inMatrix % PANEL_ROWS) << 2)
    for (; block < rowBlocks && source < end; block++, place += Q8_BLOCK_BYTES) {
      const half = <u32>load<u16>(source)
      store<f32>(place, reinterpret<f32>(((half & 0x8000) << 16) | ((half & 0x7fff) << 13)) * HALF_IN_FLOAT)
      // Of sixteen bytes each, stored plus Q8_ZERO.
      let sums: u32 = 0
      for (let k = 0; k < QUANT_BLOCK; k += 4) {
        const bytes = load<u32>(source + <usize>k, 2)
        const quad = (bytes & 0xff0000ff) | ((bytes & 0xff00) << 8) | ((bytes >> 8) & 0xff00)
        store<u32>(place + <usize>k * PANEL_ROWS, ASC_FEATURE_RELAXED_SIMD ? quad : quad ^ SIGNS, 4 * PANEL_ROWS)
        if (ASC_FEATURE_RELAXED_SIMD) sums += ((quad ^ SIGNS) & EVEN_BYTES) + (((quad ^ SIGNS) >> 8) & EVEN_BYTES)
      }
      if (ASC_FEATURE_RELAXED_SIMD) {
        const sum = (sums & 0xffff) + (sums >> 16) - QUANT_BLOCK * Q8_ZERO
        store<u32>(place, load<u32>(place) | (sum & ((1 << SUM_BITS) - 1)))
      }
      source += BLOCK_BYTES
    }
    block = 0
    row++
  }
}
