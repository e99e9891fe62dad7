/** llama.cpp's `mamba`, Falcon-Mamba among it. */
import { UnsupportedError } from '../../errors.ts'
import { boolValue, uint32Value } from '../gguf-metadata.ts'
import { checkExpansion, NO_ATTENTION, NO_LIMIT } from './block-keys.ts'
import type { Mamba1Facts, PureMamba1Facts } from './facts.ts'
import { type ArchitectureReading, type ArchitectureWriting, frameKeys, type GgufFile, PURE_CONFIG, readKeys, writeKeys } from './keys.ts'
import { mamba1Rows, pureRows } from './rows.ts'

const FRAME_KEYS = frameKeys('layer_norm_epsilon')

export interface Mamba1Names {
  readonly dState: string
  readonly dConv: string
  readonly dtRank: string
}

/** But for the inner width. */
export const mamba1Keys = (names: Mamba1Names) => [
  { key: 'ssm.conv_kernel', config: names.dConv, value: ({ dConv }: Mamba1Facts) => dConv },
  { key: 'ssm.state_size', config: names.dState, value: ({ dState }: Mamba1Facts) => dState },
  { key: 'ssm.time_step_rank', config: names.dtRank, value: ({ dtRank }: Mamba1Facts) => dtRank }
]

const MAMBA1_KEYS = mamba1Keys({ dState: 'state_size', dConv: 'conv_kernel', dtRank: 'time_step_rank' })

export function readMamba({ keys }: GgufFile): ArchitectureReading {
  return {
    config: {
      ...PURE_CONFIG,
      model_type: keys.flag('ssm.dt_b_c_rms', false) ? 'falcon_mamba' : 'mamba',
      ...readKeys(keys, FRAME_KEYS),
      ...readKeys(keys, MAMBA1_KEYS),
      intermediate_size: keys.natural('ssm.inner_size')
    },
    names: pureRows(mamba1Rows('mixer'))
  }
}

/** Falcon-Mamba's, of all published models, and what a config has that does not say. */
const MIXER_NORM_EPS = 1e-6

export function writeMamba(facts: PureMamba1Facts, place: string): ArchitectureWriting {
  const { dInner, mixerNormEps } = facts
  checkExpansion(facts, { dModel: facts.dModel, place })
  if ((mixerNormEps ?? MIXER_NORM_EPS) !== MIXER_NORM_EPS) {
    throw new UnsupportedError({ place: `${place}: mixer_rms_eps`, expected: `${MIXER_NORM_EPS}, since the format has no place for it`, got: `${mixerNormEps}` })
  }
  return {
    architecture: 'mamba',
    metadata: [
      ['context_length', uint32Value(NO_LIMIT)],
      ...writeKeys(FRAME_KEYS, facts),
      ...NO_ATTENTION,
      ['ssm.inner_size', uint32Value(dInner)],
      ...writeKeys(MAMBA1_KEYS, facts),
      ['ssm.dt_b_c_rms', boolValue(mixerNormEps !== null)]
    ],
    names: pureRows(mamba1Rows('mixer'))
  }
}
