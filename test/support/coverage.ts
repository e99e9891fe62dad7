/** Counting coverage slows loops down: floors of speed are so many times lower then. */
export const COVERAGE_COST = process.env['COVERAGE'] === undefined ? 1 : 20
