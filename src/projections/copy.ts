/**
 * COPY in Postgres' binary form: rows go into their table many at a time, without a plan, and with less WAL
 * than an INSERT of arrays. For rows that are new for certain: there is no ON CONFLICT.
 */
import { CompiledQuery, type Kysely } from 'kysely'
import pg from 'pg'

const NULL_LENGTH = -1
const TWO_TO_32 = 2 ** 32
const FIRST_BYTES = 1_024

/** Signature, flags, length of the header's extension. */
const header = Buffer.concat([Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1'), Buffer.alloc(8)])
/** A row of -1 fields. */
const trailer = Buffer.from([0xff, 0xff])

/** Rows, encoded as they are added, so that nothing else has to be kept of them. */
export class CopyRows {
  #buffer = Buffer.allocUnsafe(FIRST_BYTES)
  #end = 0

  get bytes(): Buffer {
    return this.#buffer.subarray(0, this.#end)
  }

  /** Begins a row; its fields follow. */
  row(fields: number): this {
    this.#reserve(2)
    this.#end = this.#buffer.writeInt16BE(fields, this.#end)
    return this
  }

  text(value: string | null | undefined): this {
    if (value === null || value === undefined) return this.#length(NULL_LENGTH)
    // A UTF-16 unit is at most three bytes.
    this.#reserve(4 + 3 * value.length)
    const length = this.#buffer.write(value, this.#end + 4)
    this.#length(length)
    this.#end += length
    return this
  }

  integer(value: number | undefined): this {
    if (value === undefined) return this.#length(NULL_LENGTH)
    this.#length(4)
    this.#reserve(4)
    this.#end = this.#buffer.writeInt32BE(value, this.#end)
    return this
  }

  /** An integer that a number holds exactly. */
  bigint(value: number): this {
    this.#length(8)
    this.#reserve(8)
    const high = Math.floor(value / TWO_TO_32)
    this.#end = this.#buffer.writeInt32BE(high, this.#end)
    this.#end = this.#buffer.writeUInt32BE(value - high * TWO_TO_32, this.#end)
    return this
  }

  #length(length: number): this {
    this.#reserve(4)
    this.#end = this.#buffer.writeInt32BE(length, this.#end)
    return this
  }

  #reserve(bytes: number): void {
    if (this.#end + bytes <= this.#buffer.length) return
    const larger = Buffer.allocUnsafe(2 * (this.#end + bytes))
    this.#buffer.copy(larger, 0, 0, this.#end)
    this.#buffer = larger
  }
}

/** `columns`: those of the fields, in their order. */
export async function copyRows(db: Kysely<unknown>, table: string, columns: readonly string[], rows: readonly CopyRows[]): Promise<void> {
  const data = Buffer.concat([header, ...rows.map(({ bytes }) => bytes), trailer])
  await db.executeQuery(CompiledQuery.raw(`${COPY}${table} (${columns.join(', ')}) FROM STDIN (FORMAT binary)`, [data]))
}

const COPY = 'COPY '

/** Kysely knows queries alone: the one parameter of a COPY is its rows. */
export const isCopy = (statement: string): boolean => statement.startsWith(COPY)

/** Runs it on a connection. */
export function copyIn(client: pg.ClientBase, statement: string, data: Buffer): Promise<pg.QueryResult> {
  return new Promise((resolve, reject) => {
    client.query(new CopyIn(statement, data, (error, result) => (error ? reject(error) : resolve(result))))
  })
}

interface CopyConnection {
  sendCopyFromChunk(chunk: Buffer): void
  endCopyFrom(): void
}

/** All that is to be sent is here: a stream, as pg-copy-streams has it, would only take it to pieces. */
class CopyIn extends pg.Query {
  readonly #data: Buffer

  constructor(statement: string, data: Buffer, done: (error: Error | undefined, result: pg.QueryResult) => void) {
    super(statement, done)
    this.#data = data
  }

  /** Called by the client when the server is ready for the rows. */
  handleCopyInResponse(connection: CopyConnection): void {
    connection.sendCopyFromChunk(this.#data)
    connection.endCopyFrom()
  }
}
