/**
 * npm run bench:peers: this package beside node-llama-cpp (llama.cpp, native), wllama (llama.cpp in WebAssembly, in Chromium) and
 * onnxruntime-web's matrix product, interleaved in one run. See ./options.ts for the options and ./plan.ts for what is measured.
 */

import { installPeers } from './install.ts'
import { HELP, readOptions } from './options.ts'

const options = readOptions(process.argv.slice(2))
if (options === undefined) {
  console.log(HELP)
} else {
  const packages = installPeers()
  // What it imports is there from here on.
  const { benchPeers } = await import('./bench-peers.ts')
  await benchPeers(options, packages)
}
