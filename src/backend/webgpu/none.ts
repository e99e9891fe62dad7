/** In place of open.ts where a host has no GPU and its bundles are counted: `#webgpu` of package.json. */

import { platform } from '#platform'

/** The host says why not. */
export async function openWebGpuBackend(): Promise<never> {
  await platform.gpu()
  throw new TypeError('expected a host without a GPU')
}
