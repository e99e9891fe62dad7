/** Binds what a kernel's code wants, one by one, and declares it. */

import type { Binding } from '../kernel.ts'
import { type Quads, quadsCode } from './quads.ts'

export interface Binder {
  readonly bindings: readonly Binding[]
  /** Before main: all that was bound, and what else was declared. */
  declarations(): string
  /** Once, however often. */
  declare(code: string): void
  /** Its number, for whoever declares it. */
  place(binding: Binding): number
  /** Elements of f32; gives the access to one. */
  values(name: string, binding: Binding): (index: string) => string
  /** Rows of `width` elements, of which quads below nQuads are asked for. */
  quads(name: string, binding: Binding, row: { readonly width: number; readonly nQuads: number }): Quads
}

export function createBinder(): Binder {
  const bindings: Binding[] = []
  const declared: string[] = []
  const place = (binding: Binding): number => 1 + bindings.push(binding)
  const bind = (name: string, binding: Binding, type: string): void => {
    const access = binding.kind === 'state' || binding.kind === 'scratch' ? 'read_write' : 'read'
    declared.push(`@group(0) @binding(${place(binding)}) var<storage, ${access}> ${name}: array<${type}>;`)
  }
  return {
    bindings,
    declarations: () => declared.join('\n'),
    declare(code) {
      if (!declared.includes(code)) declared.push(code)
    },
    place,
    values(name, binding) {
      bind(name, binding, 'f32')
      return (index) => `${name}[${index}]`
    },
    quads(name, binding, row) {
      const { type, code, ...quads } = quadsCode(name, row)
      bind(name, binding, type)
      declared.push(binding.kind === 'parameters' ? code.load : `${code.load}\n${code.store}`)
      return quads
    }
  }
}
