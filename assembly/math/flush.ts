/** A state that fades ends at zero, not among the subnormals, which cost a factor of 16 to 300. */

/**
 * (h + FLUSH) − FLUSH is h from 2^-55 on and a multiple of 2^-104 below. A slowly decaying state stays at the last of these multiples for
 * long: its products with C must not be subnormal either. With FLUSH 2^-100 they were: a chunk of zeros after a text took 3.0 times as long
 * as another one in the scan of Mamba-2, 2.1 times in Mamba's; with 2^-80 1.02 and 1.04 times (npm run bench -- scan ssd).
 */
export const FLUSH: f32 = 8.271806125530277e-25
export const FLUSH_LANES: usize = memory.data<f32>([FLUSH, FLUSH, FLUSH, FLUSH], 16)
