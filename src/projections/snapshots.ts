/** Snapshots of folded streams: a table beside the read models, disposable like them, but no projection. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { sql } from 'kysely'
import type { Snapshot, SnapshotStore } from '../domain/snapshot-store.js'
import { BATCH_BYTES_MAX, Gatherer } from '../gatherer.js'
import { texts } from './arrays.js'
import { type Database, asRefusal } from './database.js'

/** More characters than this are read in a turn of their own. */
const SNAPSHOT_CHARACTERS_AT_ONCE = 256 << 10
/** More than the largest group's state comes to; what is larger is folded from the log instead. */
export const SNAPSHOT_CHARACTERS_MAX = 32 << 20

type SnapshotRow = Omit<Snapshot, 'state'> & { stream: string; state: string | null }

export class PostgresSnapshotStore implements SnapshotStore {
  readonly #db: Database
  readonly #snapshots = new Gatherer((streams: readonly string[]) => this.#loadAll(streams))

  constructor(db: Database) {
    this.#db = db
  }

  load(stream: string): Promise<Snapshot | undefined> {
    return this.#snapshots.find(stream)
  }

  async #loadAll(streams: readonly string[]): Promise<(Snapshot | undefined)[]> {
    const found = new Map<string, Snapshot>()
    for (let asked = streams; asked.length > 0; ) {
      const left: string[] = []
      for (const { stream, state, ...row } of await this.#loadSome(asked)) {
        if (state === null) left.push(stream)
        else {
          // A large one takes its time to read: others have their turn in between.
          if (state.length > SNAPSHOT_CHARACTERS_AT_ONCE) await nextTurn()
          found.set(stream, { ...row, state: JSON.parse(state) as unknown })
        }
      }
      asked = left
    }
    return streams.map((stream) => found.get(stream))
  }

  /** The smaller ones first, as many as fit into the bytes of one answer, and at least one; of the others the state is null. */
  async #loadSome(streams: readonly string[]): Promise<SnapshotRow[]> {
    const query = sql<SnapshotRow>`
      SELECT stream, version, revision, position, hash,
        CASE WHEN sum(octet_length(state)) OVER ordered <= ${BATCH_BYTES_MAX}::bigint OR row_number() OVER ordered = 1 THEN state END AS state
      FROM snapshots WHERE stream = ANY(${texts(streams, (stream) => stream)}::text[])
      WINDOW ordered AS (ORDER BY octet_length(state), stream ROWS UNBOUNDED PRECEDING)`
    const { rows } = await query.execute(this.#db).catch(refuse)
    return rows
  }

  async save(stream: string, { version, revision, position, hash, state }: Snapshot): Promise<void> {
    const text = JSON.stringify(state)
    if (text.length > SNAPSHOT_CHARACTERS_MAX) return
    // Its commit waits for no disk: a snapshot that a crash loses is folded from the log.
    const query = sql`
      INSERT INTO snapshots AS s (stream, version, revision, position, hash, state)
      SELECT ${stream}, ${version}::integer, ${revision}::integer, ${position}, ${hash}, ${text}
      FROM set_config('synchronous_commit', 'off', true)
      ON CONFLICT (stream) DO UPDATE SET
        version = excluded.version, revision = excluded.revision, position = excluded.position, hash = excluded.hash, state = excluded.state
      WHERE (excluded.version, excluded.revision) > (s.version, s.revision)`
    await query.execute(this.#db).catch(refuse)
  }

  async discard(stream: string, revision: number, hash: string): Promise<void> {
    await sql`DELETE FROM snapshots WHERE stream = ${stream} AND revision = ${revision}::integer AND hash = ${hash}`
      .execute(this.#db)
      .catch(refuse)
  }
}

function refuse(error: unknown): never {
  throw asRefusal(error)
}
