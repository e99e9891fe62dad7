/** Writes a Program: hands out buffers, parameters and states, collects ops. */

import { type ActivationBuffer, elementsOf, type KeyValuePart, type Mark, type Op, type Parameter, type Program, type RowSpace, type StatePart, type View } from './ops.ts'

export class ProgramBuilder {
  readonly #ops: Op[] = []
  readonly #buffers = new Map<string, ActivationBuffer>()
  readonly #parameters = new Map<string, Parameter>()
  readonly #states: StatePart[] = []
  readonly #marks: Mark[] = []
  readonly #keyValues: KeyValuePart[] = []
  #stateSize = 0
  #keyValueWidth = 0

  /** The whole of the buffer `name`. Asking again gives the same memory: every layer uses the same buffers. */
  buffer(name: string, width: number, rows: RowSpace = 'token'): View {
    let buffer = this.#buffers.get(name)
    if (buffer === undefined) {
      buffer = { id: this.#buffers.size, name, width, rows }
      this.#buffers.set(name, buffer)
    }
    if (buffer.width !== width || buffer.rows !== rows) throw new TypeError(`buffer ${name}: asked for as (${rows}, ${width}) and as (${buffer.rows}, ${buffer.width})`)
    return { buffer, offset: 0, width }
  }

  /** The tensor `name`. Asking again gives the same one: a tied head shares the embedding. */
  parameter(name: string, shape: readonly number[], { transform = 'none', isSensitive = false }: Partial<Parameter> = {}): Parameter {
    let parameter = this.#parameters.get(name)
    if (parameter === undefined) {
      parameter = { id: this.#parameters.size, name, shape, transform, isSensitive }
      this.#parameters.set(name, parameter)
    }
    return parameter
  }

  state(name: string, shape: readonly number[]): StatePart {
    const part = { name, shape, offset: this.#stateSize }
    this.#states.push(part)
    this.#stateSize += elementsOf(shape)
    return part
  }

  /** Keys and values of an attention layer, `width` elements of each for every token. */
  keyValue(name: string, width: number): KeyValuePart {
    const part = { name, width, offset: this.#keyValueWidth }
    this.#keyValues.push(part)
    this.#keyValueWidth += 2 * width
    return part
  }

  add(op: Op): void {
    this.#ops.push(op)
  }

  /** Here `view` holds what `name` says. */
  mark(name: string, view: View): void {
    this.#marks.push({ name, opIndex: this.#ops.length, view })
  }

  build(logits: View | null, vocabSize: number): Program {
    const firstOfHead = this.#ops.findIndex((op) => op.out.buffer.rows === 'logit')
    const headStart = firstOfHead < 0 ? this.#ops.length : firstOfHead
    if (this.#ops.slice(headStart).some((op) => op.out.buffer.rows === 'token')) throw new TypeError('a program: expected its head last')
    return {
      ops: this.#ops,
      headStart,
      buffers: [...this.#buffers.values()],
      parameters: [...this.#parameters.values()],
      states: this.#states,
      stateSize: this.#stateSize,
      keyValues: this.#keyValues,
      keyValueWidth: this.#keyValueWidth,
      marks: this.#marks,
      logits,
      vocabSize
    }
  }
}

/** Columns [offset, offset + width) of a view. */
export function columns(view: View, offset: number, width: number): View {
  return { buffer: view.buffer, offset: view.offset + offset, width }
}
