import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { AppendOutcomeUnknown, NO_STREAM, StoreUnavailable } from '../../src/domain/event-store.js'
import { PostgresEventStore, type PostgresEventStoreOptions } from '../../src/event-stores/postgres/postgres-event-store.js'
import { StartError } from '../../src/start-error.js'
import { keepLog, putLogBack } from '../support/log-copies.js'
import { startLossyProxy } from '../support/lossy-proxy.js'
import { startTestPostgres, type TestPostgres } from '../support/postgres.js'
import { execute } from '../support/read-side.js'
import { appendOf, Follower, keys, seed, streamName } from './events.js'

let postgres: TestPostgres
let connectionString: string
const closers: (() => Promise<void>)[] = []

beforeAll(async () => {
  postgres = await startTestPostgres()
})
beforeEach(async () => {
  connectionString = await postgres.createDatabase()
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})
afterAll(async () => {
  await postgres.stop()
})

describe('PostgresEventStore', () => {
  test('is opened by many at once on an empty database', async () => {
    const stores = await Promise.all([1, 2, 3, 4].map(() => open()))
    await Promise.all(stores.map((store) => store.append(appendOf(streamName(), NO_STREAM))))
    expect((await stores[0]!.readAll(undefined, { limit: 10 })).events).toHaveLength(4)
  })

  test('says where it cannot be opened', async () => {
    await expect(PostgresEventStore.open({ connectionString: 'postgres://postgres@127.0.0.1:1/none' })).rejects.toThrow(StoreUnavailable)
  })

  describe('where another session has locked its schema', () => {
    const LOCK = `SELECT pg_advisory_lock(${0x434c4f47}, 0)`

    /** How a start ends that waits for the lock. */
    async function startBehindLock(url: string, whileItWaits: () => void = () => {}): Promise<unknown> {
      const holder = new pg.Client({ connectionString })
      await holder.connect()
      closers.push(() => holder.end())
      await holder.query(LOCK)
      const ended = PostgresEventStore.open({ connectionString: url, schemaLockMsMax: 1_000 }).catch((error: unknown) => error)
      const waiting = "SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
      await expect.poll(async () => (await holder.query(waiting)).rowCount).toBe(1)
      whileItWaits()
      return ended
    }

    test('ends after a while, with one sentence that says what to do', async () => {
      const error = await startBehindLock(connectionString)
      expect(error).toBeInstanceOf(StartError)
      expect((error as Error).message).toMatch(/^The schema log .* is locked by another session: end that session, .+\.$/)
    })

    test('ends, too, when the database says nothing any more', async () => {
      const proxy = await startLossyProxy(Number(new URL(connectionString).port))
      closers.push(() => proxy.close())
      expect(await startBehindLock(viaPort(connectionString, proxy.port), () => proxy.swallow())).toBeInstanceOf(StoreUnavailable)
    })
  })

  test('settles appends whose acknowledgement was lost, and gives them to readers once', async () => {
    const proxy = await startLossyProxy(Number(new URL(connectionString).port))
    closers.push(() => proxy.close())
    const store = await open({ connectionString: viaPort(connectionString, proxy.port) })
    const follower = new Follower((signal) => store.subscribeToAll(undefined, {}, signal))
    await store.append(appendOf(streamName(), NO_STREAM))
    await follower.until(() => follower.events.length === 1)
    proxy.loseNextAnswers()
    const results = await Promise.all([1, 2, 3].map((count) => store.append(appendOf(streamName(), NO_STREAM, count))))
    expect(results.map((result) => result.outcome)).toEqual(['duplicate', 'duplicate', 'duplicate'])
    await follower.until(() => follower.events.length === 7)
    await store.append(appendOf(streamName(), NO_STREAM))
    await follower.until(() => follower.events.length === 8)
    await follower.stop()
    expect(keys(follower.events)).toEqual(keys((await store.readAll(undefined, { limit: 100 })).events))
  })

  test('calls unknown what a silent server may have done, and finds it done when the same is sent again', async () => {
    const store = await open({ appendDeadlineMs: 300, settleMs: 200 })
    const follower = new Follower((signal) => store.subscribeToAll(undefined, {}, signal))
    await follower.until(() => follower.saidCaughtUp)
    const append = appendOf(streamName(), NO_STREAM)
    postgres.freeze()
    try {
      await expect(store.append(append)).rejects.toThrow(AppendOutcomeUnknown)
      await expect(store.append(appendOf(streamName(), NO_STREAM))).rejects.toThrow(StoreUnavailable)
    } finally {
      postgres.thaw()
    }
    await follower.until(() => follower.events.some((event) => event.id === append.events[0]!.id))
    await expect.poll(async () => (await store.append(append).catch(() => undefined))?.outcome, { timeout: 50_000 }).toBe('duplicate')
    await follower.stop()
    expect(follower.events.filter((event) => event.stream === append.stream)).toHaveLength(1)
  })

  test('goes on when its sessions are ended, and says so once', async () => {
    const lines: string[] = []
    const say = (_: object, message: string): number => lines.push(message)
    const store = await open({ logger: { info: say, warn: say, error: say } })
    const admin = new pg.Client({ connectionString })
    await admin.connect()
    closers.push(() => admin.end())
    await store.readAll(undefined, { limit: 1 })
    await admin.query(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'convolog log %' AND datname = current_database()",
    )
    expect((await store.append(appendOf(streamName(), NO_STREAM))).outcome).toMatch(/appended|duplicate/)
    await expect.poll(() => lines).toEqual(['The database of the log is lost; connecting again', 'The database of the log is back'])
    await expect.poll(async () => (await store.readAll(undefined, { limit: 10 }).catch(() => undefined))?.events.length).toBe(1)
  })

  describe('where its log was set back', () => {
    let lost: string[]
    beforeEach(() => {
      lost = []
    })
    const openTold = (options: Partial<PostgresEventStoreOptions> = {}) =>
      open({ onSetBack: ({ message }) => void lost.push(message), ...options })

    async function asOperator(statement: string): Promise<void> {
      // Of a session that was cut there may be something left on the server.
      await expect.poll(() => execute(postgres.connectionString, statement).then(() => 'done', String), { timeout: 30_000 }).toBe('done')
    }

    test('while it ran, by a failover to a copy that lacks the newest events and has got others, it neither writes nor reads on', async () => {
      const proxy = await startLossyProxy(Number(new URL(connectionString).port))
      closers.push(() => proxy.close())
      const name = new URL(connectionString).pathname.slice(1)
      const store = await openTold({ connectionString: viaPort(connectionString, proxy.port), settleMs: 100 })
      const follower = new Follower((signal) => store.subscribeToAll(undefined, {}, signal))
      await seed(store, [streamName()], 5)
      proxy.cut()
      await asOperator(`CREATE DATABASE ${name}_standby TEMPLATE ${name}`)
      proxy.mend()
      const gone = streamName()
      await expect.poll(() => seed(store, [gone], 1).catch(() => []), { timeout: 30_000 }).toHaveLength(1)
      await follower.until(() => follower.events.length === 6)
      expect(lost).toEqual([])
      proxy.cut()
      await asOperator(`ALTER DATABASE ${name} RENAME TO ${name}_failed`)
      await asOperator(`ALTER DATABASE ${name}_standby RENAME TO ${name}`)
      const other = await open()
      await seed(other, [streamName()], 10)
      proxy.mend()
      await expect
        .poll(() => lost, { timeout: 30_000 })
        .toEqual([expect.stringMatching(/^The log was set back or replaced: .+ 0{15}6\.\S{8} /)])
      await expect(store.append(appendOf(gone, 0))).rejects.toThrow()
      await expect(store.readStream(gone, { limit: 1 })).rejects.toThrow(StoreUnavailable)
      await other.append(appendOf(streamName(), NO_STREAM))
      await follower.stop()
      expect(follower.events).toHaveLength(6)
      expect((await other.readAll(undefined, { limit: 100 })).events).toHaveLength(16)
    })

    test('by a failover to a standby that lags, it says so once that is promoted, and not before', { timeout: 120_000 }, async () => {
      await (await open()).close()
      const standby = await postgres.startStandby()
      closers.push(() => standby.stop())
      const primary = Number(new URL(connectionString).port)
      const proxy = await startLossyProxy(primary)
      closers.push(() => proxy.close())
      const lead = (port: number) => {
        proxy.cut()
        proxy.leadTo(port)
        proxy.mend()
      }
      const store = await openTold({ connectionString: viaPort(connectionString, proxy.port), settleMs: 100 })
      await seed(store, [streamName()], 5)
      lead(standby.port)
      const before = proxy.taken
      // A session that is tried again has been answered before.
      await expect.poll(() => proxy.taken, { timeout: 30_000 }).toBeGreaterThan(before + 5)
      await expect(store.append(appendOf(streamName(), NO_STREAM))).rejects.toThrow(StoreUnavailable)
      lead(primary)
      await expect.poll(() => seed(store, [streamName()], 1).catch(() => []), { timeout: 30_000 }).toHaveLength(1)
      expect(lost).toEqual([])
      await standby.promote()
      lead(standby.port)
      await expect.poll(() => lost, { timeout: 30_000 }).toEqual([expect.stringMatching(/^The log was set back or replaced: /)])
    })

    test('under its open sessions, it notices at its next looks', async () => {
      const store = await openTold()
      await seed(store, [streamName()], 3)
      await keepLog(connectionString)
      await seed(store, [streamName()], 3)
      await putLogBack(connectionString)
      await expect.poll(() => lost, { timeout: 30_000 }).toHaveLength(1)
      await expect(store.append(appendOf(streamName(), NO_STREAM))).rejects.toThrow()
    })
  })

  test('refuses what would wait without bound', async () => {
    const store = await open({ queuedBytesMax: 5000 })
    const results = await Promise.allSettled(Array.from({ length: 100 }, () => store.append(appendOf(streamName(), NO_STREAM))))
    const refused = results.filter((result) => result.status === 'rejected')
    expect(refused.length).toBeGreaterThan(50)
    for (const { reason } of refused) expect(reason).toBeInstanceOf(StoreUnavailable)
    expect((await store.readAll(undefined, { limit: 100 })).events).toHaveLength(100 - refused.length)
  })

  test('settles what is pending before it closes, and takes nothing after', async () => {
    const store = await open()
    const pending = store.append(appendOf(streamName(), NO_STREAM))
    await store.close()
    expect((await pending).outcome).toBe('appended')
    await expect(store.append(appendOf(streamName(), NO_STREAM))).rejects.toThrow(StoreUnavailable)
    await expect(store.head()).rejects.toThrow(StoreUnavailable)
  })
})

async function open(options: Partial<PostgresEventStoreOptions> = {}): Promise<PostgresEventStore> {
  const store = await PostgresEventStore.open({ connectionString, ...options })
  closers.push(() => store.close())
  return store
}

function viaPort(url: string, port: number): string {
  return Object.assign(new URL(url), { port: String(port) }).href
}
