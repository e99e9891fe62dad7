/**
 * Causal grouped-query attention over the key-value cache by online softmax (Milakov & Gimelshein 2018; FlashAttention): segments of few rows, a decoded
 * token each, by attention-rows.ts, longer ones by attention-tiles.ts. A batch may have both.
 */

import type { OpKernels } from '../kernel.ts'
import { attentionRows } from './attention-rows.ts'
import { attentionTiles } from './attention-tiles.ts'

export const attention: OpKernels['attention'] = (op, context) => [...attentionRows(op, context), attentionTiles(op, context)]
