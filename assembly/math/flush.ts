/** A state that fades ends at zero, not among the subnormals, which cost a factor of 16 to 300. */

/** (h + FLUSH) − FLUSH is h from 2^-75 on and a multiple of 2^-123 or less below. */
export const FLUSH: f32 = 7.888609052210118e-31
export const FLUSH_LANES: usize = memory.data<f32>([FLUSH, FLUSH, FLUSH, FLUSH], 16)
