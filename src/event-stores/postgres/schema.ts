import type pg from 'pg'
import { StoreUnavailable } from '../../domain/event-store.js'
import { withDeadline } from '../../domain/waits.js'
import { StartError } from '../../start-error.js'

/** The Postgres schema that holds the log, apart from the read models, which may be dropped. */
export const schemaName = 'log'

/** Where a commit is announced to the other processes. */
export const notifyChannel = 'convolog_log'

/** Held, shared, by each process that follows the log: how a writer knows that somebody else listens. Two-key advisory lock. */
export const presenceLock = { classId: 0x434c4f47, objectId: 1 } as const

const schemaLock = { classId: 0x434c4f47, objectId: 0 } as const

const LOCK_NOT_AVAILABLE = '55P03'
/** For a server that says nothing at all, beside the wait for a lock. */
const answerMsMax = 5_000

/**
 * Creates what is missing. Processes that start at once do it one after the other.
 * @throws {StartError} another session holds a lock for longer than `lockMsMax`
 * @throws {StoreUnavailable} the database does not answer
 */
export async function ensureSchema(client: pg.Client, lockMsMax: number): Promise<void> {
  const withinMs = lockMsMax + answerMsMax
  try {
    const late = () => new StoreUnavailable(`The database has not answered for ${withinMs} ms`)
    await withDeadline(createMissing(client, lockMsMax, withinMs), withinMs, late)
  } catch (error) {
    if ((error as { code?: unknown }).code !== LOCK_NOT_AVAILABLE) throw error
    throw new StartError(
      `The schema ${schemaName} of the log's database is locked by another session: end that session, which pg_stat_activity shows, and start again.`,
    )
  }
}

async function createMissing(client: pg.Client, lockMsMax: number, statementMsMax: number): Promise<void> {
  await client.query('BEGIN')
  await client.query(`SET LOCAL lock_timeout = ${lockMsMax}; SET LOCAL statement_timeout = ${statementMsMax}`)
  await client.query('SELECT pg_advisory_xact_lock($1, $2)', [schemaLock.classId, schemaLock.objectId])
  await client.query(tables)
  await client.query(appendFunction)
  await client.query('COMMIT')
}

/*
 * data and metadata are text: jsonb would parse them, reorder their keys and break the hash chain.
 * COLLATE "C" compares bytes: cheaper in the index than a language's order, and the same on every machine.
 * events is only ever inserted into, so its pages are filled to the brim (the default fillfactor of 100);
 * log_head is one row that each batch updates: an almost empty page lets the update stay on it (HOT) and
 * be pruned there, so that neither the table nor its index grows. It has no index but the one for its single key.
 * An insert-only table is vacuumed for its visibility map and freezing alone; a fixed step instead of
 * a share of the table keeps each run small however long the log is.
 */
const tables = `
SET LOCAL client_min_messages = warning;
CREATE SCHEMA IF NOT EXISTS ${schemaName};
CREATE TABLE IF NOT EXISTS ${schemaName}.log_head (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  position bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO ${schemaName}.log_head (position) VALUES (0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS ${schemaName}.events (
  position bigint NOT NULL PRIMARY KEY,
  id uuid NOT NULL,
  revision integer NOT NULL,
  stream text COLLATE "C" NOT NULL,
  type text COLLATE "C" NOT NULL,
  data text COLLATE "C" NOT NULL,
  metadata text COLLATE "C" NOT NULL,
  UNIQUE (stream, revision)
) WITH (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000);
`

/*
 * One call is one group commit. Arrays have one element an event; an append is the events of one stream
 * (a batch has at most one append of a stream), its first event the one with revision = expected + 1.
 *
 * log_head is locked first and moved before anything is looked at. Each later statement of a VOLATILE
 * function under READ COMMITTED takes a new snapshot, so it sees all that was committed before the lock
 * was got; the lock goes with the commit. Hence positions are dense and become visible in their order.
 *
 * All as expected (nearly always): one row with the first position and no stream.
 * Otherwise: one row an append, in the order given. With first_position: appended there. With
 * duplicate_positions: the same ids are at that place already. With neither: conflict.
 */
const appendFunction = `
CREATE OR REPLACE FUNCTION ${schemaName}.append_batch(
  streams text[], expected integer[], revisions integer[], ids uuid[], types text[], data text[], metadata text[], announce boolean
) RETURNS TABLE (append_stream text, actual_revision integer, first_position bigint, duplicate_positions bigint[])
LANGUAGE plpgsql VOLATILE AS $body$
#variable_conflict use_column
DECLARE
  event_count CONSTANT bigint := cardinality(append_batch.ids);
  head bigint;
BEGIN
  UPDATE ${schemaName}.log_head SET position = position + event_count RETURNING position - event_count INTO head;
  IF announce THEN
    PERFORM pg_notify('${notifyChannel}', (head + event_count)::text);
  END IF;

  -- revision >= expected: the index page is full of the stream's older events, and a scan reads all that qualify.
  PERFORM FROM (
    SELECT unnest(append_batch.streams) AS stream, unnest(append_batch.expected) AS expected, unnest(append_batch.revisions) AS revision
  ) proposed
  WHERE revision = expected + 1
    AND expected <> coalesce((SELECT e.revision FROM ${schemaName}.events e
      WHERE e.stream = proposed.stream AND e.revision >= proposed.expected ORDER BY e.revision DESC LIMIT 1), -1)
  LIMIT 1;
  IF NOT FOUND THEN
    -- Set-returning functions in the select list go in lockstep and, other than in FROM, are not materialised first.
    INSERT INTO ${schemaName}.events (position, id, revision, stream, type, data, metadata)
    SELECT generate_series(head + 1, head + event_count), unnest(append_batch.ids), unnest(append_batch.revisions),
      unnest(append_batch.streams), unnest(append_batch.types), unnest(append_batch.data), unnest(append_batch.metadata);
    RETURN QUERY SELECT NULL::text, NULL::integer, head + 1, NULL::bigint[];
    RETURN;
  END IF;

  RETURN QUERY
  WITH proposed AS MATERIALIZED (
    SELECT * FROM unnest(append_batch.streams, append_batch.expected, append_batch.revisions, append_batch.ids,
      append_batch.types, append_batch.data, append_batch.metadata)
      WITH ORDINALITY AS p (stream, expected, revision, id, type, data, metadata, place)
  ), appends AS MATERIALIZED (
    SELECT p.stream, p.expected, p.place, coalesce(
      (SELECT e.revision FROM ${schemaName}.events e WHERE e.stream = p.stream ORDER BY e.revision DESC LIMIT 1), -1) AS actual
    FROM proposed p WHERE p.revision = p.expected + 1
  ), inserted AS (
    INSERT INTO ${schemaName}.events (position, id, revision, stream, type, data, metadata)
    SELECT head + row_number() OVER (ORDER BY p.place), p.id, p.revision, p.stream, p.type, p.data, p.metadata
    FROM proposed p JOIN appends a ON a.stream = p.stream WHERE a.actual = a.expected
    RETURNING stream, position
  ), moved AS (
    UPDATE ${schemaName}.log_head SET position = head + (SELECT count(*) FROM inserted)
  ), places AS (
    SELECT stream, min(position) AS first_position FROM inserted GROUP BY stream
  ), originals AS (
    SELECT p.stream, array_agg(e.position ORDER BY p.revision) AS positions
    FROM appends a JOIN proposed p ON p.stream = a.stream
    LEFT JOIN ${schemaName}.events e ON e.stream = p.stream AND e.revision = p.revision
    WHERE a.actual > a.expected
    GROUP BY p.stream HAVING bool_and(e.id IS NOT DISTINCT FROM p.id)
  )
  SELECT a.stream, a.actual, places.first_position, originals.positions
  FROM appends a LEFT JOIN places ON places.stream = a.stream LEFT JOIN originals ON originals.stream = a.stream
  ORDER BY a.place;
END
$body$;
`
