import { startTestKurrentDb, testUrl } from './kurrentdb.js'

/** What can hold the log of a server. */
export const logNames = ['Postgres', 'KurrentDB'] as const
export type LogName = (typeof logNames)[number]

/** Whether tests on it are to be skipped: a real KurrentDB is not in the packages. */
export const withoutLog = (name: LogName): boolean => name === 'KurrentDB' && testUrl === undefined

export interface Log {
  /** What a server needs beside DATABASE_URL to keep its log there. */
  env: Record<string, string>
  stop(): Promise<void>
}

export async function startLog(name: LogName): Promise<Log> {
  if (name === 'Postgres') return { env: {}, stop: async () => {} }
  const { connectionString, stop } = await startTestKurrentDb()
  return { env: { EVENTSTORE_URL: connectionString }, stop }
}
