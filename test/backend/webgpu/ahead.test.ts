/** Steps that a GPU begins before they are asked for: taken they are what was asked for, and otherwise it is as if they had not run. */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Best, Capacity } from '../../../src/backend/backend.ts'
import type { WebGpuBackend } from '../../../src/backend/webgpu/webgpu-backend.ts'
import { openModel } from '../../support/backends.ts'
import { fixtureModel } from '../../support/fixtures.ts'
import { GPUS } from '../../support/gpu.ts'
import { createNumbers } from '../../support/numbers.ts'
import { segment } from '../../support/op-rig.ts'

const capacity: Capacity = { maxRows: 16, maxLogitRows: 4, nSlots: 2, contextLength: 24 }
const numbers = createNumbers(5)
const PROMPT = Int32Array.from({ length: 9 }, () => numbers.integer(3, 150))

afterEach(() => {
  vi.restoreAllMocks()
})

/** A sequence in a slot, and all that came of it. */
interface Player {
  readonly backend: WebGpuBackend
  readonly goesOn: boolean
  /** Ids and logits, and states by their bits. */
  readonly heard: unknown[]
  position: number
  id: number
}

async function best({ backend, goesOn, heard }: Player, ids: ArrayLike<number>, { slot = 0, position }: { slot?: number; position: number }): Promise<Best> {
  const [found] = (await backend.forwardBest?.({ tokens: Int32Array.from(ids), segments: [segment(slot, 0, ids.length, 'last', position)] }, goesOn)) ?? []
  heard.push(found)
  return found
}

/** Steps of which each reads the best token of the one before. */
async function play(player: Player, nSteps: number): Promise<void> {
  for (let i = 0; i < nSteps; i++) player.id = (await best(player, [player.id], { position: player.position++ })).id
}

async function hearState({ backend, heard, position }: Player): Promise<Float32Array> {
  const state = await backend.readState(0, position)
  heard.push([...new Uint32Array(state.buffer)])
  return state
}

/** What may come between two steps. */
const BETWEEN: Readonly<Record<string, (player: Player) => Promise<void>>> = {
  async nothing() {},
  async 'another token'(player) {
    player.id = (player.id + 1) % 150
  },
  async 'the state, read'(player) {
    await hearState(player)
  },
  async 'logits, asked for'({ backend, heard, ...player }) {
    const logits = new Float32Array(backend.program.vocabSize)
    await backend.forward({ tokens: Int32Array.of(player.id), segments: [segment(0, 0, 1, 'last', player.position)] }, logits)
    heard.push([...logits])
  },
  async 'logits, and on from there'(player) {
    await BETWEEN['logits, asked for'](player)
    player.position++
  },
  async 'a token that is read alone'({ backend, ...player }) {
    await backend.forward({ tokens: Int32Array.of(7), segments: [segment(0, 0, 1, 'none', player.position)] }, new Float32Array(0))
  },
  async 'another state at the same place'(player) {
    const state = await hearState(player)
    await player.backend.writeState(0, player.position, state.map((value) => value / 2))
  },
  async 'an empty state'(player) {
    await player.backend.clearState(0)
    player.position = 0
  },
  async 'another sequence'(player) {
    await player.backend.clearState(1)
    await best(player, PROMPT.subarray(2), { slot: 1, position: 0 })
  },
  async 'both at once'({ backend, heard, ...player }) {
    await backend.clearState(1)
    const segments = [segment(1, 0, 1, 'last', 0), segment(0, 1, 1, 'last', player.position)]
    heard.push(await backend.forwardBest?.({ tokens: Int32Array.of(4, player.id), segments }))
  }
}

describe.each(GPUS.flatMap(() => ['mamba', 'mamba2', 'jamba', 'bamba']))('%s', { timeout: 180_000 }, (name) => {
  let backend: WebGpuBackend
  beforeAll(async () => {
    backend = await (await openModel(fixtureModel(name))).loadGpu(capacity)
  }, 180_000)
  afterAll(() => backend.dispose())

  async function playerOf(goesOn: boolean): Promise<Player> {
    const player: Player = { backend, goesOn, heard: [], position: PROMPT.length, id: 0 }
    await backend.clearState(0)
    player.id = (await best(player, PROMPT, { position: 0 })).id
    return player
  }

  test.each(Object.keys(BETWEEN))('%s comes between: the same as without', async (what) => {
    const heard: unknown[] = []
    for (const goesOn of [false, true]) {
      const player = await playerOf(goesOn)
      await play(player, 3)
      await BETWEEN[what](player)
      await hearState(player)
      await play(player, 4)
      await BETWEEN[what](player)
      await play(player, 2)
      await hearState(player)
      heard.push(player.heard)
    }
    expect(heard[1]).toEqual(heard[0])
  })

  test('what was begun is not run again, and nothing is begun where nothing goes on', async () => {
    const player = await playerOf(true)
    await play(player, 2)
    const submit = vi.spyOn(backend.device.queue, 'submit')
    await play(player, 3)
    expect(submit).toHaveBeenCalledTimes(3)
    await play({ ...player, goesOn: false }, 1)
    expect(submit).toHaveBeenCalledTimes(3)
  })

  test('up to the last token that there is room for', async () => {
    const player = await playerOf(true)
    await play(player, capacity.contextLength - PROMPT.length)
    const plain = await playerOf(false)
    await play(plain, capacity.contextLength - PROMPT.length)
    expect(player.heard).toEqual(plain.heard)
    await hearState(player)
    await hearState(plain)
    expect(player.heard).toEqual(plain.heard)
  })
})
