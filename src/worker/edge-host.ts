/** Edge functions: one thread alone. */

import { UnsupportedError } from '../errors.ts'
import type { StartEngine } from './host.ts'

export const startEngine: StartEngine = () => {
  throw new UnsupportedError({ place: 'worker', expected: 'a host that starts workers (here: Mamba.load)', got: 'an edge function' })
}
