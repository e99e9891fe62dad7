/** An ONNX file of one op, y = x W: (nRows, nIn) by (nIn, nOut), W in the file. As much of protocol buffers as that takes. */

export interface MatrixShape {
  readonly nRows: number
  readonly nIn: number
  readonly nOut: number
}

/** W is (nIn, nOut), row-major. */
export function matmulModel({ nRows, nIn, nOut }: MatrixShape, W: Float32Array): Uint8Array {
  const weight = message([
    ...[nIn, nOut].map((length) => integer(1, length)), integer(2, FLOAT), text(8, 'W'),
    bytes(9, new Uint8Array(W.buffer, W.byteOffset, W.byteLength))
  ])
  const node = message([text(1, 'x'), text(1, 'W'), text(2, 'y'), text(4, 'MatMul')])
  const graph = message([bytes(1, node), text(2, 'matmul'), bytes(5, weight), bytes(11, valueInfo('x', [nRows, nIn])), bytes(12, valueInfo('y', [nRows, nOut]))])
  return message([integer(1, IR_VERSION), bytes(7, graph), bytes(8, message([integer(2, OPSET)]))])
}

/** TensorProto.DataType */
const FLOAT = 1
const IR_VERSION = 8
const OPSET = 17

function valueInfo(name: string, shape: readonly number[]): Uint8Array {
  const dimensions = message(shape.map((length) => bytes(1, message([integer(1, length)]))))
  const tensor = message([integer(1, FLOAT), bytes(2, dimensions)])
  return message([text(1, name), bytes(2, message([bytes(1, tensor)]))])
}

function message(fields: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(fields.reduce((sum, { byteLength }) => sum + byteLength, 0))
  let offset = 0
  for (const field of fields) {
    whole.set(field, offset)
    offset += field.byteLength
  }
  return whole
}

function integer(field: number, value: number): Uint8Array {
  return Uint8Array.from([...varint(8 * field), ...varint(value)])
}

function bytes(field: number, value: Uint8Array): Uint8Array {
  return message([Uint8Array.from([...varint(8 * field + 2), ...varint(value.byteLength)]), value])
}

function text(field: number, value: string): Uint8Array {
  return bytes(field, new TextEncoder().encode(value))
}

function varint(value: number): number[] {
  const digits = [value % 128]
  for (let rest = Math.floor(value / 128); rest > 0; rest = Math.floor(rest / 128)) {
    digits[digits.length - 1] += 128
    digits.push(rest % 128)
  }
  return digits
}
