import type { Append } from '../../domain/event-store.js'

const oid = { int4: 23, text: 25, uuid: 2950 } as const

/** Columns keep their memory from batch to batch, but not that of an unusually large one. */
const keptBytesMax = 1 << 20
const headerBytes = 20

/**
 * Writes a batch as arrays in Postgres' binary format, into memory that is used again for the next.
 * Against array literals this saves the escaping here and the unescaping there (JSON is full of quotes).
 */
export class BatchEncoder {
  readonly #streams = new Column(oid.text)
  readonly #expected = new Column(oid.int4)
  readonly #revisions = new Column(oid.int4)
  readonly #ids = new Column(oid.uuid)
  readonly #types = new Column(oid.text)
  readonly #data = new Column(oid.text)
  readonly #metadata = new Column(oid.text)
  readonly #columns = [this.#streams, this.#expected, this.#revisions, this.#ids, this.#types, this.#data, this.#metadata]

  /** The first seven arguments of `append_batch`; valid until the next call. */
  encode(appends: readonly Append[]): Buffer[] {
    for (const column of this.#columns) column.reset()
    for (const { expectedRevision, events } of appends) {
      for (const event of events) {
        this.#streams.text(event.stream)
        this.#expected.int(expectedRevision)
        this.#revisions.int(event.revision)
        this.#ids.uuid(event.id)
        this.#types.text(event.type)
        this.#data.text(event.dataJson)
        this.#metadata.text(JSON.stringify(event.metadata))
      }
    }
    return this.#columns.map((column) => column.finish())
  }
}

/** A one-dimensional array without nulls: dimensions, null flag, element type, length, lower bound, then each element with its length before it. */
class Column {
  readonly #elementOid: number
  #bytes = Buffer.allocUnsafe(16_384)
  #end = headerBytes
  #count = 0

  constructor(elementOid: number) {
    this.#elementOid = elementOid
  }

  reset(): void {
    if (this.#bytes.length > keptBytesMax) this.#bytes = Buffer.allocUnsafe(keptBytesMax)
    this.#end = headerBytes
    this.#count = 0
  }

  text(value: string): void {
    this.#reserve(4 + value.length * 3)
    const start = this.#end + 4
    const length = this.#bytes.write(value, start)
    this.#int32(length)
    this.#end = start + length
  }

  int(value: number): void {
    this.#reserve(8)
    this.#int32(4)
    this.#int32(value)
  }

  uuid(value: string): void {
    this.#reserve(20)
    this.#int32(16)
    for (let i = 0; i < 36; i += 2) {
      if (value.charCodeAt(i) === 45) i++
      this.#bytes[this.#end++] = (hexDigit(value.charCodeAt(i)) << 4) | hexDigit(value.charCodeAt(i + 1))
    }
  }

  finish(): Buffer {
    const end = this.#end
    this.#end = 0
    for (const field of [1, 0, this.#elementOid, this.#count, 1]) this.#int32(field)
    return this.#bytes.subarray(0, end)
  }

  #int32(value: number): void {
    const bytes = this.#bytes
    bytes[this.#end++] = value >>> 24
    bytes[this.#end++] = value >>> 16
    bytes[this.#end++] = value >>> 8
    bytes[this.#end++] = value
  }

  /** Room for one more element of at most so many bytes. */
  #reserve(bytes: number): void {
    this.#count++
    if (this.#end + bytes <= this.#bytes.length) return
    const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#end + bytes))
    this.#bytes.copy(larger, 0, 0, this.#end)
    this.#bytes = larger
  }
}

function hexDigit(code: number): number {
  return code < 58 ? code - 48 : code - 87
}
