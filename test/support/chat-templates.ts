/** Templates in the manner of the model families', and what they make of conversations: worked out by hand, and the same in Python's jinja2 3.1.6 as transformers sets it up. */
import type { ChatMessage } from '../../src/chat-template.ts'

export const CHATML = `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`

/** One line for each thing, as they are written since blocks are trimmed. */
export const LLAMA2 = `{%- if messages[0].role == 'system' %}
    {%- set system = '<<SYS>>\\n' ~ messages[0].content | trim ~ '\\n<</SYS>>\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = '' %}
    {%- set turns = messages %}
{%- endif %}
{%- for message in turns %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- bos_token + '[INST] ' + (system if loop.first else '') + message.content | trim + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message.content | trim + ' ' + eos_token }}
    {%- endif %}
{%- endfor %}
`

/** Falcon's: plain names of roles, a newline of its own between turns. */
export const FALCON = `{% for message in messages %}{% if not loop.first %}{{ '\\n' }}{% endif %}{{ message.role | capitalize }}: {{ message.content }}{% endfor %}{% if add_generation_prompt %}{{ '\\nAssistant:' }}{% endif %}`

/** Granite's: a default system message with the date, a namespace, roles as tokens. */
export const GRANITE = `{%- set ns = namespace(system='Knowledge Cutoff Date: April 2024.\\nToday\\'s Date: ' + strftime_now('%B %d, %Y') + '.') %}
{%- if messages and messages[0]['role'] == 'system' %}
    {%- set ns.system = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + ns.system + '<|end_of_text|>\\n' }}
{%- if tools %}
    {{- '<|start_of_role|>tools<|end_of_role|>' }}
    {{- tools | tojson(indent=4) }}
    {{- '<|end_of_text|>\\n' }}
{%- endif %}
{%- for message in loop_messages %}
    {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}`

/** Earlier reasoning is dropped, and an empty one opens the reply unless thinking is asked for. */
export const THINKING = `{%- for message in messages %}
{%- if message.role == 'assistant' and '</think>' in message.content %}
{{- '<|im_start|>assistant\\n' + message.content.split('</think>')[-1] + '<|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}`

/** Without dashes: newlines after blocks and spaces before them go, the others stay, as does all but the last newline at the end. */
export const WHITESPACE = `  {% for message in messages %}
  {# who speaks #}
\t{{ message.role }}:
    {%- if message.content %}
 {{ message.content }}
    {% else %}
 -
    {% endif %}
  {% endfor %}
end

`

export const QUESTION: readonly ChatMessage[] = [{ role: 'user', content: 'Hello <b>&amp;' }]
export const DIALOGUE: readonly ChatMessage[] = [
  { role: 'system', content: ' Be brief. ' }, { role: 'user', content: ' Hi ' }, { role: 'assistant', content: 'Hello.' }, { role: 'user', content: '1 + 1?' }
]

export interface Rendering {
  readonly name: string
  readonly template: string
  readonly messages: readonly ChatMessage[]
  readonly addGenerationPrompt: boolean
  readonly variables?: Readonly<Record<string, unknown>>
  readonly expected: string
}

/** With `<s>` and `</s>` as bos and eos, at noon of 5 March 2026. */
export const RENDERINGS: readonly Rendering[] = [
  {
    name: 'ChatML, a question', template: CHATML, messages: QUESTION, addGenerationPrompt: true,
    expected: '<|im_start|>user\nHello <b>&amp;<|im_end|>\n<|im_start|>assistant\n'
  },
  {
    name: 'ChatML, a dialogue without the opening words', template: CHATML, messages: DIALOGUE, addGenerationPrompt: false,
    expected: '<|im_start|>system\n Be brief. <|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n'
  },
  { name: 'Llama 2, a question', template: LLAMA2, messages: QUESTION, addGenerationPrompt: true, expected: '<s>[INST] Hello <b>&amp; [/INST]' },
  {
    name: 'Llama 2, a dialogue', template: LLAMA2, messages: DIALOGUE, addGenerationPrompt: true,
    expected: '<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello. </s><s>[INST] 1 + 1? [/INST]'
  },
  {
    name: 'Falcon', template: FALCON, messages: DIALOGUE, addGenerationPrompt: true,
    expected: 'System:  Be brief. \nUser:  Hi \nAssistant: Hello.\nUser: 1 + 1?\nAssistant:'
  },
  {
    name: 'Granite, with the date', template: GRANITE, messages: QUESTION, addGenerationPrompt: true,
    expected:
      "<|start_of_role|>system<|end_of_role|>Knowledge Cutoff Date: April 2024.\nToday's Date: March 05, 2026.<|end_of_text|>\n" +
      '<|start_of_role|>user<|end_of_role|>Hello <b>&amp;<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>'
  },
  {
    name: 'Granite, with tools', template: GRANITE, messages: DIALOGUE.slice(0, 2), addGenerationPrompt: false, variables: { tools: [{ name: 'é<f>', arguments: [1, 0.5, true, null] }] },
    expected:
      '<|start_of_role|>system<|end_of_role|> Be brief. <|end_of_text|>\n' +
      '<|start_of_role|>tools<|end_of_role|>[\n    {\n        "name": "é<f>",\n        "arguments": [\n            1,\n            0.5,\n            true,\n            null\n        ]\n    }\n]<|end_of_text|>\n' +
      '<|start_of_role|>user<|end_of_role|> Hi <|end_of_text|>\n'
  },
  {
    name: 'earlier reasoning dropped', template: THINKING, addGenerationPrompt: true,
    messages: [{ role: 'user', content: 'Hi' }, { role: 'assistant', content: '<think>\nhm\n</think>\n\nHello.' }, { role: 'user', content: 'Bye' }],
    expected: '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n\n\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n'
  },
  {
    name: 'a variable of the caller', template: THINKING, messages: [{ role: 'user', content: 'Hi' }], addGenerationPrompt: true, variables: { enable_thinking: false },
    expected: '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n'
  },
  {
    name: 'whitespace', template: WHITESPACE, messages: [{ role: 'a', content: 'x' }, { role: 'b', content: '' }], addGenerationPrompt: false,
    expected: '\ta: x\n\tb: -\nend\n'
  }
]
