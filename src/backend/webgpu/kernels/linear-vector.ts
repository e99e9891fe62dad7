/**
 * Matrix × few rows, the work of a token: as fast as the weights can be read. A team of threads has a few outputs, and each of its threads every
 * so many units of 16 bytes of their rows, neighbouring threads neighbouring units. The inputs wait in workgroup memory, in the order in which
 * the threads ask for them: unit u's j-th four at [j · chunk + u], so that a subgroup reads them without conflicts. Weights are read once for all rows.
 * The order of a sum depends on the shape and the device alone: a thread's units in sequence, then the threads of a team.
 */

import type { DeviceFacts, Kernel } from '../kernel.ts'
import { type Product, unroll, WORKGROUP_INDEX } from './product.ts'
import { type Sums, sumsBytes, sumsCode, sumsEnables, sumsParameter, sumTeams } from './team-sums.ts'

export interface VectorPlan {
  /** Rows of x at a time. */
  readonly rows: number
  /** Threads that share an output: a power of two. */
  readonly teamThreads: number
  readonly teams: number
  /** Outputs of a team. */
  readonly outputs: number
  /** Units of a row that a thread loads before it uses them. */
  readonly unroll: number
  /** Loads the next ones meanwhile, and the first ones before the inputs. */
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
  const step = teamThreads * plan.unroll
  // As many units for every thread of a team, but no more than the row has.
  const fitting = Math.floor(Math.min(MAX_CHUNK_BYTES, device.maxWorkgroupStorageBytes - sumsBytes(sums, device)) / (16 * rows * quads))
  const most = fitting < teamThreads ? fitting : fitting - (fitting % teamThreads)
  const chunk = Math.min(most, Math.ceil(reader.nUnits / teamThreads) * teamThreads)
  const nSteps = Math.ceil(chunk / step)
  const units = (line: (k: number, o: number) => string): string => unroll(plan.unroll, (k) => unroll(outputs, (o) => line(k, o)))
  const isThere = (at: string): string => (isWhole ? 'true' : `${at} < ${chunk}u && chunk + ${at} < ${reader.nUnits}u`)
  const load = (first: string): string => unroll(plan.unroll, (k) => `if (${isThere(`${first} + ${k * teamThreads}u`)}) {
        let unit = chunk + ${first} + ${k * teamThreads}u;
        ${unroll(outputs, (o) => `unit${k}_${o} = weightUnit(weightRow${o}, unit);${reader.hasFactors ? ` factors${k}_${o} = weightFactors(weightRow${o}, unit);` : ''}`)}
      }`)
  const isWhole = reader.nUnits % chunk === 0 && chunk % step === 0
  const code = `${product.code}
var<workgroup> inputs: array<vec4<f32>, ${rows * quads * chunk}>;
${sumsCode(sums, device)}

fn inputQuad(at: u32, column: u32) -> vec4<f32> {
  ${nIn % 4 === 0 ? '' : `if (column + 3u >= ${nIn}u) {
    return vec4<f32>(${[0, 1, 2, 3].map((i) => `select(0.0, activations[min(at + ${i}u, at - column + ${nIn - 1}u)], column + ${i}u < ${nIn}u)`).join(', ')});
  }`}
  return vec4<f32>(activations[at], activations[at + 1u], activations[at + 2u], activations[at + 3u]);
}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(num_workgroups) workgroups: vec3<u32>, @builtin(local_invocation_index) thread: u32${sumsParameter(sums, device)}) {
  let team = thread / ${teamThreads}u;
  let lane = thread % ${teamThreads}u;
  let firstOutput = (${WORKGROUP_INDEX}) * ${teams * outputs}u + team * ${outputs}u;
  ${product.setup}
  let nRows = ${product.nRows};
  let firstRow = ${product.rowGroup} * ${rows}u;
  ${unroll(outputs, (o) => `let weightRow${o} = min(${product.weightRow(`min(firstOutput + ${o}u, ${nOut - 1}u)`)}, ${product.nWeightRows - 1}u);`)}
  ${unroll(sums.count, (i) => `var sum${i} = 0.0;`)}
  ${units((k, o) => `var unit${k}_${o} = vec4<u32>();${reader.hasFactors ? ` var factors${k}_${o} = vec2<f32>();` : ''}`)}
  for (var chunk = 0u; chunk < ${reader.nUnits}u; chunk += ${chunk}u) {
    ${plan.ahead ? load('lane') : ''}
    ${reader.nUnits > chunk ? 'workgroupBarrier();' : ''}
    for (var i = thread; i < ${rows * quads * chunk}u; i += ${threads}u) {
      let inGroup = i / ${quads * chunk}u;
      let row = firstRow + inGroup;
      let quad = i % ${quads * chunk}u;
      let column = chunk * ${reader.unitElements}u + 4u * quad;
      var value = vec4<f32>();
      if (row < nRows && column < ${nIn}u) { value = inputQuad(${product.x('row')} + column, column); }
      inputs[(inGroup * ${quads}u + quad % ${quads}u) * ${chunk}u + quad / ${quads}u] = value;
    }
    workgroupBarrier();
    for (var first = lane; first < ${nSteps * step}u; first += ${step}u) {
      ${plan.ahead
        ? `${units((k, o) => `let now${k}_${o} = unit${k}_${o};${reader.hasFactors ? ` let nowFactors${k}_${o} = factors${k}_${o};` : ''}`)}
      if (first + ${step}u < ${nSteps * step}u) {
        ${load(`(first + ${step}u)`)}
      }`
        : `${load('first')}
      ${units((k, o) => `let now${k}_${o} = unit${k}_${o};${reader.hasFactors ? ` let nowFactors${k}_${o} = factors${k}_${o};` : ''}`)}`}
      ${unroll(plan.unroll, (k) => `if (${isThere(`first + ${k * teamThreads}u`)}) {
        let at = first + ${k * teamThreads}u;
        ${unitProducts(product, plan, { k, chunk })}
      }`)}
    }
  }
  ${sumTeams(sums, device)}
  if (lane < ${sums.count}u) {
    let row = firstRow + lane / ${outputs}u;
    let output = firstOutput + lane % ${outputs}u;
    if (row < nRows && output < ${nOut}u && ${product.weightRow('output')} < ${product.nWeightRows}u) {
      ${product.store('row', 'output', 'total')}
    }
  }
}
`
  return { code, enables: sumsEnables(sums, device) }
}

/** Adds the products of the k-th of the units that were loaded. */
function unitProducts({ reader }: Product, { rows, outputs }: VectorPlan, { k, chunk }: { k: number; chunk: number }): string {
  const quads = reader.unitElements / 4
  const products = unroll(quads, (j) => `
        ${unroll(outputs, (o) => `let w${j}_${o} = ${reader.quad(`now${k}_${o}`, j)};`)}
        ${unroll(rows, (row) => `{
          let x = inputs[${(row * quads + j) * chunk}u + at];
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
          const sum = `fma(nowFactors${k}_${o}.x, part${i}, sum${i})`
          return `sum${i} = ${reader.hasMinimum ? `fma(nowFactors${k}_${o}.y, plain${row}, ${sum})` : sum};`
        })}`
}
