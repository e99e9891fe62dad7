/** The likeliest token, where nobody asks for its logits. */

import { at } from './control'

/** Index of the largest of `count` values, the lowest at a tie; where one is NaN or infinite, of the first of those. */
export function indexOfBest(values: usize, count: i32): i32 {
  const largest = largestOf(values, count)
  let i = 0
  if (largest < Infinity) {
    while (load<f32>(at(values, i)) != largest) i++
  } else {
    while (load<f32>(at(values, i)) < Infinity) i++
  }
  return i
}

/** NaN where one is NaN. Four maxima at once: one alone waits for itself. */
function largestOf(values: usize, count: i32): f32 {
  let i = 0
  let largest: f32 = -Infinity
  if (ASC_FEATURE_SIMD && count >= 16) {
    let a = v128.load(values)
    let b = v128.load(values, 16)
    let c = v128.load(values, 32)
    let d = v128.load(values, 48)
    for (i = 16; i + 16 <= count; i += 16) {
      const place = at(values, i)
      a = f32x4.max(a, v128.load(place))
      b = f32x4.max(b, v128.load(place, 16))
      c = f32x4.max(c, v128.load(place, 32))
      d = f32x4.max(d, v128.load(place, 48))
    }
    a = f32x4.max(f32x4.max(a, b), f32x4.max(c, d))
    largest = max<f32>(max<f32>(f32x4.extract_lane(a, 0), f32x4.extract_lane(a, 1)), max<f32>(f32x4.extract_lane(a, 2), f32x4.extract_lane(a, 3)))
  }
  for (; i < count; i++) largest = max<f32>(largest, load<f32>(at(values, i)))
  return largest
}
