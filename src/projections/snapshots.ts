/** Snapshots of folded streams: a table beside the read models, disposable like them, but no projection. */
import { sql } from 'kysely'
import type { Snapshot, SnapshotStore } from '../domain/snapshot-store.js'
import { Gatherer } from '../gatherer.js'
import { texts } from './arrays.js'
import { type Database, asRefusal } from './database.js'

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
    const query = sql<Omit<Snapshot, 'state'> & { stream: string; state: string }>`
      SELECT stream, version, revision, position, hash, state FROM snapshots WHERE stream = ANY(${texts(streams, (stream) => stream)}::text[])`
    const { rows } = await query.execute(this.#db).catch(refuse)
    const found = new Map(rows.map(({ stream, state, ...row }) => [stream, { ...row, state: JSON.parse(state) as unknown }]))
    return streams.map((stream) => found.get(stream))
  }

  async save(stream: string, { version, revision, position, hash, state }: Snapshot): Promise<void> {
    // Its commit waits for no disk: a snapshot that a crash loses is folded from the log.
    const query = sql`
      INSERT INTO snapshots AS s (stream, version, revision, position, hash, state)
      SELECT ${stream}, ${version}::integer, ${revision}::integer, ${position}, ${hash}, ${JSON.stringify(state)}
      FROM set_config('synchronous_commit', 'off', true)
      ON CONFLICT (stream) DO UPDATE SET
        version = excluded.version, revision = excluded.revision, position = excluded.position, hash = excluded.hash, state = excluded.state
      WHERE (excluded.version, excluded.revision) > (s.version, s.revision)`
    await query.execute(this.#db).catch(refuse)
  }
}

function refuse(error: unknown): never {
  throw asRefusal(error)
}
