/** llama.cpp's `mamba2`. */
import { uint32Value } from '../gguf-metadata.ts'
import { innerPart, NO_ATTENTION, NO_LIMIT, readMamba2, writeMamba2 } from './block-keys.ts'
import type { PureMamba2Facts } from './facts.ts'
import { type ArchitectureReading, type ArchitectureWriting, frameKeys, type GgufFile, PURE_CONFIG, readKeys, writeKeys } from './keys.ts'
import { mamba2Rows, pureRows } from './rows.ts'

const FRAME_KEYS = frameKeys('layer_norm_epsilon')

export function readPureMamba2({ keys }: GgufFile): ArchitectureReading {
  const { quotient: expand } = innerPart(keys, 'embedding_length')
  return {
    config: {
      ...PURE_CONFIG,
      model_type: 'mamba2',
      ...readKeys(keys, FRAME_KEYS),
      ...readMamba2(keys, { dState: 'state_size', dConv: 'conv_kernel', nHeads: 'num_heads', nGroups: 'n_groups', headDim: 'head_dim' }),
      intermediate_size: keys.natural('ssm.inner_size'),
      expand
    },
    names: pureRows(mamba2Rows('mixer', keys.natural('ssm.group_count')))
  }
}

export function writePureMamba2(facts: PureMamba2Facts, place: string): ArchitectureWriting {
  return {
    architecture: 'mamba2',
    metadata: [['context_length', uint32Value(NO_LIMIT)], ...writeKeys(FRAME_KEYS, facts), ...NO_ATTENTION, ...writeMamba2(facts, { place, normEps: facts.normEps })],
    names: pureRows(mamba2Rows('mixer', facts.nGroups))
  }
}
