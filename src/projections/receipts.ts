/** Read model `receipts`: who has read and received up to where. */
import { sql } from 'kysely'
import type { Position } from '../domain/event-store.js'
import type { AnyEvent, ReceiptEvent, RecordedFact } from '../domain/events.js'
import { rowsByQuestion } from '../gatherer.js'
import { bigints, integers, texts } from './arrays.js'
import type { Database } from './database.js'
import { type Page, type PageOptions, PagedList, appliedOf, isoTimeOrNull } from './pages.js'
import { type Fold, PairMap, type Projection } from './projection.js'

export interface ReceiptsTables {
  receipts: {
    conversation_id: string
    user_id: string
    read_seq: number | null
    read_at: number | null
    delivered_seq: number | null
    delivered_at: number | null
    /** The membership of which the cursors are: they count for nothing in another one. */
    joined_seq: number
    /** The own last message, which moves the read cursor too. */
    sent_seq: number | null
    sent_at: number | null
    /** Of the last cursor event; sending moves the cursor too, but who follows the conversation sees that by itself. */
    position: string | null
  }
}

export const receiptsProjection: Projection = {
  name: 'receipts',
  version: 2,
  settings: '',
  tables: ['receipts'],
  ddl: `
    CREATE TABLE receipts (
      conversation_id text COLLATE "C", user_id text COLLATE "C", read_seq integer, read_at bigint, delivered_seq integer,
        delivered_at bigint,
      joined_seq integer NOT NULL, sent_seq integer, sent_at bigint, position text COLLATE "C",
      PRIMARY KEY (conversation_id, user_id)
    ) WITH (fillfactor = 70);`,
  indexes: 'CREATE INDEX receipts_moved ON receipts (conversation_id, position) WHERE position IS NOT NULL;',
  begin: () => new ReceiptsFold(),
}

interface CursorChange {
  /** What the table has is void: the user left or joined. */
  wiped: boolean
  joinedSeq: number
  sentSeq: number | null
  sentAt: number | null
  readSeq: number | null
  readAt: number | null
  deliveredSeq: number | null
  deliveredAt: number | null
  position: Position | null
}

type Of<Type extends ReceiptEvent['type']> = Extract<ReceiptEvent, { type: Type }>

type Entry = { first: string; second: string; value: CursorChange }

const noCursors = { readSeq: null, readAt: null, deliveredSeq: null, deliveredAt: null, position: null }
const unmoved = (): CursorChange => ({ wiped: false, joinedSeq: 0, sentSeq: null, sentAt: null, ...noCursors })

class ReceiptsFold implements Fold {
  readonly #cursors = new PairMap<CursorChange>()

  collect(event: RecordedFact<AnyEvent>, id: string): void {
    switch (event.type) {
      case 'MessageSent':
        return this.#send(id, event.metadata.actor.userId ?? '', event.revision, event.metadata.at)
      case 'ReadUpTo':
        return this.#read(event, id)
      case 'DeliveredUpTo':
        return this.#deliver(event, id)
      case 'MemberJoined':
      case 'MemberLeft':
      case 'MemberRemoved':
        this.#cursors.set(id, event.data.userId, { ...unmoved(), wiped: true })
        return
      default:
        return
    }
  }

  #send(conversationId: string, senderId: string, seq: number, at: number): void {
    Object.assign(this.#cursors.ensure(conversationId, senderId, unmoved), { sentSeq: seq, sentAt: at })
  }

  #read({ data, metadata, position }: RecordedFact<Of<'ReadUpTo'>>, conversationId: string): void {
    const cursor = this.#cursorOf(conversationId, data, position)
    if (!cursor || data.seq <= (cursor.readSeq ?? -1)) return
    cursor.readSeq = data.seq
    cursor.readAt = metadata.at
  }

  #deliver({ data, metadata, position }: RecordedFact<Of<'DeliveredUpTo'>>, conversationId: string): void {
    const cursor = this.#cursorOf(conversationId, data, position)
    if (!cursor || data.seq <= (cursor.deliveredSeq ?? -1)) return
    cursor.deliveredSeq = data.seq
    cursor.deliveredAt = metadata.at
  }

  /** A cursor may still be written after its membership has ended, even when its user has come back: it must not move those of a later one. */
  #cursorOf(
    conversationId: string,
    { userId, joinedSeq = 0 }: { userId: string; joinedSeq?: number },
    position: Position,
  ): CursorChange | undefined {
    const cursor = this.#cursors.ensure(conversationId, userId, unmoved)
    if (joinedSeq < cursor.joinedSeq) return undefined
    if (joinedSeq > cursor.joinedSeq) Object.assign(cursor, noCursors)
    cursor.joinedSeq = joinedSeq
    cursor.position = position
    return cursor
  }

  async flush(db: Database): Promise<void> {
    const entries = this.#cursors.entries()
    const wiped = entries.filter(({ value }) => value.wiped)
    const moved = entries.filter(({ value }) => value.readSeq !== null || value.deliveredSeq !== null || value.sentSeq !== null)
    if (wiped.length > 0) await dropCursors(db, wiped)
    if (moved.length > 0) await moveCursors(db, moved)
  }
}

async function dropCursors(db: Database, entries: readonly Entry[]): Promise<void> {
  await sql`
    DELETE FROM receipts r USING unnest(${texts(entries, (e) => e.first)}::text[],
      ${texts(entries, (e) => e.second)}::text[]) AS u(conversation_id, user_id)
    WHERE r.conversation_id = u.conversation_id AND r.user_id = u.user_id`.execute(db)
}

async function moveCursors(db: Database, entries: readonly Entry[]): Promise<void> {
  // Those of a later membership take the place of what is there; those of an earlier one are dropped.
  const cursor = (column: string) => {
    const [old, next] = [sql.ref(`r.${column}`), sql.ref(`excluded.${column}`)]
    return sql`CASE WHEN excluded.joined_seq > r.joined_seq THEN ${next} WHEN excluded.joined_seq = r.joined_seq THEN greatest(${old}, ${next})
      ELSE ${old} END`
  }
  const time = (of: string) => {
    const [oldSeq, nextSeq] = [sql.ref(`r.${of}_seq`), sql.ref(`excluded.${of}_seq`)]
    return sql`CASE WHEN excluded.joined_seq > r.joined_seq
      OR (excluded.joined_seq = r.joined_seq AND ${nextSeq} > coalesce(${oldSeq}, -1))
      THEN ${sql.ref(`excluded.${of}_at`)} ELSE ${sql.ref(`r.${of}_at`)} END`
  }
  await sql`
    INSERT INTO receipts AS r (conversation_id, user_id, read_seq, read_at, delivered_seq, delivered_at, joined_seq, sent_seq, sent_at, position)
    SELECT * FROM unnest(
      ${texts(entries, (e) => e.first)}::text[], ${texts(entries, (e) => e.second)}::text[],
      ${integers(entries, (e) => e.value.readSeq)}::integer[], ${bigints(entries, (e) => e.value.readAt)}::bigint[],
      ${integers(entries, (e) => e.value.deliveredSeq)}::integer[], ${bigints(entries, (e) => e.value.deliveredAt)}::bigint[],
      ${integers(entries, (e) => e.value.joinedSeq)}::integer[], ${integers(entries, (e) => e.value.sentSeq)}::integer[],
      ${bigints(entries, (e) => e.value.sentAt)}::bigint[], ${texts(entries, (e) => e.value.position)}::text[])
    ON CONFLICT (conversation_id, user_id) DO UPDATE SET
      read_at = ${time('read')}, read_seq = ${cursor('read_seq')},
      delivered_at = ${time('delivered')}, delivered_seq = ${cursor('delivered_seq')},
      position = CASE WHEN excluded.joined_seq < r.joined_seq THEN r.position ELSE coalesce(excluded.position, r.position) END,
      joined_seq = greatest(r.joined_seq, excluded.joined_seq),
      sent_seq = coalesce(excluded.sent_seq, r.sent_seq), sent_at = coalesce(excluded.sent_at, r.sent_at)`.execute(db)
}

/** As `GET /conversations/{id}/receipts` answers it; null where never. */
export interface Receipt {
  userId: string
  readSeq: number | null
  readAt: string | null
  deliveredSeq: number | null
  deliveredAt: string | null
}

interface ReceiptRow {
  user_id: string
  read_seq: number | null
  read_at: number | null
  delivered_seq: number | null
  delivered_at: number | null
  joined_seq: number
  rank: number
  applied: Position
}

export interface ReceiptsOptions extends PageOptions {
  /** Only those who have read this message, other than its sender. */
  readBy?: number | undefined
}

const receiptList = new PagedList('receipts', ['number', 'number'])

/** Joins `receipts r` and `members m`; cursors of an earlier membership give nothing. */
const ofMembership = (column: string) => sql`CASE WHEN r.joined_seq = m.joined_seq THEN ${sql.ref(`r.${column}`)} END`
const readSeq = sql`greatest(${ofMembership('read_seq')}, r.sent_seq)`

/** A page of the members in the order in which they joined, with their cursors. */
export async function listReceipts(db: Database, conversationId: string, options: ReceiptsOptions): Promise<Page<Receipt>> {
  const { cursor, limit, readBy } = options
  // Those who have read one message are a list of their own.
  const owner = readBy === undefined ? conversationId : `${conversationId} ${readBy}`
  const [seq, rank] = receiptList.after(owner, cursor) ?? [-1, 0]
  const whoRead =
    readBy === undefined
      ? sql``
      : sql`
    AND ${readSeq} >= ${readBy}::bigint
    AND m.user_id IS DISTINCT FROM (SELECT sender_id FROM messages WHERE conversation_id = ${conversationId} AND seq = ${readBy}::bigint)`
  const { rows } = await sql<ReceiptRow>`
    SELECT m.user_id, m.joined_seq, m.rank, ${readSeq} AS read_seq,
      CASE WHEN r.sent_seq >= ${readSeq} THEN r.sent_at ELSE ${ofMembership('read_at')} END AS read_at,
      ${ofMembership('delivered_seq')} AS delivered_seq, ${ofMembership('delivered_at')} AS delivered_at,
      ${appliedOf('receipts')} AS applied
    FROM members m LEFT JOIN receipts r ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id
    WHERE m.conversation_id = ${conversationId} AND (m.joined_seq, m.rank) > (${seq}::integer, ${rank}::integer) ${whoRead}
    ORDER BY m.joined_seq, m.rank LIMIT ${limit + 1}`.execute(db)
  return receiptList.page(owner, rows, options, toReceipt, (row) => [row.joined_seq, row.rank])
}

const toReceipt = (row: ReceiptRow): Receipt => ({
  userId: row.user_id,
  readSeq: row.read_seq,
  readAt: isoTimeOrNull(row.read_at),
  deliveredSeq: row.delivered_seq,
  deliveredAt: isoTimeOrNull(row.delivered_at),
})

export interface MovedCursor {
  conversationId: string
  userId: string
  readSeq: number | null
  deliveredSeq: number | null
}

/** For each question the members' cursors that moved after `position`, in these conversations. */
export async function receiptsAfter(
  db: Database,
  questions: readonly { conversationIds: readonly string[]; position: Position }[],
): Promise<MovedCursor[][]> {
  const asked = questions.flatMap(({ conversationIds, position }, i) => conversationIds.map((id) => ({ id, position, n: i + 1 })))
  const { rows } = await sql<MovedRow>`
    SELECT asked.n, r.conversation_id, r.user_id, ${readSeq} AS read_seq, r.delivered_seq
    FROM unnest(${texts(asked, ({ id }) => id)}::text[], ${texts(asked, ({ position }) => position)}::text[],
      ${integers(asked, ({ n }) => n)}::integer[]) AS asked (conversation_id, position, n)
    JOIN receipts r ON r.conversation_id = asked.conversation_id AND r.position > asked.position COLLATE "C"
    JOIN members m ON m.conversation_id = r.conversation_id AND m.user_id = r.user_id AND m.joined_seq = r.joined_seq`.execute(db)
  return rowsByQuestion(rows, questions.length).map((own) =>
    own.map((row) => ({
      conversationId: row.conversation_id,
      userId: row.user_id,
      readSeq: row.read_seq,
      deliveredSeq: row.delivered_seq,
    })),
  )
}

interface MovedRow {
  n: number
  conversation_id: string
  user_id: string
  read_seq: number | null
  delivered_seq: number | null
}
