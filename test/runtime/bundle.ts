/** esbuild, as the tests use it. */

import { tool } from './installs.ts'

interface Esbuild {
  build(options: object): Promise<{ readonly metafile: { readonly outputs: Outputs } }>
}

/** By path from the project's folder: what each file of a bundle imports, at once or on demand. */
export type Outputs = Readonly<Record<string, { readonly imports: readonly { readonly path: string; readonly kind: string }[] }>>

export interface BundleOptions {
  readonly entryPoints: readonly string[]
  readonly outdir: string
  readonly entryNames?: string
  readonly splitting?: boolean
  readonly plugins?: readonly object[]
  /** Modules, unless a host runs scripts alone. */
  readonly format?: 'esm' | 'iife'
  readonly conditions?: readonly string[]
}

/** Bundles files of a project. */
export async function bundle(folder: string, options: BundleOptions): Promise<Outputs> {
  const { build } = await tool<Esbuild>('esbuild')
  const { metafile } = await build({ absWorkingDir: folder, bundle: true, format: 'esm', platform: 'browser', minify: true, logLevel: 'error', metafile: true, ...options })
  return metafile.outputs
}

interface Resolution {
  onResolve(filter: { readonly filter: RegExp }, task: (args: { readonly path: string; readonly kind: string }) => object | undefined): void
}

/** Leaves what is loaded on demand out of a bundle, but for the modules that `isTaken` names. */
export function withoutOnDemand(isTaken: (path: string) => boolean): object {
  return {
    name: 'without what is loaded on demand',
    setup: (build: Resolution) => build.onResolve({ filter: /.*/ }, ({ path, kind }) => (kind === 'dynamic-import' && !isTaken(path) ? { path, external: true } : undefined))
  }
}
