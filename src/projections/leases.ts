/** Names what only one process at a time may do. It holds an advisory lock in its session, until that ends. */
import { sql } from 'kysely'
import { type Database, HEARTBEAT_MS, WRITE_MS_MAX } from './database.js'

/** A session in use that is idle for so long belongs to a process that stands still, or cannot be reached. */
const SILENT_MS_MAX = 5 * HEARTBEAT_MS
/** A statement that waits for so long for its client has been given up by it, if that runs. */
const WAITING_FOR_CLIENT_MS_MAX = WRITE_MS_MAX + SILENT_MS_MAX

const INSUFFICIENT_PRIVILEGE = '42501'

/**
 * Takes a lease in this session, or says that another one has it. One that belongs to a process that stands still is ended by that: its
 * kernel still answers for the connection, so that Postgres would keep the lock for ever. What such a session was about to write is
 * rolled back, and the process that wakes up finds its connection lost. Of another role's session that this one may not end, the lease
 * is left to it.
 */
export async function tryLease(db: Database, name: string, silentMsMax = SILENT_MS_MAX): Promise<boolean> {
  const key = sql`hashtextextended(${`convolog read models: ${name}`}, 0)`
  const { rows } = await sql<{ has: boolean }>`SELECT pg_try_advisory_lock(${key}) AS has`.execute(db)
  if (rows[0]?.has) return true
  const ending = sql`
    SELECT pg_terminate_backend(holder.pid) FROM pg_locks JOIN pg_stat_activity holder USING (pid)
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND (classid::bigint << 32 | objid::bigint) = ${key}
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND CASE
        WHEN state LIKE 'idle%' THEN state_change < clock_timestamp() - ${silentMsMax} * interval '1 ms'
        WHEN wait_event_type = 'Client' THEN state_change < clock_timestamp() - ${WAITING_FOR_CLIENT_MS_MAX} * interval '1 ms'
        ELSE false
      END`.execute(db)
  await ending.catch((error: unknown) => {
    if ((error as { code?: unknown }).code !== INSUFFICIENT_PRIVILEGE) throw error
  })
  return false
}
