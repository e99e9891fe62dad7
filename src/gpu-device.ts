/** What a caller gives as a GPUDevice. */

/** By its form: it may be of another window. */
export function isDevice(value: object): value is GPUDevice {
  return 'createComputePipelineAsync' in value && 'queue' in value && 'limits' in value
}
