import type pg from 'pg'
import { RecordedEvent, type ReadStreamOptions } from '../../domain/event-store.js'
import { Gatherer } from '../../gatherer.js'
import { reading } from './errors.js'
import { toPosition } from './positions.js'
import { schemaName } from './schema.js'

type EventRow = [position: string, stream: string, revision: number, id: string, type: string, data: string, metadata: string]

/** How many events one filtered read looks at: where the filter drops them all, the page still comes soon. */
const scannedEventsMax = 50_000

const columns = 'e.position, e.stream, e.revision, e.id, e.type, e.data, e.metadata'

const page = `SELECT ${columns} FROM ${schemaName}.events e WHERE e.position > $1 ORDER BY e.position LIMIT $2`

/*
 * The head and the events come from one snapshot. The range is over positions, and they are dense, so it bounds
 * the work. ^@ (starts with) against an array can't tempt the planner to the index by stream: that would sort.
 */
const filteredPage = `
SELECT h.position, ${columns} FROM ${schemaName}.log_head h LEFT JOIN LATERAL (
  SELECT * FROM ${schemaName}.events WHERE position > $1 AND position <= $1::bigint + ${scannedEventsMax} AND stream ^@ ANY ($3::text[])
  ORDER BY position LIMIT $2
) e ON true ORDER BY e.position`

/** Pages of many streams: each by the index, in the order in which they were asked for. */
const pages = (condition: string, order: string) => `
SELECT asked.n, ${columns} FROM unnest($1::text[], $2::integer[], $3::integer[]) WITH ORDINALITY AS asked (stream, start, size, n)
CROSS JOIN LATERAL (
  SELECT * FROM ${schemaName}.events WHERE stream = asked.stream AND revision ${condition} asked.start ORDER BY revision ${order} LIMIT asked.size
) e ORDER BY asked.n, e.revision ${order}`
const forwards = { name: 'read_forwards', text: pages('>=', 'ASC') }
const backwards = { name: 'read_backwards', text: pages('<=', 'DESC') }
const head = `SELECT position FROM ${schemaName}.log_head`

const revisionMax = 2 ** 31 - 1

interface StreamPage {
  stream: string
  from: number
  limit: number
}

/** What is read from the database, with positions as numbers. All throw StoreUnavailable when it can't be read now. */
export class Reads {
  readonly #pool: pg.Pool
  readonly #forwards = new Gatherer(
    (asked: readonly StreamPage[]) => this.#pages(forwards, asked),
    2,
    ({ limit }) => limit,
  )
  readonly #backwards = new Gatherer(
    (asked: readonly StreamPage[]) => this.#pages(backwards, asked),
    2,
    ({ limit }) => limit,
  )

  constructor(pool: pg.Pool) {
    this.#pool = pool
  }

  async head(): Promise<number> {
    const [row] = await this.#rows<[string]>('log_head', head, [])
    return Number(row![0])
  }

  stream(stream: string, { direction = 'forwards', from, limit }: ReadStreamOptions): Promise<RecordedEvent[]> {
    return direction === 'forwards'
      ? this.#forwards.find({ stream, from: Math.max(from ?? 0, 0), limit })
      : this.#backwards.find({ stream, from: Math.min(from ?? revisionMax, revisionMax), limit })
  }

  async #pages({ name, text }: { name: string; text: string }, asked: readonly StreamPage[]): Promise<RecordedEvent[][]> {
    const values = [asked.map(({ stream }) => stream), asked.map(({ from }) => from), asked.map(({ limit }) => limit)]
    const found = asked.map((): RecordedEvent[] => [])
    for (const [n, ...row] of await this.#rows<[n: string, ...EventRow]>(name, text, values)) found[Number(n) - 1]!.push(toEvent(row))
    return found
  }

  /** `position` is where to go on: past what the filter dropped. */
  async page(after: number, prefixes: readonly string[], limit: number): Promise<{ events: RecordedEvent[]; position: number }> {
    if (prefixes.length > 0) return this.#filteredPage(after, prefixes, limit)
    const rows = await this.#rows<EventRow>('read_all', page, [after, limit])
    return { events: rows.map(toEvent), position: Number(rows.at(-1)?.[0] ?? after) }
  }

  async #filteredPage(after: number, prefixes: readonly string[], limit: number): Promise<{ events: RecordedEvent[]; position: number }> {
    const rows = await this.#rows<[head: string, ...EventRow]>(undefined, filteredPage, [after, limit, prefixes])
    const events = rows.filter((row) => row[1] !== null).map(([, ...event]) => toEvent(event))
    const lookedAt = Math.max(after, Math.min(after + scannedEventsMax, Number(rows[0]![0])))
    return { events, position: events.length === limit ? Number(events.at(-1)?.position ?? after) : lookedAt }
  }

  async #rows<Row extends unknown[]>(name: string | undefined, text: string, values: unknown[]): Promise<Row[]> {
    return reading(async () => {
      const { rows } = await this.#pool.query<Row>({ ...(name === undefined ? {} : { name }), text, values, rowMode: 'array' })
      return rows
    })
  }
}

function toEvent([position, stream, revision, id, type, dataJson, metadataJson]: EventRow): RecordedEvent {
  return new RecordedEvent({ id, type, stream, revision, dataJson }, toPosition(position), metadataJson)
}
