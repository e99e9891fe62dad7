/**
 * The inputs of linear-vector.ts on their way to workgroup memory, and the norm that they may go through: their squares are summed meanwhile, and the sums of
 * products multiplied with the scale, or, where groups of inputs have scales of their own, the inputs.
 */

import type { DeviceFacts } from '../kernel.ts'
import { float } from './elements.ts'
import { type Digits, makeDigits, putDigits } from './input-digits.ts'
import { type Source, type SourceNorm, unroll } from './product.ts'
import { type WorkgroupSum, workgroupSum } from './workgroup-sum.ts'

/** Between the first quads of all units and their second ones, and so on: so eight neighbouring quads of a row go to eight banks. */
export function inputsPadding(quads: number): number {
  return quads === 1 ? 0 : 8 / quads
}

export interface Staging {
  readonly rows: number
  readonly threads: number
  /** Of a unit. */
  readonly quads: number
  /** Units at a time. */
  readonly chunk: number
  readonly stride: number
  /** Where they are kept as integers. */
  readonly digits: Digits | null
}

export interface Inputs {
  readonly source: Source
  readonly nIn: number
  /** Whether every thread has as many units of every chunk. */
  readonly isWhole: boolean
  readonly norm: NormCode | null
}

/** Times four inputs that a thread has in registers on their way; where there are more, each by itself. */
const MOST_AT_ONCE = 8

/** Statements: `fetch` asks for a row's inputs, `put` brings them to workgroup memory. Neighbouring threads have neighbouring fours. */
export function stageRow(row: number, { rows, threads, quads, chunk, stride, digits }: Staging, { source, nIn, isWhole, norm }: Inputs): { readonly fetch: string; readonly put: string } {
  const count = quads * chunk
  const inputAt = (i: number): string => source.value(`(firstRow + ${row}u)`, nIn % 4 === 0 ? `(column + ${i}u)` : `min(column + ${i}u, ${nIn - 1}u)`)
  const isInput = (i: number): string => (nIn % 4 === 0 ? inputAt(i) : `select(0.0, ${inputAt(i)}, column + ${i}u < ${nIn}u)`)
  const passes = Math.ceil(count / threads)
  // Digits are of neighbours, which all have to be there.
  const isUnrolled = digits !== null || rows * passes <= MOST_AT_ONCE
  const isQuad = (pass: number): string[] => ((pass + 1) * threads > count ? [`quad < ${count}u`] : [])
  /** A workgroup has a first row in any case. */
  const isThere = [...(rows > 1 ? [`firstRow + ${row}u < nRows`] : []), ...(isWhole && nIn % (4 * quads) === 0 ? [] : [`column < ${nIn}u`])]
  const where = (code: string, terms: readonly string[]): string => (terms.length === 0 ? `{ ${code} }` : `if (${terms.join(' && ')}) { ${code} }`)
  const place = (quad: string): string => `let quad = ${quad};
      let column = chunk * ${4 * quads}u + 4u * quad;`
  const fetch = (value: string, weight: string, conditions: readonly string[]): string =>
    where(`${value} = vec4<f32>(${[0, 1, 2, 3].map(isInput).join(', ')}); ${norm?.weight ? `${weight} = ${norm.weight('column')};` : ''}`, conditions)
  const declare = (value: string, weight: string): string => `var ${value} = vec4<f32>(); ${norm?.weight ? `var ${weight} = vec4<f32>();` : ''}`
  const square = (value: string): string => (norm?.scales ? `square${row} += dot(${value}, ${value});` : '')
  const input = (value: string, weight: string): string => [value, ...(norm?.weight ? [weight] : []), ...(norm?.groupScales ? [norm.groupScales(row)] : [])].join(' * ')
  const put = (value: string, weight: string): string => `${square(value)}
      inputs[(${row * quads}u + quad % ${quads}u) * ${stride}u + quad / ${quads}u] = ${input(value, weight)};`
  if (!isUnrolled) {
    return {
      fetch: '',
      put: `for (var i = thread; i < ${count}u; i += ${threads}u) {
      ${place('i')}
      ${declare('value', 'weight')}
      ${fetch('value', 'weight', isThere)}
      ${put('value', 'weight')}
    }`
    }
  }
  const names = (pass: number): [string, string] => [`value${row}_${pass}`, `weight${row}_${pass}`]
  const quad = (pass: number): string => `thread + ${pass * threads}u`
  return {
    fetch: unroll(passes, (pass) => `${declare(...names(pass))}
    {
      ${place(quad(pass))}
      ${fetch(...names(pass), [...isQuad(pass), ...isThere])}
    }`),
    put: unroll(passes, (pass) => `{
      ${place(quad(pass))}
      ${digits
        ? `${square(names(pass)[0])}
      let input = ${input(...names(pass))};
      ${makeDigits('input', digits)}
      ${where(putDigits(digits), isQuad(pass))}`
        : where(put(...names(pass)), isQuad(pass))}
    }`)
  }
}

export interface NormCode extends Pick<WorkgroupSum, 'enables' | 'parameters' | 'code' | 'bytes'> {
  /** Before the inputs are brought. */
  readonly before: string
  /** An expression: the weights of four inputs from a column on, or null without. */
  readonly weight: ((column: string) => string) | null
  /** An expression: the scales of four inputs from `column` on, or null where they are the same for all. */
  readonly groupScales: ((row: number) => string) | null
  /** When a thread has brought its inputs, before the barrier. */
  readonly collect: string
  /** After all inputs. */
  readonly after: string
  /** What each row's sums are multiplied with, or null where the inputs are by groupScales. */
  readonly scales: readonly string[] | null
}

/** `isOnce`: all inputs are brought at once. */
export function normCode({ eps, groupWidth, weight }: SourceNorm, source: Source, { nIn, rows, threads, device, isOnce }: {
  nIn: number; rows: number; threads: number; device: DeviceFacts; isOnce: boolean
}): NormCode {
  // Without subgroups a sum takes much of the least workgroup memory: the rows' take turns.
  const isShared = device.subgroup === null
  const sum = workgroupSum(threads, device.subgroup, { count: isShared ? 1 : rows, lane: 'thread' })
  const sumOf = (row: number): string => sum.of(`square${row}`, isShared ? 0 : row)
  const next = isShared ? 'workgroupBarrier();' : ''
  const weightAt = weight && ((column: string): string => weight(`${column} / 4u`))
  const scaleOf = (total: string): string => `1.0 / sqrt(${total} / ${float(groupWidth)} + ${float(eps)})`
  if (groupWidth === nIn) {
    // With subgroups the barrier that the inputs need is enough.
    const collects = isOnce && sum.collect !== null
    return {
      ...sum,
      before: unroll(rows, (row) => `var square${row} = 0.0;`),
      weight: weightAt, groupScales: null,
      collect: collects ? unroll(rows, (row) => sum.collect?.(`square${row}`, row) ?? '') : '',
      after: unroll(rows, (row) => (collects ? `let scale${row} = ${scaleOf(sum.collected(row))};` : `let scale${row} = ${scaleOf(sumOf(row))}; ${next}`)),
      scales: Array.from({ length: rows }, (_, row) => `scale${row}`)
    }
  }
  const nGroups = nIn / groupWidth
  return {
    ...sum,
    code: `${sum.code}
var<workgroup> scales: array<f32, ${rows * nGroups}>;`,
    bytes: sum.bytes + 4 * rows * nGroups,
    before: `for (var group = 0u; group < ${nGroups}u; group++) {
    ${unroll(rows, (row) => `var square${row} = 0.0;
    ${rows === 1 ? '' : `if (firstRow + ${row}u < nRows) `}{
      for (var i = thread; i < ${groupWidth}u; i += ${threads}u) {
        let value = ${source.value(`(firstRow + ${row}u)`, `(group * ${groupWidth}u + i)`)};
        square${row} = fma(value, value, square${row});
      }
    }
    let scale${row} = ${scaleOf(sumOf(row))};
    if (thread == 0u) { scales[${row * nGroups}u + group] = scale${row}; }
    ${next}`)}
    workgroupBarrier();
  }`,
    weight: weightAt,
    groupScales: (row) => `vec4<f32>(${[0, 1, 2, 3].map((i) => `scales[${row * nGroups}u + min((column + ${i}u) / ${groupWidth}u, ${nGroups - 1}u)]`).join(', ')})`,
    collect: '',
    after: '',
    scales: null
  }
}
