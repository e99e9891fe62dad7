/**
 * The embedded model: a byte-level Mamba-1 language model of 7.8 M parameters, trained on public-domain English books.
 * `Mamba.load(classics8m())` is what `Mamba.load()` does; the subpath is `mamba-wasm/models/classics-8m`.
 */

import type { FileSet } from '../checkpoint/byte-source.ts'
import { platform } from '#platform'

/** The checkpoint's folder in this package. Nothing is read before it is loaded. */
export function classics8m(): FileSet {
  return platform.embeddedModel()
}
