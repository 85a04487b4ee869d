/** How far each projection is, and what it was built as; the tables of the read side that are no projection's. */
import { sql } from 'kysely'
import type { EventStore, Position } from '../domain/event-store.js'
import type { Logger } from '../domain/logger.js'
import { texts } from './arrays.js'
import { type Database, READ_SCHEMA } from './database.js'
import type { Projection } from './projection.js'

export interface Checkpoint {
  projection: string
  version: number
  settings: string
  /** Empty: before everything. */
  position: Position
}

/** A start gives up when somebody else has locked the tables for longer than this. */
const LOCK_MS_MAX = 10_000

/** The version of tables that are to be built anew. */
const TO_BE_REBUILT = 0

const OTHER_LOG =
  'The read models and snapshots are not of this log, which was begun anew or restored, or they are of an earlier version: they are built anew'

/** Always by its full name: the connections of a rebuild look into another schema. */
export const checkpointsTable = sql.table(`${READ_SCHEMA}.checkpoints`)

const ddl = `
  CREATE SCHEMA IF NOT EXISTS ${READ_SCHEMA};
  CREATE TABLE IF NOT EXISTS ${READ_SCHEMA}.checkpoints (
    projection text COLLATE "C" PRIMARY KEY, version integer NOT NULL, settings text NOT NULL, position text COLLATE "C" NOT NULL
  ) WITH (fillfactor = 50);
  CREATE TABLE IF NOT EXISTS ${READ_SCHEMA}.snapshots (
    stream text COLLATE "C" PRIMARY KEY, version integer NOT NULL, revision integer NOT NULL, position text COLLATE "C" NOT NULL,
    hash text NOT NULL, state text NOT NULL
  );
  -- Written far more often than read: compressing would be most of what a snapshot costs. ALTER TABLE waits for all who read
  -- it, and lets nobody read meanwhile: only where it has something to change.
  DO $$ BEGIN
    IF EXISTS (
      SELECT FROM pg_attribute WHERE attrelid = '${READ_SCHEMA}.snapshots'::regclass AND attname = 'state' AND attstorage <> 'e'
    ) THEN
      ALTER TABLE ${READ_SCHEMA}.snapshots ALTER state SET STORAGE EXTERNAL;
    END IF;
  END $$;`

/**
 * Creates what is missing, and gives up what is not of this log; safe to run by every process at every start, and by each that begins
 * to project. `db`: a writer of the read schema.
 */
export async function migrate(db: Database, projections: readonly Projection[], store: EventStore, logger: Logger): Promise<void> {
  const { events } = await store.readAll(undefined, { limit: 1 })
  await db.transaction().execute(async (trx) => {
    await sql.raw(`SET LOCAL lock_timeout = ${LOCK_MS_MAX}`).execute(trx)
    // Two processes that start together would both create.
    await sql`SELECT pg_advisory_xact_lock(hashtextextended('convolog read models: migrate', 0))`.execute(trx)
    await sql.raw(ddl).execute(trx)
    const known = await loadCheckpoints(trx)
    // Of an empty log the read models are empty tables; of another they are built, and then served.
    if (known.size === 0 && events.length === 0) return createAll(trx, projections)
    if (!(await areOfThisLog(known.values(), store))) {
      await giveUp(trx)
      logger.warn({}, OTHER_LOG)
    }
    for (const projection of projections) await adopt(trx, projection, known.get(projection.name))
  })
}

/** True if the log has the events that the tables were built from; a log begun anew or restored has others at those places. */
export async function areOfThisLog(checkpoints: Iterable<Checkpoint>, store: Pick<EventStore, 'confirms'>): Promise<boolean> {
  const positions = new Set(Array.from(checkpoints, ({ position }) => position))
  positions.delete('')
  for (const position of positions) if (!(await store.confirms(position))) return false
  return true
}

/** Nothing is read from the tables any more until they are rebuilt; and whoever still projects into them begins anew. */
async function giveUp(trx: Database): Promise<void> {
  await sql`UPDATE ${checkpointsTable} SET version = ${TO_BE_REBUILT}, position = ''`.execute(trx)
  await sql.raw(`TRUNCATE ${READ_SCHEMA}.snapshots`).execute(trx)
}

async function createAll(trx: Database, projections: readonly Projection[]): Promise<void> {
  for (const { name, version, settings, tables, ddl: own, indexes } of projections) {
    await sql.raw(`DROP TABLE IF EXISTS ${tables.join(', ')} CASCADE`).execute(trx)
    await sql.raw(own).execute(trx)
    await sql.raw(indexes).execute(trx)
    await sql`INSERT INTO ${checkpointsTable} VALUES (${name}, ${version}, ${settings}, '')`.execute(trx)
  }
}

/** A projection that is new, or whose tables somebody dropped, is built beside the others. */
async function adopt(trx: Database, { name, tables }: Projection, checkpoint: Checkpoint | undefined): Promise<void> {
  const { rows } = await sql<{ present: number }>`
    SELECT count(to_regclass(name)) AS present
    FROM unnest(${texts(tables, (table) => `${READ_SCHEMA}.${table}`)}::text[]) AS t(name)`.execute(trx)
  if (checkpoint !== undefined && rows[0]?.present === tables.length) return
  await sql`
    INSERT INTO ${checkpointsTable} VALUES (${name}, ${TO_BE_REBUILT}, '', '')
    ON CONFLICT (projection) DO UPDATE SET version = excluded.version`.execute(trx)
}

export async function loadCheckpoints(db: Database): Promise<Map<string, Checkpoint>> {
  const { rows } = await sql<Checkpoint>`SELECT * FROM ${checkpointsTable}`.execute(db)
  return new Map(rows.map((row) => [row.projection, row]))
}

/** The same, and holds back whoever projects until the transaction ends. */
export async function lockCheckpoints(trx: Database): Promise<Map<string, Checkpoint>> {
  const { rows } = await sql<Checkpoint>`SELECT * FROM ${checkpointsTable} ORDER BY projection FOR UPDATE`.execute(trx)
  return new Map(rows.map((row) => [row.projection, row]))
}

/** Whether the tables have the shape that the code expects. */
export const isCurrent = ({ version }: Projection, checkpoint: Checkpoint | undefined) => checkpoint?.version === version

/** How far the furthest is: all that are projected live are there. */
export function furthest(checkpoints: Iterable<Checkpoint>): Position {
  let position = ''
  for (const checkpoint of checkpoints) if (checkpoint.position > position) position = checkpoint.position
  return position
}

/** Somebody else has moved or rebuilt the tables: begin again from what they say. */
export class CheckpointMoved extends Error {}

/**
 * Moves the checkpoints of what is projected live; first thing in its transaction, so that a swap waits for its end.
 * @throws {CheckpointMoved}
 */
export async function moveCheckpoints(trx: Database, live: readonly Checkpoint[], from: Position, to: Position): Promise<void> {
  const { rows } = await sql<{ projection: string; version: number; settings: string }>`
    UPDATE ${checkpointsTable} SET position = ${to}
    WHERE position = ${from} AND projection = ANY(${texts(live, ({ projection }) => projection)}::text[])
    RETURNING projection, version, settings`.execute(trx)
  const isAsKnown = live.every((known) =>
    rows.some((row) => row.projection === known.projection && row.version === known.version && row.settings === known.settings),
  )
  if (!isAsKnown) throw new CheckpointMoved('the read models were rebuilt or moved by another process')
}
