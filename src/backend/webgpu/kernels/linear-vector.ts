/**
 * Matrix × few rows, the work of a token: as fast as the weights can be read. A team of threads has a few outputs, and each of its threads every
 * so many units of 16 bytes of their rows, neighbouring threads neighbouring units. The inputs wait in workgroup memory, in the order in which
 * the threads ask for them: unit u's j-th four at [j · stride + u], so that a subgroup reads them without conflicts. Weights are read once for all rows.
 * The order of a sum depends on the shape and the device alone: a thread's units in sequence, then the threads of a team.
 *
 * A dispatch waits for memory more often than it computes: what does not depend on what is under way is asked for meanwhile, the inputs before the weights.
 * Inputs may be made on the way (Source, linear-inputs.ts).
 */

import type { DeviceFacts, Kernel } from '../kernel.ts'
import { addDigits, digitsCode, digitsOf, sumsDigits } from './input-digits.ts'
import { inputsPadding, normCode, stageRow, type Staging } from './linear-inputs.ts'
import { type Product, type Source, unroll, WORKGROUP_INDEX } from './product.ts'
import { type Sums, sumsBytes, sumsCode, sumsEnables, sumsParameter, sumTeams } from './team-sums.ts'

export interface VectorPlan {
  /** Rows of x at a time; with one there are as many workgroups as rows. */
  readonly rows: number
  /** Threads that share an output: a power of two. */
  readonly teamThreads: number
  readonly teams: number
  /** Outputs of a team. */
  readonly outputs: number
  /** Units of a row that a thread loads before it uses them. */
  readonly unroll: number
  /** Loads the next ones meanwhile, which takes registers. The first ones are loaded with the inputs in any case. */
  readonly ahead: boolean
}

/** Outputs of a workgroup. */
export function vectorOutputs({ teams, outputs }: VectorPlan): number {
  return teams * outputs
}

/** For inputs: more leaves room for fewer workgroups on a core. */
const MAX_CHUNK_BYTES = 2 ** 15

export function vectorKernel(product: Product, plan: VectorPlan, device: DeviceFacts): Pick<Kernel, 'code' | 'enables'> {
  const { reader, nIn, nOut } = product
  const { rows, teamThreads, teams, outputs } = plan
  const threads = teamThreads * teams
  const quads = reader.unitElements / 4
  const sums: Sums = { count: rows * outputs, teamThreads, threads }
  const source: Source = product.source ?? { value: (row, column) => `activations[${product.x(row)} + ${column}]`, norm: null }
  const step = teamThreads * plan.unroll
  // As many units for every thread of a team, but no more than the row has.
  const room = device.maxWorkgroupStorageBytes - sumsBytes(sums, device) - (source.norm ? normCode(source.norm, source, { nIn, rows, threads, device, isOnce: false }).bytes : 0) - 16 * rows * quads * inputsPadding(quads)
  const fitting = Math.floor(Math.min(MAX_CHUNK_BYTES, room) / (16 * rows * quads))
  const most = fitting < teamThreads ? fitting : fitting - (fitting % teamThreads)
  const chunk = Math.min(most, Math.ceil(reader.nUnits / teamThreads) * teamThreads)
  const norm = source.norm && normCode(source.norm, source, { nIn, rows, threads, device, isOnce: reader.nUnits <= chunk })
  const nSteps = Math.ceil(chunk / step)
  const digits = sumsDigits(reader, rows, device) ? digitsOf(reader, chunk) : null
  const staging: Staging = { rows, threads, quads, chunk, stride: chunk + inputsPadding(quads), digits }
  const units = (line: (k: number, o: number) => string): string => unroll(plan.unroll, (k) => unroll(outputs, (o) => line(k, o)))
  const isThere = (at: string): string => (isWhole ? 'true' : `${at} < ${chunk}u && chunk + ${at} < ${reader.nUnits}u`)
  const load = (first: string): string => unroll(plan.unroll, (k) => `if (${isThere(`${first} + ${k * teamThreads}u`)}) {
        let unit = chunk + ${first} + ${k * teamThreads}u;
        ${unroll(outputs, (o) => `unit${k}_${o} = weightUnit(weightRow${o}, unit);${reader.hasFactors ? ` factors${k}_${o} = weightFactors(weightRow${o}, unit);` : ''}`)}
      }`)
  const isWhole = reader.nUnits % chunk === 0 && chunk % step === 0
  const loadNext = `if (first + ${step}u < ${nSteps * step}u) {
        ${load(`(first + ${step}u)`)}
      }`
  const stages = Array.from({ length: rows }, (_, row) => stageRow(row, staging, { source, nIn, isWhole, norm }))
  const own = (what: 'find' | 'load'): string => {
    const statement = product.owner?.[what]('ownRow', 'ownOutput') ?? ''
    return statement === '' ? '' : `if (chunk == 0u && isOwner) { ${statement} }`
  }
  const scaled = norm?.scales ? `total * ${chosen('ownRow - firstRow', norm.scales)}` : 'total'
  const code = `${product.code}
${digits ? digitsCode(digits) : `var<workgroup> inputs: array<vec4<f32>, ${rows * quads * staging.stride}>;`}
${sumsCode(sums, device)}
${norm?.code ?? ''}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) thread: u32${norm?.parameters || sumsParameter(sums, device)}) {
  let team = thread / ${teamThreads}u;
  let lane = thread % ${teamThreads}u;
  let firstOutput = (${WORKGROUP_INDEX}) * ${teams * outputs}u + team * ${outputs}u;
  ${product.setup}
  ${rows === 1 ? '' : `let nRows = ${product.nRows};`}
  let firstRow = ${product.rowGroup} * ${rows}u;
  ${unroll(outputs, (o) => `let weightRow${o} = min(${product.weightRow(`min(firstOutput + ${o}u, ${nOut - 1}u)`)}, ${product.nWeightRows - 1}u);`)}
  ${unroll(sums.count, (i) => `var sum${i} = 0.0;`)}
  ${units((k, o) => `var unit${k}_${o} = vec4<u32>();${reader.hasFactors ? ` var factors${k}_${o} = vec2<f32>();` : ''}`)}
  let ownRow = firstRow + lane / ${outputs}u;
  let ownOutput = firstOutput + lane % ${outputs}u;
  let isOwner = lane < ${sums.count}u && ${rows === 1 ? '' : 'ownRow < nRows && '}ownOutput < ${nOut}u && ${product.weightRow('ownOutput')} < ${product.nWeightRows}u;
  ${product.owner?.declare ?? ''}
  ${norm?.before ?? ''}
  for (var chunk = 0u; chunk < ${reader.nUnits}u; chunk += ${chunk}u) {
    ${stages.map(({ fetch }) => fetch).join('\n')}
    ${load('lane')}
    ${own('find')}
    ${reader.nUnits > chunk ? 'workgroupBarrier();' : ''}
    ${stages.map(({ put }) => put).join('\n')}
    ${norm?.collect ?? ''}
    workgroupBarrier();
    ${own('load')}
    for (var first = lane; first < ${nSteps * step}u; first += ${step}u) {
      ${plan.ahead ? `${units((k, o) => `let now${k}_${o} = unit${k}_${o};${reader.hasFactors ? ` let nowFactors${k}_${o} = factors${k}_${o};` : ''}`)}
      ${loadNext}` : ''}
      ${unroll(plan.unroll, (k) => `if (${isThere(`first + ${k * teamThreads}u`)}) {
        let at = first + ${k * teamThreads}u;
        ${unitProducts(product, plan, k, staging)}
      }`)}
      ${plan.ahead ? '' : loadNext}
    }
  }
  ${norm?.after ?? ''}
  ${sumTeams(sums, device)}
  if (isOwner) {
    ${(product.owner ?? product).store('ownRow', 'ownOutput', scaled)}
  }
}
`
  return { code, enables: [...new Set([...(norm?.enables ?? []), ...sumsEnables(sums, device), ...(digits ? ['subgroups' as const] : [])])] }
}

/** The i-th of some variables. */
function chosen(i: string, variables: readonly string[]): string {
  return variables.slice(1).reduce((code, variable, k) => `select(${code}, ${variable}, ${i} == ${k + 1}u)`, variables[0])
}

/** Adds the products of the k-th of the units that were loaded. */
function unitProducts({ reader }: Product, { rows, outputs, ahead }: VectorPlan, k: number, { stride, digits }: Staging): string {
  const quads = reader.unitElements / 4
  const unit = (o: number): string => `${ahead ? 'now' : 'unit'}${k}_${o}`
  const factors = (o: number): string => `${ahead ? 'nowFactors' : 'factors'}${k}_${o}`
  if (digits) return addDigits(reader, digits, Array.from({ length: outputs }, (_, o) => ({ unit: unit(o), factors: factors(o) })))
  const products = unroll(quads, (j) => `
        ${unroll(outputs, (o) => `let w${j}_${o} = ${reader.quad(unit(o), j)};`)}
        ${unroll(rows, (row) => `{
          let x = inputs[${(row * quads + j) * stride}u + at];
          ${reader.hasMinimum ? `plain${row} += x.x + x.y + x.z + x.w;` : ''}
          ${unroll(outputs, (o) => {
            const sum = `${reader.hasFactors ? 'part' : 'sum'}${row * outputs + o}`
            return `${sum} = fma(w${j}_${o}.w, x.w, fma(w${j}_${o}.z, x.z, fma(w${j}_${o}.y, x.y, fma(w${j}_${o}.x, x.x, ${sum}))));`
          })}
        }`)}`)
  if (!reader.hasFactors) return products
  return `
        ${unroll(rows * outputs, (i) => `var part${i} = 0.0;`)}
        ${reader.hasMinimum ? unroll(rows, (row) => `var plain${row} = 0.0;`) : ''}
        ${products}
        ${unroll(rows * outputs, (i) => {
          const [row, o] = [Math.floor(i / outputs), i % outputs]
          const sum = `fma(${factors(o)}.x, part${i}, sum${i})`
          return `sum${i} = ${reader.hasMinimum ? `fma(${factors(o)}.y, plain${row}, ${sum})` : sum};`
        })}`
}
