/** A session's state as a value: copied, saved, restored, and hashed while a checkpoint loads. By bytes of the state. */

import { createEngine, type Engine, type Sequence } from '../../src/engine.ts'
import { hashOf } from '../../src/state/hash.ts'
import { decodeSession, encodeSession, type SavedSession } from '../../src/state/saved-session.ts'
import { STATE_PRECISIONS } from '../../src/state/state-codec.ts'
import { createNumbers } from '../numbers.ts'
import { createRandomBackend, createRandomModel, MAMBA_130M, type Shape } from '../random-model.ts'
import { bytes, type Group, type Line, type Suite } from '../suite.ts'

/** The vocabulary has no part in the state. */
const SHAPES: readonly Shape[] = [{ vocabSize: 256, dModel: 384, nLayers: 8 }, { ...MAMBA_130M, vocabSize: 256 }]
const QUICK_SHAPES: readonly Shape[] = [{ vocabSize: 64, dModel: 32, nLayers: 1 }]

const HASHED_BYTES = 2 ** 22

export const stateSuite: Suite = {
  name: 'state',
  summary: 'forking, saving and restoring a session; the hash of the weights while they load',
  isKernel: false,
  groups: ({ isQuick }) => [...(isQuick ? QUICK_SHAPES : SHAPES).map((shape) => () => createGroup(shape)), async () => ({ name: 'hash', lines: [hashLine()] })]
}

async function createGroup(shape: Shape): Promise<Group> {
  const engine = createEngine(await createRandomBackend(createRandomModel(shape), { format: 'q8_0', threads: 1 }))
  const sequence = engine.sequence()
  await engine.run(sequence, Int32Array.from({ length: 32 }, (_, i) => i), 'none')
  const { stateSize } = engine.backend.program
  const snapshot = await engine.snapshot(sequence)
  const state = snapshot?.state ?? new Float32Array(stateSize)
  const model = { fingerprint: new Uint8Array(16), vocabSize: shape.vocabSize }
  const session: SavedSession = { position: 32, pending: new Int32Array(0), seen: [], lastLogits: null, state }
  const line = (name: string, run: () => void): Line => ({ name, amounts: [bytes(4 * stateSize)], run })
  return {
    name: `d_model ${shape.dModel}, ${shape.nLayers} layers: ${(4 * stateSize / 1e6).toFixed(2)} MB`,
    lines: [
      forkLine(engine, sequence),
      ...STATE_PRECISIONS.flatMap((precision) => {
        const saved = encodeSession(session, model, { precision })
        return [
          line(`save, ${precision}`, () => void encodeSession(session, model, { precision })),
          line(`restore, ${precision}`, () => void decodeSession(saved, model, () => stateSize))
        ]
      })
    ],
    async dispose() {
      await engine.dispose()
    }
  }
}

/** The copy that the first fork after a token makes; others at the same point share it. */
function forkLine(engine: Engine, sequence: Sequence): Line {
  return {
    name: 'fork', isAsync: true, amounts: [bytes(4 * engine.backend.program.stateSize)],
    async run() {
      // As if a token had been read since the last one.
      if (sequence.parked !== null) engine.snapshots.release(sequence.parked)
      sequence.parked = null
      await engine.release(engine.sequence(await engine.snapshot(sequence)))
    }
  }
}

function hashLine(): Line {
  const numbers = createNumbers(1)
  const values = Uint8Array.from({ length: HASHED_BYTES }, () => numbers.below(256))
  return { name: 'hash, 4 MiB', amounts: [bytes(HASHED_BYTES)], run: () => void hashOf(values) }
}
