/** WebGPU for Node and Bun, by the optional package `webgpu` (Dawn). */

import { UnsupportedError } from '../errors.ts'

/** What the package exports; its own types are another edition of TypeScript's. */
interface Dawn {
  create(options: readonly string[]): GPU
}

/** No kernel of ours reads workgroup memory that it has not written; setting it to zero first takes time, and most of SwiftShader's time to compile. */
const TOGGLES = ['disable_workgroup_init'] as const

/** Kept for good: Dawn ends with this object, and a process with devices of it that live on would crash. */
let instance: GPU | undefined

/** The host's own where it has one (Deno). Throws an UnsupportedError where the package is not installed. */
export async function nodeGpu(): Promise<GPU> {
  const own = globalThis.navigator?.gpu
  if (own !== undefined) return own
  if (instance !== undefined) return instance
  // Not a literal: bundlers would look for a package that most have not.
  const name: string = 'webgpu'
  let dawn: Dawn
  try {
    dawn = await import(name)
  } catch (cause) {
    const got = cause instanceof Error ? cause.message : String(cause)
    throw new UnsupportedError({ place: 'backend webgpu', expected: 'the optional package webgpu: npm install webgpu', got }, { cause })
  }
  // Times of ops are no secrets here, which browsers round them for.
  return (instance = dawn.create([`enable-dawn-features=${TOGGLES.join()}`, 'disable-dawn-features=timestamp_quantization']))
}
