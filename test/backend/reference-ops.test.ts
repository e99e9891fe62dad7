/** Ops of the hybrids in the reference backend, against their definitions written another way, and tables of known values. */
import { describe, expect, test } from 'vitest'
import type { Segment, SteppingBackend } from '../../src/backend/backend.ts'
import { activations } from '../../src/backend/reference/activations.ts'
import { createReferenceBackend } from '../../src/backend/reference/reference-backend.ts'
import { columns, ProgramBuilder } from '../../src/program/builder.ts'
import { rotaryRow } from '../../src/program/rotary.ts'
import type { Parameter, View } from '../../src/program/ops.ts'
import { createNumbers } from '../support/numbers.ts'
import { expectSameBits, relativeError } from '../support/compare.ts'

const ROWS = 12

/** A program's backend, with a batch of these segments begun. */
function begin(builder: ProgramBuilder, segments: readonly Segment[], contextLength = 16): SteppingBackend {
  const backend = createReferenceBackend(builder.build(null, 0), { maxRows: ROWS, maxLogitRows: 0, nSlots: 3, contextLength }, 'test')
  start(backend, segments)
  return backend
}

function start(backend: SteppingBackend, segments: readonly Segment[]): void {
  backend.begin({ tokens: new Int32Array(segments.reduce((sum, { nRows }) => sum + nRows, 0)), segments })
}

function part(slot: number, position: number, firstRow: number, nRows: number): Segment {
  return { slot, position, firstRow, nRows, logits: 'none' }
}

describe('activations', () => {
  // x · Φ(x), with Φ from tables of the normal distribution.
  test.each([
    [0, 0], [0.5, 0.5 * 0.691462461274013], [1, 0.841344746068543], [-1, -0.158655253931457], [2, 2 * 0.977249868051821], [-2, -2 * 0.0227501319481792],
    [3, 3 * 0.99865010196837], [-3, -3 * 0.00134989803163009], [5, 5 * 0.999999713348428], [9, 9], [40, 40]
  ])('gelu of %f', (x, y) => expect(Math.abs(activations.gelu(x) - y)).toBeLessThan(3e-15 * Math.max(1, Math.abs(x))))

  test('gelu far below zero, and of what is no number', () => {
    expect(Math.abs(activations.gelu(-40))).toBe(0)
    expect(activations.gelu(NaN)).toBeNaN()
    expect(activations.gelu(Infinity)).toBe(Infinity)
  })

  test('silu and squared relu', () => {
    expect(activations.silu(1)).toBeCloseTo(0.731058578630005, 14)
    expect(activations.silu(-2)).toBeCloseTo(-0.238405844044235, 14)
    expect([-3, 0, 0.5, 3].map(activations.relu2)).toEqual([0, 0, 0.25, 9])
  })

  test('with a factor, and in columns of a buffer', () => {
    const builder = new ProgramBuilder()
    const buffer = builder.buffer('x', 5)
    const by = builder.buffer('by', 2)
    builder.add({ kind: 'activation', x: columns(buffer, 1, 2), by, function: 'relu2', out: columns(buffer, 3, 2) })
    const backend = begin(builder, [part(0, 0, 0, 2)])
    backend.writeView(buffer, Float32Array.of(9, 2, -1, 8, 8, 9, 3, 4, 8, 8))
    backend.writeView(by, Float32Array.of(5, 5, -1, 0.5))
    backend.run(0, 1)
    expect(Array.from(backend.readView(buffer))).toEqual([9, 2, -1, 20, 0, 9, 3, 4, -9, 8])
  })
})

test('scaledAdd copies, scales and adds', () => {
  for (const [accumulate, want] of [[false, [-1, -2, 0.5]], [true, [9, 18, 30.5]]] as const) {
    const builder = new ProgramBuilder()
    const [x, out] = [builder.buffer('x', 3), builder.buffer('out', 3)]
    builder.add({ kind: 'scaledAdd', x, factor: -0.5, accumulate, out })
    const backend = begin(builder, [part(0, 0, 0, 1)])
    backend.writeView(x, Float32Array.of(2, 4, -1))
    backend.writeView(out, Float32Array.of(10, 20, 30))
    backend.run(0, 1)
    expect(Array.from(backend.readView(out))).toEqual(want)
  }
})

describe('rotary', () => {
  const [headDim, rotaryDim, theta] = [8, 6, 500]

  test('the table: cosines, then sines, of frequencies rounded to f32', () => {
    for (const position of [0, 1, 7, 100, 4095, 262_143]) {
      const row = rotaryRow(theta, rotaryDim, position)
      expect(row.length).toBe(rotaryDim)
      for (let i = 0; i < rotaryDim / 2; i++) {
        const angle = Math.fround(Math.fround(1 / Math.fround(theta ** ((2 * i) / rotaryDim))) * position)
        expect(Math.abs(row[i] - Math.cos(angle))).toBeLessThan(6e-8)
        expect(Math.abs(row[rotaryDim / 2 + i] - Math.sin(angle))).toBeLessThan(6e-8)
      }
    }
  })

  function rotate(values: Float32Array, segments: readonly Segment[]): Float32Array {
    const builder = new ProgramBuilder()
    const x = builder.buffer('x', 2 * headDim)
    builder.add({ kind: 'rotary', x, headDim, rotaryDim, theta, out: x })
    const backend = begin(builder, segments)
    backend.writeView(x, values)
    backend.run(0, 1)
    return backend.readView(x)
  }

  test('turns pairs half a rotaryDim apart as complex numbers, by the position in the sequence', () => {
    const values = createNumbers(1).floats(5 * 2 * headDim)
    const got = rotate(values, [part(2, 3, 0, 2), part(0, 0, 2, 3)])
    for (const [row, position] of [3, 4, 0, 1, 2].entries()) {
      for (let head = 0; head < 2; head++) {
        const at = (i: number): number => (row * 2 + head) * headDim + i
        for (let i = 0; i < 3; i++) {
          const [re, im] = [values[at(i)], values[at(i + 3)]]
          const angle = position * theta ** (-i / 3)
          expect(got[at(i)]).toBeCloseTo(Math.hypot(re, im) * Math.cos(Math.atan2(im, re) + angle), 5)
          expect(got[at(i + 3)]).toBeCloseTo(Math.hypot(re, im) * Math.sin(Math.atan2(im, re) + angle), 5)
        }
        for (const i of [6, 7]) expect(got[at(i)]).toBe(values[at(i)])
      }
    }
  })

  test('leaves products of queries and keys as their distance has them', () => {
    const head = createNumbers(2).floats(2 * headDim)
    const dot = (position: number): number => {
      const both = new Float32Array(4 * headDim)
      both.set(head.subarray(0, headDim))
      both.set(head.subarray(headDim), 2 * headDim)
      const turned = rotate(both, [part(0, position + 4, 0, 1), part(1, position, 1, 1)])
      return turned.subarray(0, headDim).reduce((sum, value, i) => sum + value * turned[2 * headDim + i], 0)
    }
    expect(dot(9)).toBeCloseTo(dot(0), 5)
    expect(Math.abs(dot(9) - head.subarray(0, headDim).reduce((sum, value, i) => sum + value * head[headDim + i], 0))).toBeGreaterThan(1e-2)
  })
})

describe('attention with its cache', () => {
  const [nHeads, nKvHeads, headDim, scale] = [4, 2, 3, 0.7]
  const [qWidth, kvWidth] = [nHeads * headDim, nKvHeads * headDim]

  function build() {
    const builder = new ProgramBuilder()
    const [q, key, value, out] = [builder.buffer('q', qWidth), builder.buffer('k', kvWidth), builder.buffer('v', kvWidth), builder.buffer('out', qWidth)]
    builder.state('other', [2])
    // Another layer's: the one that is used starts in the middle.
    builder.keyValue('first', 2)
    const cache = builder.keyValue('second', kvWidth)
    builder.add({ kind: 'cacheKeyValue', key, value, cache, out: key })
    builder.add({ kind: 'attention', q, headDim, scale, cache, out })
    return { backend: begin(builder, []), q, key, value, out }
  }
  type Built = ReturnType<typeof build>

  /** Rows [first, first + nRows) of a sequence's q, k and v. */
  const sequence = (seed: number, length: number) => {
    const numbers = createNumbers(seed)
    return { q: numbers.floats(length * qWidth), key: numbers.floats(length * kvWidth), value: numbers.floats(length * kvWidth) }
  }
  type Sequence = ReturnType<typeof sequence>

  function run({ backend, q, key, value, out }: Built, parts: readonly (Segment & { readonly of: Sequence })[]): Float32Array {
    start(backend, parts)
    const join = (view: View, name: keyof Sequence): void => {
      const rows = parts.flatMap(({ of, position, nRows }) => Array.from(of[name].subarray(position * view.width, (position + nRows) * view.width)))
      backend.writeView(view, Float32Array.from(rows))
    }
    join(q, 'q')
    join(key, 'key')
    join(value, 'value')
    backend.run(0, 2)
    return backend.readView(out)
  }

  /** The whole matrix of scores, its exponentials, a mask of zeros and ones. */
  function naive({ q, key, value }: Sequence, length: number): Float32Array {
    const out = new Float32Array(length * qWidth)
    for (let head = 0; head < nHeads; head++) {
      const group = head < 2 ? 0 : 1
      const row = (values: Float32Array, t: number, width: number, first: number): number[] => Array.from(values.subarray(t * width + first, t * width + first + headDim))
      for (let t = 0; t < length; t++) {
        const weights = Array.from({ length }, (_, s) => {
          const k = row(key, s, kvWidth, group * headDim)
          return (s <= t ? 1 : 0) * Math.exp(scale * row(q, t, qWidth, head * headDim).reduce((sum, value, i) => sum + value * k[i], 0))
        })
        const total = weights.reduce((a, b) => a + b)
        for (let i = 0; i < headDim; i++) {
          out[t * qWidth + head * headDim + i] = weights.reduce((sum, weight, s) => sum + (weight / total) * value[s * kvWidth + group * headDim + i], 0)
        }
      }
    }
    return out
  }

  test('is the masked softmax of all products', () => {
    const all = sequence(3, 9)
    expect(relativeError(run(build(), [{ ...part(1, 0, 0, 9), of: all }]), naive(all, 9))).toBeLessThan(1e-6)
  })

  test('in pieces, beside another sequence, and from a moved state: the same', async () => {
    const [a, b] = [sequence(4, 8), sequence(5, 4)]
    const built = build()
    const { backend } = built
    const rows = (values: Float32Array, first: number, count: number): Float32Array => values.subarray(first * qWidth, (first + count) * qWidth)
    const [wantA, wantB] = [naive(a, 8), naive(b, 4)]
    const first = run(built, [{ ...part(0, 0, 0, 3), of: a }, { ...part(2, 0, 3, 4), of: b }])
    expect(relativeError(rows(first, 0, 3), rows(wantA, 0, 3))).toBeLessThan(1e-6)
    expect(relativeError(rows(first, 3, 4), wantB)).toBeLessThan(1e-6)
    expect(relativeError(run(built, [{ ...part(0, 3, 0, 1), of: a }]), rows(wantA, 3, 1))).toBeLessThan(1e-6)
    // To another slot, over what the other sequence left there.
    await backend.writeState(2, 4, await backend.readState(0, 4))
    expect(relativeError(run(built, [{ ...part(2, 4, 0, 4), of: a }]), rows(wantA, 4, 4))).toBeLessThan(1e-6)
    // A fresh sequence in a used slot sees nothing of the old one.
    await backend.clearState(2)
    expect(relativeError(run(built, [{ ...part(2, 0, 0, 4), of: b }]), wantB)).toBeLessThan(1e-6)
  })

  test('the canonical state: the states, then each layer’s keys and values', async () => {
    const built = build()
    const { backend } = built
    const { key, value } = sequence(6, 4)
    const state = new Float32Array(2 + 4 * (2 * 2 + 2 * kvWidth))
    state.set(createNumbers(7).floats(2 + 4 * 4))
    state.set(key, 2 + 4 * 4)
    state.set(value, 2 + 4 * (4 + kvWidth))
    await backend.writeState(1, 4, state)
    expectSameBits(await backend.readState(1, 4), state, 'state')
    // Of three tokens: the first three rows of each part.
    const less = await backend.readState(1, 3)
    expect(less.length).toBe(2 + 3 * (4 + 2 * kvWidth))
    expectSameBits(less.subarray(2 + 3 * 4, 2 + 3 * (4 + kvWidth)), key.subarray(0, 3 * kvWidth), 'keys')
    expectSameBits(less.subarray(2 + 3 * (4 + kvWidth)), value.subarray(0, 3 * kvWidth), 'values')
    // What attention finds there is what was written: the fifth token of a sequence with these keys and values.
    const whole = sequence(6, 5)
    const continued = { q: whole.q, key: Float32Array.from([...key, ...whole.key.subarray(4 * kvWidth)]), value: Float32Array.from([...value, ...whole.value.subarray(4 * kvWidth)]) }
    const got = run(built, [{ ...part(1, 4, 0, 1), of: continued }])
    expect(relativeError(got, naive(continued, 5).subarray(4 * qWidth))).toBeLessThan(1e-6)
  })
})

describe('route', () => {
  function route(scores: readonly number[], topK: number, softmaxOver: 'chosen' | 'all'): number[] {
    const builder = new ProgramBuilder()
    const [x, out] = [builder.buffer('x', scores.length), builder.buffer('out', 2 * topK)]
    builder.add({ kind: 'route', x, topK, softmaxOver, out })
    const backend = begin(builder, [part(0, 0, 0, 1)])
    backend.writeView(x, Float32Array.from(scores))
    backend.run(0, 1)
    return Array.from(backend.readView(out))
  }

  test('the largest, in the order of their indices', () => {
    expect(route([0.5, 3, -1, 2, 1], 3, 'chosen').slice(0, 3)).toEqual([1, 3, 4])
    expect(route([-5, -4, -3], 1, 'all')[0]).toBe(2)
    expect(route([1, 2, 3], 3, 'all').slice(0, 3)).toEqual([0, 1, 2])
  })

  test('ties go to the lowest index', () => {
    expect(route([1, 2, 1, 2, 1], 3, 'chosen').slice(0, 3)).toEqual([0, 1, 3])
    expect(route([7, 7, 7, 7], 2, 'all').slice(0, 2)).toEqual([0, 1])
  })

  test('weights: a softmax over the chosen ones, or over all', () => {
    const [logOf2, logOf5] = [Math.log(2), Math.log(5)]
    // 2, 1, 5 and 2 of 10.
    const scores = [logOf2, 0, logOf5, logOf2].map((score) => score + 200)
    const expectWeights = (got: readonly number[], want: readonly number[]): void => got.slice(2).forEach((weight, i) => expect(weight).toBeCloseTo(want[i], 4))
    expectWeights(route(scores, 2, 'all'), [0.2, 0.5])
    expectWeights(route(scores, 2, 'chosen'), [2 / 7, 5 / 7])
    expectWeights(route([-1000, 1000], 2, 'all'), [0, 1])
  })
})

describe('experts', () => {
  const [nExperts, topK, nIn, nOut] = [4, 2, 3, 5]
  const W = createNumbers(8).floats(nExperts * nOut * nIn)
  const choices = Float32Array.of(0, 2, 0.25, 0.75, 1, 3, 0.5, 2)
  const x = createNumbers(9).floats(2 * topK * nIn)

  /** weight_e · row, expert e. */
  const product = (expert: number, row: Float32Array): number[] =>
    Array.from({ length: nOut }, (_, o) => row.reduce((sum, value, k) => sum + value * W[(expert * nOut + o) * nIn + k], 0))

  function run(isPerChoice: boolean, isOne: boolean): Float32Array {
    const builder = new ProgramBuilder()
    const [input, chosen, out] = [builder.buffer('x', isPerChoice ? topK * nIn : nIn), builder.buffer('choices', 2 * topK), builder.buffer('out', topK * nOut)]
    const weights: readonly Parameter[] = isOne
      ? [builder.parameter('all', [nExperts, nOut, nIn])]
      : Array.from({ length: nExperts }, (_, e) => builder.parameter(`expert ${e}`, [nOut, nIn]))
    builder.add({ kind: 'expertLinear', x: input, isPerChoice, choices: chosen, topK, nExperts, weights, out })
    const backend = begin(builder, [part(0, 0, 0, 2)])
    const size = W.length / weights.length
    weights.forEach((parameter, i) => backend.write(parameter, W.subarray(i * size, (i + 1) * size), 0))
    backend.writeView(input, x.subarray(0, 2 * input.width))
    backend.writeView(chosen, choices)
    backend.run(0, 1)
    return backend.readView(out)
  }

  test.each([[false, true], [false, false], [true, true], [true, false]])('the chosen ones alone: an input for each choice %s, one tensor %s', (isPerChoice, isOne) => {
    const inputOf = (row: number, j: number): Float32Array => {
      const first = isPerChoice ? (row * topK + j) * nIn : row * nIn
      return x.subarray(first, first + nIn)
    }
    const want = [[0, 2], [1, 3]].flatMap((experts, row) => experts.flatMap((expert, j) => product(expert, inputOf(row, j))))
    expect(relativeError(run(isPerChoice, isOne), want)).toBeLessThan(1e-6)
  })

  test.each([false, true])('their sum by weight, accumulated: %s', (accumulate) => {
    const builder = new ProgramBuilder()
    const [made, chosen, out] = [builder.buffer('made', 4), builder.buffer('choices', 4), builder.buffer('out', 2)]
    builder.add({ kind: 'mixExperts', x: made, choices: chosen, topK, accumulate, out })
    const backend = begin(builder, [part(0, 0, 0, 2)])
    backend.writeView(made, Float32Array.of(4, 8, 12, 16, 1, 2, 3, 4))
    backend.writeView(chosen, choices)
    backend.writeView(out, Float32Array.of(100, 200, 300, 400))
    backend.run(0, 1)
    expect(Array.from(backend.readView(out))).toEqual(accumulate ? [110, 214, 306.5, 409] : [10, 14, 6.5, 9])
  })
})
