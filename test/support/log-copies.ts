import { execute } from './read-side.js'

/** What `pg_dump -n log` would keep, beside the log. */
export const keepLog = (connectionString: string): Promise<void> =>
  execute(
    connectionString,
    'CREATE SCHEMA kept; CREATE TABLE kept.events AS TABLE log.events; CREATE TABLE kept.log_head AS TABLE log.log_head',
  )

/** Puts the log back to what was kept; everything else stays as it is. No server runs meanwhile. */
export const putLogBack = (connectionString: string): Promise<void> =>
  execute(
    connectionString,
    `BEGIN; TRUNCATE log.events, log.log_head; INSERT INTO log.events TABLE kept.events;
     INSERT INTO log.log_head (position) SELECT position FROM kept.log_head; COMMIT`,
  )
