/** What runtimes make of an import that is no script. */

/** Edge functions: a compiled module. */
declare module '*.wasm?module' {
  const module: WebAssembly.Module
  export default module
}

/** Bun, with the type 'file': a path. */
declare module '*.wasm' {
  const path: string
  export default path
}
declare module '*.gguf' {
  const path: string
  export default path
}
