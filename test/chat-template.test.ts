/** Rendering: texts worked out by hand, refusals, damage, templates that would not end. */
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type ChatMessage, compileChatTemplate } from '../src/chat-template.ts'
import { CheckpointError, UnsupportedError } from '../src/errors.ts'
import { CHATML, DIALOGUE, FALCON, LLAMA2, QUESTION, RENDERINGS } from './support/chat-templates.ts'

const NOON = new Date(2026, 2, 5, 12)
const compile = async (source: string, variables: Record<string, unknown> = {}) =>
  compileChatTemplate({ source, place: 'm: chat template', variables: { bos_token: '<s>', eos_token: '</s>', ...variables }, now: NOON })

async function render(source: string, messages: readonly ChatMessage[] = QUESTION): Promise<string> {
  return (await compile(source))(messages, { addGenerationPrompt: true })
}

test.each(RENDERINGS)('$name', async ({ template, messages, addGenerationPrompt, variables, expected }) => {
  const renderChat = await compile(template, variables)
  expect(renderChat(messages, { addGenerationPrompt })).toBe(expected)
  // A rendering leaves nothing behind.
  expect(renderChat(messages, { addGenerationPrompt })).toBe(expected)
})

test('ChatML of any messages is what its definition says', async () => {
  const renderChat = await compile(CHATML)
  const message = fc.record({ role: fc.string({ unit: 'binary' }), content: fc.string({ unit: 'binary' }) })
  fc.assert(fc.property(fc.array(message), fc.boolean(), (messages, addGenerationPrompt) => {
    const turns = messages.map(({ role, content }) => `<|im_start|>${role}\n${content}<|im_end|>\n`).join('')
    expect(renderChat(messages, { addGenerationPrompt })).toBe(turns + (addGenerationPrompt ? '<|im_start|>assistant\n' : ''))
  }))
})

test('what a message says is never a template', async () => {
  expect(await render(FALCON, [{ role: 'user', content: '{{ 1 + 1 }}{% raw %}' }])).toBe('User: {{ 1 + 1 }}{% raw %}\nAssistant:')
})

test('the clock is as Python writes it, in English', async () => {
  expect(await render("{{ strftime_now('%Y-%m-%d %H:%M:%S %I%p %A %a %B %b %d %y %% %Q') }}")).toBe('2026-03-05 12:00:00 12PM Thursday Thu March Mar 05 26 % %Q')
})

test('range is as in Python', async () => {
  expect(await render('{{ range(3) }}{{ range(2, 5) }}{{ range(5, 0, -2) }}{{ range(5, 0) }}')).toBe('[0, 1, 2][2, 3, 4][5, 3, 1][]')
})

test('a variable that nobody gave is undefined, and tools and documents are none', async () => {
  expect(await render('{{ pad_token is defined }} {{ bos_token is defined }} {{ tools is none and documents is none }}')).toBe('false true true')
})

test('a refusal is an UnsupportedError with the template\'s words', async () => {
  const renderChat = await compile(LLAMA2)
  const messages = [DIALOGUE[1], DIALOGUE[1]]
  expect(() => renderChat(messages, { addGenerationPrompt: true })).toThrow(UnsupportedError)
  expect(() => renderChat(messages, { addGenerationPrompt: true })).toThrow(
    'm: chat template: expected messages that it takes, got Conversation roles must alternate user/assistant/user/assistant/...'
  )
})

test.each([
  ['an open block', '{% if messages %}'],
  ['an open expression', '{{ messages'],
  ['no Jinja at all', '{% nonsense %}'],
  ['brackets without end', `{{ ${'('.repeat(20_000)}`]
])('%s is a CheckpointError when it is compiled', async (_, source) => {
  await expect(compile(source)).rejects.toThrow(CheckpointError)
  await expect(compile(source)).rejects.toThrow(/^m: chat template: expected a Jinja template that works, got ./)
})

test.each([
  ['an unknown filter', "{{ 'a' | rot13 }}"],
  ['an operation on nothing', '{{ missing + 1 }}'],
  ['a call of what is no function', '{{ messages() }}'],
  ['a loop over a number', '{% for i in 5 %}{% endfor %}'],
  ['a range without end', '{{ range(1, 5, 0) }}'],
  ['a range of texts', "{{ range('a') }}"],
  ['recursion without end', '{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}']
])('%s is a CheckpointError when it is rendered', async (_, source) => {
  await expect(render(source)).rejects.toThrow(CheckpointError)
  await expect(render(source)).rejects.toThrow(/^m: chat template: expected a Jinja template that works, got ./)
})

describe('templates that would not end', () => {
  test.each([
    ['a long range', '{% for i in range(10000000000) %}{% endfor %}'],
    ['loops in loops', '{% set many = range(100000) %}{% for i in many %}{% for j in many %}{% for k in many %}{% endfor %}{% endfor %}{% endfor %}'],
    ['loops with work', '{% for i in range(100000) %}{% for j in range(100000) %}{% set x = i * j %}{% endfor %}{% endfor %}'],
    ['conditions of loops', '{% set many = range(100000) %}{% for i in many if false %}{% endfor %}'.repeat(200)],
    ['a text that doubles', `{% set ns = namespace(x='ab') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}`],
    ['a list that doubles', `{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}`],
    ['a text that is replaced by itself', `{% set ns = namespace(x='aa') %}{% for i in range(100) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}`],
    ['macros that branch', '{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}']
  ])('%s', async (_, source) => {
    const startMs = performance.now()
    await expect(render(source)).rejects.toThrow(/^m: chat template: expected a Jinja template that works, got (?:more than 200000000 steps|Invalid string length)$/)
    expect(performance.now() - startMs).toBeLessThan(15_000)
  })

  test('a conversation of a thousand messages of ten thousand characters is within the budget', async () => {
    const messages = Array.from({ length: 1000 }, (_, i) => ({ role: i % 2 === 0 ? 'user' : 'assistant', content: 'ten chars '.repeat(1000) }))
    expect((await render(LLAMA2, messages)).length).toBeGreaterThan(10_000_000)
  })
})
