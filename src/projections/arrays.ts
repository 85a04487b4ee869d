/**
 * Columns as Postgres arrays in its binary form, for `unnest`. Half the work of text on both sides:
 * nothing is quoted, nothing parsed.
 */

const TEXT = 25
const INTEGER = 23
const BIGINT = 20
const BOOLEAN = 16
const HEADER_BYTES = 20
const NULL_LENGTH = -1
const TWO_TO_32 = 2 ** 32

type Pick<Row, Value> = (row: Row) => Value | null | undefined

function header(elementType: number, count: number, bytes: number): Buffer {
  const buffer = Buffer.allocUnsafe(HEADER_BYTES + bytes)
  // Dimensions, "may hold nulls", the type of the elements, how many, the first index.
  const fields = [1, 1, elementType, count, 1]
  fields.forEach((field, i) => buffer.writeInt32BE(field, 4 * i))
  return buffer
}

/** `text[]` */
export function texts<Row>(rows: readonly Row[], pick: Pick<Row, string>): Buffer {
  let buffer = header(TEXT, rows.length, 32 * rows.length)
  let end = HEADER_BYTES
  for (const row of rows) {
    const value = pick(row)
    // A UTF-16 unit is at most three bytes.
    const most = value === null || value === undefined ? 4 : 4 + 3 * value.length
    if (end + most > buffer.length) buffer = grown(buffer, end, end + most)
    const length = value === null || value === undefined ? NULL_LENGTH : buffer.write(value, end + 4)
    buffer.writeInt32BE(length, end)
    end += 4 + Math.max(0, length)
  }
  return buffer.subarray(0, end)
}

function grown(buffer: Buffer, end: number, needed: number): Buffer {
  const larger = Buffer.allocUnsafe(2 * needed)
  buffer.copy(larger, 0, 0, end)
  return larger
}

function fixed<Row, Value>(
  rows: readonly Row[],
  pick: Pick<Row, Value>,
  type: number,
  bytes: number,
  write: (buffer: Buffer, value: Value, at: number) => void,
): Buffer {
  const buffer = header(type, rows.length, rows.length * (4 + bytes))
  let end = HEADER_BYTES
  for (const row of rows) {
    const value = pick(row)
    const isNull = value === null || value === undefined
    buffer.writeInt32BE(isNull ? NULL_LENGTH : bytes, end)
    end += 4
    if (isNull) continue
    write(buffer, value, end)
    end += bytes
  }
  return buffer.subarray(0, end)
}

/** `integer[]` */
export const integers = <Row>(rows: readonly Row[], pick: Pick<Row, number>) =>
  fixed(rows, pick, INTEGER, 4, (buffer, value, at) => buffer.writeInt32BE(value, at))

/** `bigint[]` of integers that a number holds exactly. */
export const bigints = <Row>(rows: readonly Row[], pick: Pick<Row, number>) =>
  fixed(rows, pick, BIGINT, 8, (buffer, value, at) => {
    const high = Math.floor(value / TWO_TO_32)
    buffer.writeInt32BE(high, at)
    buffer.writeUInt32BE(value - high * TWO_TO_32, at + 4)
  })

/** `boolean[]` */
export const booleans = <Row>(rows: readonly Row[], pick: Pick<Row, boolean>) =>
  fixed(rows, pick, BOOLEAN, 1, (buffer, value, at) => buffer.writeUInt8(value ? 1 : 0, at))
