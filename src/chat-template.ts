/**
 * Conversations to text by a model's Jinja template, as transformers' `apply_chat_template` does it.
 *
 * Templates are programs of anyone's making. They see messages and a few functions, never JavaScript's objects; every node that is evaluated and
 * every value that comes of it is counted, and a template that goes beyond the budget is an error: loops, recursion and growing texts end within
 * some three seconds of a core. Not bounded is what a single filter does inside one node, such as replacing letters by long texts: JavaScript's own
 * limit of 512 MB for a string holds there.
 */

import { CheckpointError, describe, UnsupportedError } from './errors.ts'

/** What one says. Templates may read further keys, such as `tool_calls` or `reasoning_content`. */
export interface ChatMessage {
  /** `system`, `user`, `assistant`, or what else the template knows. */
  readonly role: string
  readonly content: string
  readonly [key: string]: unknown
}

export interface RenderOptions {
  /** Ends with the words that open the assistant's reply. */
  readonly addGenerationPrompt: boolean
}

/** Throws an UnsupportedError where the template refuses the messages, a CheckpointError where it fails or goes beyond its budget. */
export type RenderChat = (messages: readonly ChatMessage[], options: RenderOptions) => string

export interface ChatTemplateOptions {
  /** Jinja. */
  readonly source: string
  /** For messages. */
  readonly place: string
  /** Of every rendering: special tokens, and what the caller adds. */
  readonly variables: Readonly<Record<string, unknown>>
  /** The template's clock: fixed, so that a conversation that says the date is the same text at each turn. */
  readonly now: Date
}

/** What a rendering spends, in about 5 ns: for a node, for an item of a list that it makes or names, for one that a loop goes through, for a character 1. */
const COST = { node: 100, item: 20, iteration: 100 }
/** The most that a rendering may spend. A thousand messages of ten thousand characters take less than half. */
const BUDGET = 2e8

/** Messages of raise_exception may be of any length. */
const MAX_MESSAGE_LENGTH = 500

/** What `raise_exception` throws: the template's own word about the messages. */
class Refusal extends Error {}

class BeyondBudget extends Error {
  constructor() {
    super(`more than ${BUDGET} steps`)
  }
}

/** What is used of @huggingface/jinja: its own declarations import each other without extensions, which Node's ESM resolution does not find. */
interface Jinja {
  readonly Template: new (source: string) => { readonly parsed: object }
  readonly Environment: new () => JinjaEnvironment
  readonly Interpreter: new (environment: JinjaEnvironment) => JinjaInterpreter
}
interface JinjaEnvironment {
  set(name: string, value: unknown): unknown
}
interface JinjaInterpreter {
  run(program: object): { readonly value: unknown }
  /** Called for every node, at every time that it is reached. */
  evaluate(node: JinjaNode | undefined, environment: JinjaEnvironment): { readonly value: unknown }
}
interface JinjaNode {
  readonly type: string
  /** Of a loop; a list with a condition stands in `lhs`. */
  readonly iterable?: JinjaNode
  readonly lhs?: JinjaNode
}

/** Reads the template. CheckpointError where it is no Jinja. The engine is loaded here alone. */
export async function compileChatTemplate({ source, place, variables, now }: ChatTemplateOptions): Promise<RenderChat> {
  // Deno finds those declarations, and they do not know of an interpreter's environment as narrow as this.
  const { Environment, Interpreter, Template } = (await import('@huggingface/jinja')) as unknown as Jinja

  class BudgetedInterpreter extends Interpreter {
    #spent = 0
    readonly #iterables = new Set<JinjaNode>()

    spend(cost: number): void {
      this.#spent += cost
      if (this.#spent > BUDGET) throw new BeyondBudget()
    }

    override evaluate(node: JinjaNode | undefined, environment: JinjaEnvironment): { readonly value: unknown } {
      this.spend(COST.node)
      if (node?.type === 'For' && node.iterable !== undefined) this.#iterables.add(node.iterable.type === 'SelectExpression' ? node.iterable.lhs ?? node.iterable : node.iterable)
      const result = super.evaluate(node, environment)
      const { value } = result
      if (typeof value === 'string') this.spend(value.length)
      else this.spend(countOf(value) * (node !== undefined && this.#iterables.has(node) ? COST.iteration : COST.item))
      return result
    }
  }

  const failure = (error: unknown): Error => {
    const got = (error instanceof Error ? error.message : String(error)).slice(0, MAX_MESSAGE_LENGTH)
    if (error instanceof Refusal) return new UnsupportedError({ place, expected: 'messages that it takes', got }, { cause: error })
    return new CheckpointError({ place, expected: 'a Jinja template that works', got }, { cause: error })
  }

  const parse = (): object => {
    try {
      return new Template(source).parsed
    } catch (error) {
      throw failure(error)
    }
  }
  const program = parse()

  return (messages, { addGenerationPrompt }) => {
    const environment = new Environment()
    const interpreter = new BudgetedInterpreter(environment)
    const globals = {
      true: true, True: true, false: false, False: false, none: null, None: null,
      tools: null, documents: null,
      raise_exception: (message: unknown) => {
        throw new Refusal(String(message))
      },
      range: (...bounds: unknown[]) => range(bounds, (count) => interpreter.spend(count * COST.item)),
      strftime_now: (format: unknown) => formatTime(now, String(format)),
      ...variables, messages, add_generation_prompt: addGenerationPrompt
    }
    try {
      for (const [name, value] of Object.entries(globals)) environment.set(name, value)
      return String(interpreter.run(program).value)
    } catch (error) {
      throw failure(error)
    }
  }
}

/** Items of a list or a mapping. */
function countOf(value: unknown): number {
  if (Array.isArray(value)) return value.length
  return value instanceof Map ? value.size : 0
}

/** Python's, counted before it is made. Keyword arguments, which it does not have, come as mappings. */
function range(bounds: readonly unknown[], spend: (count: number) => void): number[] {
  const numbers = bounds.map(Number)
  const [start, stop, step] = numbers.length === 1 ? [0, numbers[0], 1] : [numbers[0], numbers[1], numbers[2] ?? 1]
  if (bounds.length < 1 || bounds.length > 3 || !numbers.every(Number.isSafeInteger) || step === 0) {
    throw new TypeError(`range() takes one to three integers, and a step that is not 0, got ${describe(bounds)}`)
  }
  const count = Math.max(0, Math.ceil((stop - start) / step))
  spend(count)
  return Array.from({ length: count }, (_, i) => start + i * step)
}

const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October', 'November', 'December']
const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']

/** Python's strftime in the C locale, whatever the host's: models were trained on English names. Unknown directives stay as they are. */
function formatTime(time: Date, format: string): string {
  const two = (value: number): string => String(value).padStart(2, '0')
  const directives: Readonly<Record<string, string>> = {
    Y: String(time.getFullYear()), m: two(time.getMonth() + 1), d: two(time.getDate()),
    B: MONTHS[time.getMonth()], b: MONTHS[time.getMonth()].slice(0, 3), A: DAYS[time.getDay()], a: DAYS[time.getDay()].slice(0, 3),
    H: two(time.getHours()), I: two(time.getHours() % 12 || 12), M: two(time.getMinutes()), S: two(time.getSeconds()), p: time.getHours() < 12 ? 'AM' : 'PM',
    y: two(time.getFullYear() % 100), '%': '%'
  }
  return format.replaceAll(/%([A-Za-z%])/g, (whole, directive: string) => directives[directive] ?? whole)
}
