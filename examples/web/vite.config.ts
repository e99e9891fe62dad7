import type { UserConfig } from 'vite'

/** With these a page has shared memory, and the engine its threads. Give them on your own server, too. */
const headers = { 'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp' }

export default {
  base: './',
  // The engine's worker loads parts of the library on demand: it must be a module.
  worker: { format: 'es' },
  // The package names its files by their address beside its modules, which must stay where they are.
  optimizeDeps: { exclude: ['mamba-wasm'] },
  // In this repository the package is two folders up.
  server: { headers, fs: { allow: ['.', '../..'] } },
  preview: { headers }
} satisfies UserConfig
