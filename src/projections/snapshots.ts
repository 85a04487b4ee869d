/** Snapshots of folded streams: a table beside the read models, disposable like them, but no projection. */
import { sql } from 'kysely'
import type { Snapshot, SnapshotStore } from '../domain/snapshot-store.js'
import { type Database, asRefusal } from './database.js'

export class PostgresSnapshotStore implements SnapshotStore {
  readonly #db: Database

  constructor(db: Database) {
    this.#db = db
  }

  async load(stream: string): Promise<Snapshot | undefined> {
    const query = sql<Omit<Snapshot, 'state'> & { state: string }>`
      SELECT version, revision, position, hash, state FROM snapshots WHERE stream = ${stream}`
    const [row] = (await query.execute(this.#db).catch(refuse)).rows
    return row && { ...row, state: JSON.parse(row.state) as unknown }
  }

  async save(stream: string, { version, revision, position, hash, state }: Snapshot): Promise<void> {
    const query = sql`
      INSERT INTO snapshots AS s (stream, version, revision, position, hash, state)
      VALUES (${stream}, ${version}, ${revision}, ${position}, ${hash}, ${JSON.stringify(state)})
      ON CONFLICT (stream) DO UPDATE SET
        version = excluded.version, revision = excluded.revision, position = excluded.position, hash = excluded.hash, state = excluded.state
      WHERE (excluded.version, excluded.revision) > (s.version, s.revision)`
    await query.execute(this.#db).catch(refuse)
  }
}

function refuse(error: unknown): never {
  throw asRefusal(error)
}
