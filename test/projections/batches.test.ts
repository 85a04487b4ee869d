import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { RecordedEvent } from '../../src/domain/event-store.js'
import type { ConversationEvent } from '../../src/domain/events.js'
import { Batch } from '../../src/projections/batch.js'
import { type Database, READ_SCHEMA, openWriters } from '../../src/projections/database.js'
import { listInbox } from '../../src/projections/inbox.js'
import { allProjections } from '../../src/projections/read-models.js'
import { migrate } from '../../src/projections/checkpoints.js'
import { InMemoryEventStore, InMemoryLog } from '../support/in-memory-event-store.js'
import { LogWriter, text } from '../support/log-writer.js'
import { type TestPostgres, startTestPostgres } from '../support/postgres.js'
import { dumpTables, silent } from '../support/read-side.js'

let postgres: TestPostgres
let small: { db: Database; connectionString: string }
let large: { db: Database; connectionString: string }
const SMALL_FANOUT = 2
const LARGE_FANOUT = 1_000

beforeAll(async () => {
  postgres = await startTestPostgres()
  small = await openTables(SMALL_FANOUT)
  large = await openTables(LARGE_FANOUT)
})
afterAll(async () => {
  await Promise.all([small.db.destroy(), large.db.destroy()])
  await postgres.stop()
})

async function openTables(fanoutOnWriteMax: number) {
  const connectionString = await postgres.createDatabase()
  const db = openWriters(connectionString, READ_SCHEMA)
  await migrate(db, allProjections(fanoutOnWriteMax), new InMemoryEventStore(), silent)
  return { db, connectionString }
}

const users = ['ann', 'bob', 'cid', 'dee', 'eve']
const conversations = ['c0', 'c1', 'c2']

/** One thing that happens; what cannot happen at that point is left out. */
type Step = { what: number; user: number; other: number; conversation: number; message: number }
const step: fc.Arbitrary<Step> = fc.record({
  what: fc.nat(99),
  user: fc.nat(users.length - 1),
  other: fc.nat(users.length - 1),
  conversation: fc.nat(conversations.length - 1),
  message: fc.nat(1_000),
})

/** A log in which only what could be decided happens. */
class Happening {
  readonly log = new InMemoryLog()
  readonly #writer = new LogWriter(new InMemoryEventStore(this.log))
  readonly #members = new Map<string, Set<string>>()
  readonly #sent = new Map<string, { seq: number; recalled: boolean }[]>()

  async take({ what, user, other, conversation, message }: Step): Promise<void> {
    const [id, userId, otherId] = [conversations[conversation]!, users[user]!, users[other]!]
    const members = this.#members.get(id)
    if (!members) {
      const first = [...new Set([userId, otherId])]
      this.#members.set(id, new Set(first))
      this.#sent.set(id, [])
      await this.#writer.created(id, first)
    } else if (what < 35) await this.#send(id, userId, otherId, members)
    else if (what < 50) await this.#comeOrGo(id, otherId, members)
    else if (what < 60) await this.#moveCursor(id, userId, members, message)
    else if (what < 85) await this.#change(id, userId, members, message, what)
    else await this.#ofItself(id, userId, otherId, what)
  }

  async #send(id: string, userId: string, otherId: string, members: Set<string>): Promise<void> {
    if (!members.has(userId)) return
    const seq = await this.#writer.sent(id, userId, `"said" by ${userId}`, { mentions: [otherId, userId] })
    this.#sent.get(id)!.push({ seq, recalled: false })
  }

  async #comeOrGo(id: string, userId: string, members: Set<string>): Promise<void> {
    if (members.delete(userId)) await this.#writer.left(id, userId)
    else {
      members.add(userId)
      await this.#writer.joined(id, userId)
    }
  }

  /** Also of one who has just left: cursors are flushed late. */
  async #moveCursor(id: string, userId: string, members: Set<string>, message: number): Promise<void> {
    const sent = this.#sent.get(id)!
    const ordinal = sent.length === 0 ? 0 : (message % sent.length) + 1
    const seq = ordinal === 0 ? 0 : sent[ordinal - 1]!.seq
    if (message % 3 === 0) await this.#writer.delivered(id, userId, seq)
    else if (members.has(userId) || message % 2 === 0) await this.#writer.read(id, userId, seq, ordinal)
  }

  async #change(id: string, userId: string, members: Set<string>, which: number, what: number): Promise<void> {
    const sent = this.#sent.get(id)!
    const message = sent[which % Math.max(1, sent.length)]
    if (!members.has(userId) || !message) return
    const data = { messageSeq: message.seq, emoji: which % 2 === 0 ? '👍' : '🎉' }
    const events: ConversationEvent[] =
      what % 6 === 0
        ? [{ type: 'MessageRecalled', data }]
        : what % 6 === 1
          ? [{ type: 'MessagePinned', data }]
          : what % 6 === 2
            ? [{ type: 'MessageUnpinned', data }]
            : what % 6 === 3
              ? [{ type: 'ReactionAdded', data }]
              : what % 6 === 4
                ? [{ type: 'ReactionRemoved', data }]
                : [{ type: 'MessageEdited', data: { messageSeq: message.seq, content: text(`edited ${which}`) } }]
    if (message.recalled && (what % 6 === 0 || what % 6 === 5)) return
    message.recalled ||= what % 6 === 0
    await this.#writer.did(id, userId, ...events)
  }

  async #ofItself(id: string, userId: string, otherId: string, what: number): Promise<void> {
    if (what < 92)
      return void (await this.#writer.marked(
        userId,
        id,
        [{ pinned: true }, { pinned: false }, { muted: true }, { muted: false }, { hidden: true }, { hidden: false }][what % 6]!,
      ))
    if (what === 92)
      return void (await this.#writer.did(id, userId, { type: 'ConversationUpdated', data: { name: null, custom: { what } } }))
    if (what === 93) return void (await this.#writer.did(id, userId, { type: 'ConversationFrozen', data: {} }))
    if (what === 94)
      return void (
        this.#members.get(id)!.has(otherId) &&
        (await this.#writer.did(id, userId, { type: 'MemberRoleChanged', data: { userId: otherId, role: 'admin' } }))
      )
    const type = (['ContactAdded', 'ContactRemoved', 'UserBlocked', 'UserUnblocked', 'ContactAdded'] as const)[what - 95]!
    await this.#writer.self(userId, { type, data: { userId: otherId } })
    await this.#writer.self(userId, { type: what % 2 === 0 ? 'DeviceSeen' : 'DeviceRevoked', data: { deviceId: 'phone' } })
  }
}

const happened = async (steps: readonly Step[]): Promise<readonly RecordedEvent[]> => {
  const happening = new Happening()
  for (const one of steps) await happening.take(one)
  return happening.log.events
}

/** Applies the events to empty tables, so many at a time, over and over. */
async function apply(
  { db, connectionString }: typeof small,
  fanoutOnWriteMax: number,
  events: readonly RecordedEvent[],
  sizes: readonly number[],
) {
  const buildings = allProjections(fanoutOnWriteMax).map((projection) => ({ projection, settings: projection.settings }))
  const tables = buildings.flatMap(({ projection }) => projection.tables)
  await sql.raw(tables.map((table) => `DELETE FROM ${table}`).join(';')).execute(db)
  for (let from = 0, i = 0; from < events.length; i += 1) {
    const size = sizes[i % sizes.length]!
    const batch = new Batch(buildings, events[from - 1]?.position ?? '')
    for (const event of events.slice(Math.max(0, from - 1), from + size)) batch.add(event)
    await db.transaction().execute((trx) => batch.flush(trx))
    from += size
  }
  return dumpTables(connectionString)
}

const steps = fc.array(step, { minLength: 1, maxLength: 80, size: 'max' })
const sizes = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 5 })

test('the size of the batches makes no difference', async () => {
  await fc.assert(
    fc.asyncProperty(steps, sizes, async (history, split) => {
      const events = await happened(history)
      const oneByOne = await apply(small, SMALL_FANOUT, events, [1])
      expect(await apply(small, SMALL_FANOUT, events, split)).toEqual(oneByOne)
      expect(await apply(small, SMALL_FANOUT, events, [1_000])).toEqual(oneByOne)
    }),
    { numRuns: 25 },
  )
}, 120_000)

test('inboxes are the same whether they are written or merged', async () => {
  const inboxes = (db: Database) =>
    Promise.all(users.flatMap((userId) => [false, true].map((hidden) => listInbox(db, userId, { limit: 50, hidden }))))
  await fc.assert(
    fc.asyncProperty(steps, sizes, async (history, split) => {
      const events = await happened(history)
      await apply(small, SMALL_FANOUT, events, split)
      await apply(large, LARGE_FANOUT, events, [1_000])
      expect(await inboxes(small.db)).toEqual(await inboxes(large.db))
    }),
    { numRuns: 25 },
  )
}, 120_000)
