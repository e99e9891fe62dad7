/**
 * The expected digests (src/digest.ts) of test/fixtures/digests.json: of the embedded model, and of a fixture of each architecture, in f32 and in 8 bits.
 *
 *   npm run digest               computes and compares them; the last line is one number for all
 *   npm run digest -- --update   writes what this machine computes
 *
 * A digest says that results changed, not that they are wrong: an update is right only where a change of the order of sums, of a format or of the
 * saved sessions' layout is meant, and the goldens (test/goldens), which come from the reference implementations, still pass. Say so in its commit.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { digest, Mamba } from '../../src/index.ts'
import type { LoadOptions } from '../../src/index.ts'
import { createHasher, hexOf } from '../../src/state/hash.ts'
import { repositoryPath } from './fixtures.ts'

export interface ExpectedDigest {
  /** A path below the repository's root, or null for the embedded model. */
  readonly model: string | null
  readonly dtype: 'auto' | 'f32' | 'q8_0'
  readonly digest: string
}

interface DigestFile {
  readonly about: readonly string[]
  readonly digests: readonly ExpectedDigest[]
}

const PATH = repositoryPath('test/fixtures/digests.json')

function readFile(): DigestFile {
  return JSON.parse(readFileSync(PATH, 'utf8'))
}

export function expectedDigests(): readonly ExpectedDigest[] {
  return readFile().digests
}

/** The prompts are longer than the limit of some fixtures with attention. */
export async function loadForDigest({ model, dtype }: ExpectedDigest, options: LoadOptions = {}): Promise<Mamba> {
  return Mamba.load(model === null ? undefined : repositoryPath(model), { dtype, contextLength: 512, ...options })
}

async function main(isUpdate: boolean): Promise<void> {
  const { about, digests } = readFile()
  const results: ExpectedDigest[] = []
  for (const expected of digests) {
    await using mamba = await loadForDigest(expected)
    const result = await digest(mamba)
    results.push({ ...expected, digest: result })
    const verdict = result === expected.digest ? '' : `  expected ${expected.digest || 'none yet'}`
    console.log(`${result}  ${expected.model ?? 'the embedded model'}, ${expected.dtype}${verdict}`)
    if (verdict !== '' && !isUpdate) process.exitCode = 1
  }
  const text = results.map((entry) => `    ${JSON.stringify(entry)}`).join(',\n')
  if (isUpdate) writeFileSync(PATH, `{\n  "about": ${JSON.stringify(about, null, 4).replace('\n]', '\n  ]')},\n  "digests": [\n${text}\n  ]\n}\n`)
  console.log(hexOf(createHasher().update(new TextEncoder().encode(results.map((entry) => entry.digest).join())).digest()))
}

if (process.argv[1] === import.meta.filename) await main(process.argv.includes('--update'))
