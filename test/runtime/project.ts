/** A user's project: the packed package installed, and the suite and its inputs beside it. */

import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { stripTypeScriptTypes } from 'node:module'
import { join } from 'node:path'
import { Mamba } from '../../src/index.ts'
import { installPacked, type PackedPackage } from '../package/pack.ts'
import { expectedDigests } from '../support/digests.ts'
import { repositoryPath } from '../support/fixtures.ts'
import { saveSession } from './suite.ts'

const FIXTURE = 'test/fixtures/models/mamba'
const FIXTURE_FILES = ['config.json', 'generation_config.json', 'model.safetensors']

/** Fills an empty folder. */
export async function makeProject(folder: string): Promise<PackedPackage> {
  const packed = await installPacked(folder)
  await mkdir(join(folder, 'inputs', 'fixture'), { recursive: true })
  await copyFile(repositoryPath('models/classics-8m/model.gguf'), join(folder, 'inputs', 'model.gguf'))
  for (const name of FIXTURE_FILES) await copyFile(repositoryPath(`${FIXTURE}/${name}`), join(folder, 'inputs', 'fixture', name))
  const { session, continuation } = await saveSession({ Mamba }, await readFile(join(folder, 'inputs', 'model.gguf')))
  await writeFile(join(folder, 'inputs', 'session.bin'), session)
  const expected = { embedded: expectedDigest(null, 'auto'), fixture: expectedDigest(FIXTURE, 'f32'), continuation }
  await writeFile(join(folder, 'inputs', 'inputs.json'), JSON.stringify({ fixture: FIXTURE_FILES, expected }))
  const suite = await readFile(new URL('suite.ts', import.meta.url), 'utf8')
  await writeFile(join(folder, 'suite.js'), stripTypeScriptTypes(suite))
  return packed
}

function expectedDigest(model: string | null, dtype: string): string {
  const found = expectedDigests().find((entry) => entry.model === model && entry.dtype === dtype)
  if (found === undefined) throw new Error(`no digest of ${model}, ${dtype}`)
  return found.digest
}
