/** The command line of `npm run bench:peers`. */

import { parseArgs } from 'node:util'
import { DTYPES, type Dtype } from './model-files.ts'

export const PEERS = ['node-llama-cpp', 'wllama', 'ort'] as const

export type Peer = (typeof PEERS)[number]

export interface PeerOptions {
  readonly isQuick: boolean
  readonly peers: readonly Peer[]
  readonly threads: readonly number[]
  readonly dtypes: readonly Dtype[]
  /** Write the results into bench/results: a run in full does. */
  readonly saves: boolean
}

export const HELP = `npm run bench:peers -- [options]
  --quick            prompts of 128 tokens, 16 tokens of decoding, few repetitions: under 3 minutes, and figures of chance
  --only <peers>     of ${PEERS.join(', ')}: some, with commas
  --threads <n,…>    default 1,2
  --dtypes <d,…>     of ${DTYPES.join(', ')}; default all
  --save, --no-save  write the results into bench/results; a quick or a partial run does not by default
`

/** Undefined where help is asked for. RangeError for what it does not know. */
export function readOptions(args: readonly string[]): PeerOptions | undefined {
  const { values } = parseArgs({
    args: [...args], allowNegative: true,
    options: {
      quick: { type: 'boolean', default: false },
      only: { type: 'string' },
      threads: { type: 'string', default: '1,2' },
      dtypes: { type: 'string' },
      save: { type: 'boolean' },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) return undefined
  const threads = values.threads.split(',').map(Number)
  if (!threads.every((count) => Number.isInteger(count) && count >= 1)) throw new RangeError(`--threads: expected numbers from 1, got ${values.threads}`)
  const peers = chosen('--only', values.only, PEERS)
  const dtypes = chosen('--dtypes', values.dtypes, DTYPES)
  const isWhole = !values.quick && values.only === undefined && values.dtypes === undefined && values.threads === '1,2'
  return { isQuick: values.quick, peers, threads, dtypes, saves: values.save ?? isWhole }
}

function chosen<T extends string>(option: string, value: string | undefined, all: readonly T[]): readonly T[] {
  if (value === undefined) return all
  const names = value.split(',')
  const unknown = names.find((name) => !(all as readonly string[]).includes(name))
  if (unknown !== undefined) throw new RangeError(`${option}: expected some of ${all.join(', ')}, got ${unknown}`)
  return all.filter((name) => names.includes(name))
}
