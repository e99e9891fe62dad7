/** Configs in the form of the original repository, mamba_ssm: the same architectures, read otherwise. */

import type { Architecture } from './architecture.ts'
import { agree, type CommonConfig } from './config.ts'
import type { ConfigReader } from './config-reader.ts'
import { mamba, type Mamba1Config, readDtRank } from './mamba1.ts'
import { checkGroups, mamba2, type Mamba2Config, readLimits } from './mamba2.ts'

/** Reads the keys that all configs of the original repository share: `MambaConfig` of mamba_ssm. */
function readCommonConfig(reader: ConfigReader): Omit<CommonConfig, 'modelType'> {
  reader.only('rms_norm', true)
  reader.only('d_intermediate', 0)
  reader.none('attn_layer_idx')
  const padding = reader.size('pad_vocab_size_multiple', { fallback: 8 })
  const nLayers = reader.size('n_layer', { limit: 'layers' })
  return {
    vocabSize: Math.ceil(reader.size('vocab_size', { limit: 'vocabSize' }) / padding) * padding,
    dModel: reader.size('d_model'),
    nLayers,
    layers: Array.from({ length: nLayers }, () => 'mamba'),
    normEps: reader.positive('norm_epsilon', 1e-5),
    embeddingMultiplier: 1,
    logitMultiplier: 1,
    tieEmbeddings: reader.flag('tie_embeddings', true),
    bosTokenId: null,
    // The published checkpoints were trained with GPT-NeoX's end of text, id 0.
    eosTokenIds: [0],
    contextLength: null
  }
}

/** The original repository's config: `MambaConfig` of mamba_ssm. */
function readMamba1Config(reader: ConfigReader): Mamba1Config {
  const common = readCommonConfig(reader)
  const ssm = reader.nested('ssm_cfg')
  return {
    ...common,
    modelType: 'mamba',
    dInner: common.dModel * ssm.size('expand', { fallback: 2 }),
    dState: ssm.size('d_state', { fallback: 16 }),
    dConv: ssm.size('d_conv', { fallback: 4 }),
    dtRank: readDtRank(ssm, 'dt_rank', common.dModel),
    useBias: ssm.flag('bias', false),
    useConvBias: ssm.flag('conv_bias', true),
    mixerNormEps: null
  }
}

/** The original repository's config with `ssm_cfg.layer` "Mamba2": `Mamba2` of mamba_ssm, whose gated norm is of each group by itself. */
function readMamba2Config(reader: ConfigReader): Mamba2Config {
  const common = readCommonConfig(reader)
  const ssm = reader.nested('ssm_cfg')
  const headDim = ssm.size('headdim', { fallback: 64 })
  const dInner = common.dModel * ssm.size('expand', { fallback: 2 })
  const nGroups = ssm.size('ngroups', { fallback: 1 })
  const nHeads = Math.floor(dInner / headDim)
  agree(ssm, 'headdim', headDim, { key: 'expand', expected: dInner / nHeads })
  checkGroups(ssm, 'ngroups', nGroups, nHeads)
  ssm.only('rmsnorm', true)
  ssm.only('norm_before_gate', false)
  ssm.only('D_has_hdim', false)
  ssm.only('d_ssm', dInner)
  return {
    ...common,
    modelType: 'mamba2', dInner, nHeads, headDim, nGroups,
    dState: ssm.size('d_state', { fallback: 128 }),
    dConv: ssm.size('d_conv', { fallback: 4 }),
    dtLimit: readLimits(ssm, 'dt_limit'),
    useBias: ssm.flag('bias', false),
    useConvBias: ssm.flag('conv_bias', true),
    normGroups: nGroups,
    gatedNormEps: 1e-5
  }
}

export const originalMamba1: Architecture<Mamba1Config> = { ...mamba, readConfig: readMamba1Config }

export const originalMamba2: Architecture<Mamba2Config> = { ...mamba2, readConfig: readMamba2Config }
