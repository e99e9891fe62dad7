/**
 * What TypeScript writes and WebAssembly reads: op codes and the offsets in the records. Constants only;
 * asc folds them into the kernels, tsc gives them to src/backend/wasm. All offsets count 32-bit words.
 *
 *   control block                      op record (OP_WORDS words)
 *   ┌──────────────────────────┐       ┌──────┬──────┬───────────────────────────────┐
 *   │ CONTROL_* words          │──┐    │ code │ flags│ operands: pointers, strides … │
 *   └──────────────────────────┘  │    └──────┴──────┴───────────────────────────────┘
 *     pointers to: program ───────┘    strides and widths count f32 elements, pointers bytes
 *     tokens, segments, logit rows, state slots, scratch
 */

export const CONTROL_PROGRAM: i32 = 0
export const CONTROL_N_TOKENS: i32 = 1
export const CONTROL_N_LOGIT_ROWS: i32 = 2
export const CONTROL_N_SEGMENTS: i32 = 3
/** i32 ids, one a token row. */
export const CONTROL_TOKENS: i32 = 4
/** SEGMENT_WORDS words a segment. */
export const CONTROL_SEGMENTS: i32 = 5
/** i32 token rows, one a logit row. */
export const CONTROL_LOGIT_ROWS: i32 = 6
export const CONTROL_STATE: i32 = 7
export const CONTROL_SLOT_BYTES: i32 = 8
/** SCRATCH_BYTES a thread. */
export const CONTROL_SCRATCH: i32 = 9
export const CONTROL_SCRATCH_BYTES: i32 = 10
export const CONTROL_N_THREADS: i32 = 11
/** What the threads tell each other; each word that is waited on has a cache line of its own. */
export const CONTROL_FIRST_OP: i32 = 12
export const CONTROL_END_OP: i32 = 13
/** 1: workers return. */
export const CONTROL_EXIT: i32 = 14
/** 1: a thread died or stayed away; everyone returns. */
export const CONTROL_FAILED: i32 = 15
/** Counts the runs: a change starts the workers. */
export const CONTROL_RUN: i32 = 16
/** Counts the barriers passed. */
export const CONTROL_PHASE: i32 = 32
/** Threads that have arrived at the barrier. */
export const CONTROL_ARRIVED: i32 = 48
/** Threads that sleep: nobody is woken while it is 0. */
export const CONTROL_SLEEPERS: i32 = 64
/** Rows of the batch [first, end) that attention runs over: all, or a part where all would take long. */
export const CONTROL_ATTENTION_FIRST: i32 = 80
export const CONTROL_ATTENTION_END: i32 = 81
export const CONTROL_WORDS: i32 = 96
/** After the control words, for each thread in a line of its own: who asks for a part of its share, and what it got where it asked itself. */
export const SHARE_WORDS: i32 = 16
export const SHARE_ASKED: i32 = 0
export const SHARE_MAIL: i32 = 1

export const SEGMENT_SLOT: i32 = 0
/** Tokens that the sequence had before this segment. */
export const SEGMENT_POSITION: i32 = 1
export const SEGMENT_FIRST_ROW: i32 = 2
export const SEGMENT_N_ROWS: i32 = 3
export const SEGMENT_WORDS: i32 = 4

export const OP_CODE: i32 = 0
/** ROWS_LOGIT, MEET_ONE, MEET_MANY, EACH_ONE, HELP_ONE, HELP_MANY or 0, added up. */
export const OP_FLAGS: i32 = 1
export const OP_WORDS: i32 = 32

/** The op runs over the rows whose logits are asked for, not over the tokens. */
export const ROWS_LOGIT: i32 = 1
/** After this op the threads meet, in a batch of one token: the next one reads what others wrote. */
export const MEET_ONE: i32 = 2
/** The same for batches of several. */
export const MEET_MANY: i32 = 4
/** In a batch of one token each thread does the row for itself. */
export const EACH_ONE: i32 = 8
/** In a batch of one token threads that are done with their own share (of a linear op's last part) take from others. */
export const HELP_ONE: i32 = 16
/** The same for batches of several. */
export const HELP_MANY: i32 = 32

export const CODE_EMBED: i32 = 1
export const EMBED_WEIGHT: i32 = 2
export const EMBED_WIDTH: i32 = 3
export const EMBED_OUT: i32 = 4
export const EMBED_OUT_STRIDE: i32 = 5
/** FORMAT_* */
export const EMBED_FORMAT: i32 = 6

export const CODE_GATHER_ROWS: i32 = 2
export const GATHER_X: i32 = 2
export const GATHER_X_STRIDE: i32 = 3
export const GATHER_WIDTH: i32 = 4
export const GATHER_OUT: i32 = 5
export const GATHER_OUT_STRIDE: i32 = 6

export const CODE_RMS_NORM: i32 = 3
export const NORM_X: i32 = 2
export const NORM_X_STRIDE: i32 = 3
export const NORM_WIDTH: i32 = 4
/** 0: none */
export const NORM_WEIGHT: i32 = 5
/** f32 */
export const NORM_EPS: i32 = 6
export const NORM_OUT: i32 = 7
export const NORM_OUT_STRIDE: i32 = 8
/** columns with a mean of their own */
export const NORM_GROUP_WIDTH: i32 = 9
/** 0: none */
export const NORM_GATE: i32 = 10
export const NORM_GATE_STRIDE: i32 = 11

export const CODE_LINEAR: i32 = 4
export const LINEAR_X: i32 = 2
export const LINEAR_X_STRIDE: i32 = 3
export const LINEAR_N_IN: i32 = 4
export const LINEAR_WEIGHT: i32 = 5
export const LINEAR_N_OUT: i32 = 6
/** 0: none */
export const LINEAR_BIAS: i32 = 7
export const LINEAR_OUT: i32 = 8
export const LINEAR_OUT_STRIDE: i32 = 9
/** 1: add to what the output holds */
export const LINEAR_ACCUMULATE: i32 = 10
/** FORMAT_* */
export const LINEAR_FORMAT: i32 = 11
/** Equal parts of the outputs, whole panels each, which threads share one by one; 0: they share all in one. */
export const LINEAR_N_PARTS: i32 = 12

export const CODE_CONV1D: i32 = 5
export const CONV_X: i32 = 2
export const CONV_X_STRIDE: i32 = 3
export const CONV_WIDTH: i32 = 4
/** Tiles of (dConv, LANES) */
export const CONV_WEIGHT: i32 = 5
export const CONV_N_TAPS: i32 = 6
/** 0: none */
export const CONV_BIAS: i32 = 7
/** byte offset in a state slot of (width, dConv − 1) */
export const CONV_STATE: i32 = 8
export const CONV_OUT: i32 = 9
export const CONV_OUT_STRIDE: i32 = 10
/** 1: silu after the sum */
export const CONV_SILU: i32 = 11

export const CODE_SELECTIVE_SCAN: i32 = 6
export const SCAN_X: i32 = 2
export const SCAN_X_STRIDE: i32 = 3
export const SCAN_DT: i32 = 4
export const SCAN_DT_STRIDE: i32 = 5
/** 0: no gate */
export const SCAN_Z: i32 = 6
export const SCAN_Z_STRIDE: i32 = 7
/** A · log2(e), tiles of (dState, LANES) */
export const SCAN_A: i32 = 8
export const SCAN_B: i32 = 9
/** 0: the same B at every token */
export const SCAN_B_STRIDE: i32 = 10
/** channels that share a B */
export const SCAN_B_CHANNELS: i32 = 11
export const SCAN_C: i32 = 12
export const SCAN_C_STRIDE: i32 = 13
export const SCAN_C_CHANNELS: i32 = 14
/** 0: none */
export const SCAN_D: i32 = 15
/** 0: none */
export const SCAN_DT_BIAS: i32 = 16
export const SCAN_DT_SOFTPLUS: i32 = 17
export const SCAN_D_INNER: i32 = 18
export const SCAN_D_STATE: i32 = 19
/** byte offset in a state slot of (dInner, dState) */
export const SCAN_STATE: i32 = 20
export const SCAN_OUT: i32 = 21
export const SCAN_OUT_STRIDE: i32 = 22
/** neighbouring channels that share both a B and a C */
export const SCAN_GROUP_CHANNELS: i32 = 23

export const CODE_SSD_SCAN: i32 = 7
export const SSD_X: i32 = 2
export const SSD_X_STRIDE: i32 = 3
export const SSD_DT: i32 = 4
export const SSD_DT_STRIDE: i32 = 5
export const SSD_A: i32 = 6
export const SSD_B: i32 = 7
export const SSD_B_STRIDE: i32 = 8
export const SSD_C: i32 = 9
export const SSD_C_STRIDE: i32 = 10
/** 0: none */
export const SSD_D: i32 = 11
/** 0: none */
export const SSD_DT_BIAS: i32 = 12
/** f32, both */
export const SSD_DT_MIN: i32 = 13
export const SSD_DT_MAX: i32 = 14
export const SSD_N_HEADS: i32 = 15
export const SSD_HEAD_DIM: i32 = 16
export const SSD_D_STATE: i32 = 17
/** heads that share a B and a C */
export const SSD_GROUP_HEADS: i32 = 18
/** byte offset in a state slot of (nHeads, headDim, dState) */
export const SSD_STATE: i32 = 19
export const SSD_OUT: i32 = 20
export const SSD_OUT_STRIDE: i32 = 21

/** The same op and record, by matrix products over chunks of tokens. */
export const CODE_SSD_CHUNKS: i32 = 16

export const CODE_ROTARY: i32 = 8
/** read and written */
export const ROTARY_X: i32 = 2
export const ROTARY_X_STRIDE: i32 = 3
export const ROTARY_N_HEADS: i32 = 4
export const ROTARY_HEAD_DIM: i32 = 5
/** columns of a head that are turned */
export const ROTARY_DIM: i32 = 6
/** (rows, rotaryDim): of each row of the batch the cosines, then the sines */
export const ROTARY_TABLE: i32 = 7

/** Of cacheKeyValue and attention alike: where a layer's keys and values lie in a slot, as assembly/ops/attention.ts draws them. */
export const CACHE_KEYS: i32 = 2
export const CACHE_VALUES: i32 = 3
/** bytes from head to head */
export const CACHE_KEY_HEAD_BYTES: i32 = 4
export const CACHE_VALUE_HEAD_BYTES: i32 = 5
export const CACHE_HEAD_DIM: i32 = 6
export const CACHE_N_HEADS: i32 = 7

export const CODE_CACHE_KEY_VALUE: i32 = 9
export const CACHE_KEY: i32 = 8
export const CACHE_KEY_STRIDE: i32 = 9
export const CACHE_VALUE: i32 = 10
export const CACHE_VALUE_STRIDE: i32 = 11

export const CODE_ATTENTION: i32 = 10
export const ATTENTION_Q: i32 = 8
export const ATTENTION_Q_STRIDE: i32 = 9
export const ATTENTION_N_HEADS: i32 = 10
/** f32, times log2 e */
export const ATTENTION_SCALE: i32 = 11
export const ATTENTION_OUT: i32 = 12
export const ATTENTION_OUT_STRIDE: i32 = 13

export const CODE_ACTIVATION: i32 = 11
export const ACTIVATION_X: i32 = 2
export const ACTIVATION_X_STRIDE: i32 = 3
export const ACTIVATION_WIDTH: i32 = 4
/** FUNCTION_SILU, FUNCTION_GELU or FUNCTION_RELU2 */
export const ACTIVATION_FUNCTION: i32 = 5
/** 0: none */
export const ACTIVATION_BY: i32 = 6
export const ACTIVATION_BY_STRIDE: i32 = 7
export const ACTIVATION_OUT: i32 = 8
export const ACTIVATION_OUT_STRIDE: i32 = 9

export const CODE_SCALED_ADD: i32 = 12
export const SCALED_X: i32 = 2
export const SCALED_X_STRIDE: i32 = 3
export const SCALED_WIDTH: i32 = 4
/** f32 */
export const SCALED_FACTOR: i32 = 5
export const SCALED_ACCUMULATE: i32 = 6
export const SCALED_OUT: i32 = 7
export const SCALED_OUT_STRIDE: i32 = 8

export const CODE_ROUTE: i32 = 13
export const ROUTE_X: i32 = 2
export const ROUTE_X_STRIDE: i32 = 3
export const ROUTE_N_EXPERTS: i32 = 4
export const ROUTE_TOP_K: i32 = 5
/** 1: the softmax is over all experts, 0: over the chosen ones */
export const ROUTE_OVER_ALL: i32 = 6
export const ROUTE_OUT: i32 = 7
export const ROUTE_OUT_STRIDE: i32 = 8

export const CODE_EXPERT_LINEAR: i32 = 14
export const EXPERT_X: i32 = 2
export const EXPERT_X_STRIDE: i32 = 3
/** elements from one choice's x to the next one's; 0: all have the same */
export const EXPERT_X_STEP: i32 = 4
export const EXPERT_N_IN: i32 = 5
export const EXPERT_N_OUT: i32 = 6
/** as route leaves them */
export const EXPERT_CHOICES: i32 = 7
export const EXPERT_CHOICES_STRIDE: i32 = 8
export const EXPERT_TOP_K: i32 = 9
export const EXPERT_N_EXPERTS: i32 = 10
/** EXPERT_ENTRY_WORDS words an expert */
export const EXPERT_TABLE: i32 = 11
/** bytes of a thread's scratch that belong to the products */
export const EXPERT_SCRATCH: i32 = 12
export const EXPERT_OUT: i32 = 13
export const EXPERT_OUT_STRIDE: i32 = 14

/** An expert's matrix in panels: its address, its FORMAT_*, bytes of a panel. */
export const EXPERT_ENTRY_WEIGHT: i32 = 0
export const EXPERT_ENTRY_FORMAT: i32 = 1
export const EXPERT_ENTRY_PANEL_BYTES: i32 = 2
export const EXPERT_ENTRY_WORDS: i32 = 3

export const CODE_MIX_EXPERTS: i32 = 15
export const MIX_X: i32 = 2
export const MIX_X_STRIDE: i32 = 3
export const MIX_WIDTH: i32 = 4
export const MIX_CHOICES: i32 = 5
export const MIX_CHOICES_STRIDE: i32 = 6
export const MIX_TOP_K: i32 = 7
export const MIX_ACCUMULATE: i32 = 8
export const MIX_OUT: i32 = 9
export const MIX_OUT_STRIDE: i32 = 10

/** Channels that stay with one thread: a panel's rows, so that an op may read what the same thread wrote without a barrier. */
export const SHARE: i32 = 8
/** Channels in one vector of the scan. */
export const LANES: i32 = 4
/** Output rows in one panel of a linear weight. */
export const PANEL_ROWS: i32 = 8
/** Tokens that the scan takes at a time: dt, dt · x and y of one tile stay in L1 over all states. */
export const SCAN_BLOCK: i32 = 32
/** Vectors that a pass of an elementary function takes; between the passes it keeps two of each in scratch. Even, and at most 3 · SCAN_BLOCK. */
export const MAP_BLOCK: i32 = 32
/** Tokens that the scan of Mamba-2 takes at a time: their B and C stay in L1 over all channels of a head. */
export const SSD_BLOCK: i32 = 16
/** Tokens that its chunked form takes at a time, and how many it takes at least: fewer go through the recurrence. */
export const SSD_CHUNK: i32 = 32
export const SSD_CHUNK_LEAST: i32 = 8
/** Keys that attention takes at a time, at positions that are multiples of it: eight vectors of scores in registers. */
export const KEY_BLOCK: i32 = 32
/** Queries (a row and a head) that share the keys of a block while these are in L1. */
export const QUERY_TILE: i32 = 16
/** Rows that meet an expert's matrix at a time, and panels of it whose outputs are kept until they go to their places. */
export const EXPERT_ROWS: i32 = 32
export const EXPERT_PANELS: i32 = 64

/** Formats of a panel: see assembly/formats. */
export const FORMAT_F32: i32 = 0
export const FORMAT_BF16: i32 = 1
export const FORMAT_F16: i32 = 2
/** Weights in 8 or 4 bits with a scale for each QUANT_BLOCK inputs; the same with a minimum; in 8 bits with a scale for each half of them. */
export const FORMAT_Q8: i32 = 3
export const FORMAT_Q4: i32 = 4
export const FORMAT_Q8_MIN: i32 = 5
export const FORMAT_Q4_MIN: i32 = 6
export const FORMAT_Q8_HALF: i32 = 7
/** FORMAT_Q8 and FORMAT_Q4 for products of bytes: with their signs, and the sum of a row's block in the low bits of its scale. */
export const FORMAT_Q8_DOT: i32 = 8
export const FORMAT_Q4_DOT: i32 = 9
export const QUANT_BLOCK: i32 = 32
export const HALF_QUANT_BLOCK: i32 = 16
/** Bytes of a panel's block: PANEL_ROWS scales in f32, PANEL_ROWS minima if it has them, the weights. */
export const Q8_BLOCK_BYTES: i32 = 288
export const Q4_BLOCK_BYTES: i32 = 160
export const Q8_MIN_BLOCK_BYTES: i32 = 320
export const Q4_MIN_BLOCK_BYTES: i32 = 192
export const Q8_HALF_BLOCK_BYTES: i32 = 160
/** What is added to weights that have either sign. */
export const Q8_ZERO: i32 = 128
export const Q4_ZERO: i32 = 8
/** Rows 4 to 7 of a panel in 4 bits are read so many times as large, and their scales stored so many times as small. */
export const HIGH_ROWS_FACTOR: i32 = 16
/** For products of bytes all rows of a panel in 4 bits are, and the sum of a block has so many bits: a scale is a half float, which leaves them free. */
export const SUM_BITS: i32 = 13
/** Rows that a linear op takes at a time: their activations stay in L2 while the panels pass through L1. */
export const ROW_BLOCK: i32 = 64

/** Functions of `evaluate`. */
export const FUNCTION_EXP: i32 = 0
export const FUNCTION_SOFTPLUS: i32 = 1
export const FUNCTION_SILU: i32 = 2
export const FUNCTION_EXP2: i32 = 3
export const FUNCTION_GELU: i32 = 4
export const FUNCTION_RELU2: i32 = 5

/** gelu(x) = relu(x) − |x| · t · (GELU_0 + t · (GELU_1 + …)) · exp(−x² / 2), t = 1 / (1 + GELU_P · |x|): see math/gelu.ts. WGSL has the same. */
export const GELU_P: f32 = 0.3
export const GELU_0: f32 = 0.11962928674151785
export const GELU_1: f32 = 0.12075412870152968
export const GELU_2: f32 = 0.09991250990069553
export const GELU_3: f32 = 0.12856450049787743
export const GELU_4: f32 = -0.05368828594831085
export const GELU_5: f32 = 0.20635758942773907
export const GELU_6: f32 = -0.15720483799802215
export const GELU_7: f32 = 0.03567503453936461
