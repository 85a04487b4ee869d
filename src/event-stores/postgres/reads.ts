import type pg from 'pg'
import {
  type LogPage,
  type Position,
  READ_BYTES_MAX,
  type ReadAllOptions,
  type ReadStreamOptions,
  RecordedEvent,
  StoreUnavailable,
  type StreamPage,
} from '../../domain/event-store.js'
import { hashInMetadata, positionOf } from '../../domain/position.js'
import { withDeadline } from '../../domain/waits.js'
import { Gatherer } from '../../gatherer.js'
import { reading } from './errors.js'
import { numberOf, toPlace, zeroPosition } from './positions.js'
import { schemaName } from './schema.js'

type EventRow = [
  position: string,
  stream: string,
  revision: number,
  id: string,
  type: string,
  data: string,
  metadata: string,
  isLast: boolean,
]

/** A place of the log; nulls: the log is empty. */
export type PlaceRow = [position: string | null, metadata: string | null]

/** How many events one filtered read looks at: where the filter drops them all, the page still comes soon. */
const scannedEventsMax = 50_000

const columns = 'e.position, e.stream, e.revision, e.id, e.type, e.data, e.metadata, e.is_last'

/**
 * The rows of a page, cut by bytes in the database. One row more than may be given is looked at, so that the last row knows whether
 * another follows. octet_length() takes the size from a value's header: of the rows that are dropped no large value is fetched.
 */
const cut = (rows: string, order: string, size: string, bytes: string) => `
SELECT * FROM (
  SELECT found.*, row_number() OVER ordered AS nr, lead(1) OVER ordered IS NULL AS is_last,
    sum(octet_length(data) + octet_length(metadata)) OVER ordered AS bytes
  FROM (${rows} ORDER BY ${order} LIMIT ${size}::bigint + 1) found
  WINDOW ordered AS (ORDER BY ${order} ROWS UNBOUNDED PRECEDING)
) measured WHERE nr <= ${size}::bigint AND (nr = 1 OR bytes <= ${bytes}::bigint)`

const page = `
SELECT ${columns} FROM (${cut(`SELECT * FROM ${schemaName}.events WHERE position > $1`, 'position', '$2', '$3')}) e ORDER BY e.position`

/*
 * The head and the events come from one snapshot. The range is over positions, and they are dense, so it bounds
 * the work. ^@ (starts with) against an array can't tempt the planner to the index by stream: that would sort.
 * `last` is the last event that was looked at, whether the filter lets it through or not.
 */
const filteredPage = `
SELECT h.position, last.position, last.metadata, ${columns} FROM ${schemaName}.log_head h
LEFT JOIN ${schemaName}.events last ON last.position = least(h.position, $1::bigint + ${scannedEventsMax})
LEFT JOIN LATERAL (${cut(
  `SELECT * FROM ${schemaName}.events WHERE position > $1 AND position <= $1::bigint + ${scannedEventsMax} AND stream ^@ ANY ($4::text[])`,
  'position',
  '$2',
  '$3',
)}) e ON true ORDER BY e.position`

/** Pages of many streams: each by the index, in the order in which they were asked for. */
const pages = (condition: string, order: string) => `
SELECT asked.n, ${columns}
FROM unnest($1::text[], $2::integer[], $3::integer[], $4::bigint[]) WITH ORDINALITY AS asked (stream, start, size, bytes, n)
CROSS JOIN LATERAL (${cut(
  `SELECT * FROM ${schemaName}.events WHERE stream = asked.stream AND revision ${condition} asked.start`,
  `revision ${order}`,
  'asked.size',
  'asked.bytes',
)}) e ORDER BY asked.n, e.revision ${order}`
const forwards = { name: 'read_forwards', text: pages('>=', 'ASC') }
const backwards = { name: 'read_backwards', text: pages('<=', 'DESC') }
const head = `
SELECT h.position, e.metadata FROM ${schemaName}.log_head h LEFT JOIN ${schemaName}.events e ON e.position = h.position`
const places = `SELECT position, metadata FROM ${schemaName}.events WHERE position = ANY($1::bigint[])`

/** A client waits for these; a feed and a replay wait for pages, which may be long. The wait for a connection is included. */
const readDeadlineMs = 5000
const pageDeadlineMs = 15_000

const revisionMax = 2 ** 31 - 1

interface AskedPage {
  stream: string
  from: number
  limit: number
  bytesMax: number
}

/** What is read from the database. All throw StoreUnavailable when it can't be read now. */
export class Reads {
  readonly #pool: pg.Pool
  readonly #forwards = new Gatherer((asked: readonly AskedPage[]) => this.#pages(forwards, asked), 2, bytesOf)
  readonly #backwards = new Gatherer((asked: readonly AskedPage[]) => this.#pages(backwards, asked), 2, bytesOf)
  readonly #places = new Gatherer((asked: readonly number[]) => this.#positionsAt(asked))
  #isEnded = false

  constructor(pool: pg.Pool) {
    this.#pool = pool
  }

  /** From now on nothing is given: what the database has is not what was read before. */
  end(): void {
    this.#isEnded = true
  }

  async head(): Promise<Position> {
    const [row] = await this.#rows<PlaceRow>('log_head', head, [], readDeadlineMs)
    return toPosition(row!)
  }

  /** The position of the n-th event; undefined where the log does not reach so far. Calls of one turn are asked together. */
  positionAt(n: number): Promise<Position | undefined> {
    return this.#places.find(n)
  }

  async #positionsAt(asked: readonly number[]): Promise<(Position | undefined)[]> {
    const rows = await this.#rows<[string, string]>('places', places, [asked], readDeadlineMs)
    const found = new Map(rows.map((row) => [Number(row[0]), toPosition(row)]))
    return asked.map((n) => found.get(n))
  }

  stream(stream: string, { direction = 'forwards', from, limit, bytesMax = READ_BYTES_MAX }: ReadStreamOptions): Promise<StreamPage> {
    const found =
      direction === 'forwards'
        ? this.#forwards.find({ stream, from: Math.max(from ?? 0, 0), limit, bytesMax })
        : this.#backwards.find({ stream, from: Math.min(from ?? revisionMax, revisionMax), limit, bytesMax })
    // It may have waited behind others that were not answered.
    return withDeadline(found, readDeadlineMs, () => tooLate(readDeadlineMs))
  }

  async #pages({ name, text }: { name: string; text: string }, asked: readonly AskedPage[]): Promise<StreamPage[]> {
    const values = [
      asked.map(({ stream }) => stream),
      asked.map(({ from }) => from),
      asked.map(({ limit }) => limit),
      asked.map(({ bytesMax }) => bytesMax),
    ]
    const found = asked.map((): StreamPage => ({ events: [], isEnd: true }))
    for (const [n, ...row] of await this.#rows<[n: string, ...EventRow]>(name, text, values, readDeadlineMs)) {
      const answer = found[Number(n) - 1]!
      answer.events.push(toEvent(row))
      answer.isEnd = isLast(row)
    }
    return found
  }

  /** A page of the whole log; see EventStore.readAll. */
  async page(after: Position, { prefixes = [], limit, bytesMax = READ_BYTES_MAX }: ReadAllOptions): Promise<LogPage> {
    if (prefixes.length > 0) return this.#filteredPage(after, prefixes, limit, bytesMax)
    const rows = await this.#rows<EventRow>('read_all', page, [numberOf(after), limit, bytesMax], pageDeadlineMs)
    const events = rows.map(toEvent)
    return { events, position: events.at(-1)?.position ?? after, isEnd: rows.length === 0 || isLast(rows.at(-1)!) }
  }

  async #filteredPage(after: Position, prefixes: readonly string[], limit: number, bytesMax: number): Promise<LogPage> {
    const values = [numberOf(after), limit, bytesMax, prefixes]
    const rows = await this.#rows<[head: string, ...PlaceRow, ...EventRow]>(undefined, filteredPage, values, pageDeadlineMs)
    const [head, ...lookedAt] = rows[0]!
    const found = rows.filter((row) => row[3] !== null).map(([, , , ...event]) => event)
    const events = found.map(toEvent)
    const isCut = found.length > 0 && !isLast(found.at(-1)!)
    const position = isCut ? events.at(-1)!.position : later(after, toPosition([lookedAt[0], lookedAt[1]]))
    return { events, position, isEnd: numberOf(position) >= Number(head) }
  }

  async #rows<Row extends unknown[]>(name: string | undefined, text: string, values: unknown[], withinMs: number): Promise<Row[]> {
    // A query that is late is given up with its connection.
    const query = { ...(name === undefined ? {} : { name }), text, values, rowMode: 'array' as const, query_timeout: withinMs }
    const { rows } = await reading(() => withDeadline(this.#pool.query<Row>(query), withinMs, () => tooLate(withinMs)))
    if (this.#isEnded) throw new StoreUnavailable('The log was set back or replaced')
    return rows
  }
}

/** More than nearly any event has; where a page has few of them, this tells how much it may come to. */
const eventBytesMax = 128 << 10

const bytesOf = ({ limit, bytesMax }: AskedPage): number => Math.min(bytesMax, limit * eventBytesMax)

const tooLate = (withinMs: number) => new StoreUnavailable(`The log has not answered for ${withinMs} ms`)

function toEvent([position, stream, revision, id, type, dataJson, metadataJson]: EventRow): RecordedEvent {
  return new RecordedEvent({ id, type, stream, revision, dataJson }, toPlace(position), metadataJson)
}

/** The position at a place; zero where there is no event. */
export function toPosition([place, metadataJson]: PlaceRow): Position {
  return place === null || metadataJson === null ? zeroPosition : positionOf(toPlace(place), hashInMetadata(metadataJson))
}

function later(a: Position, b: Position): Position {
  return a > b ? a : b
}

function isLast(row: EventRow): boolean {
  return row[7]
}
