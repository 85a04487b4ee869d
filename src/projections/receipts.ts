/** Read model `receipts`: who has read and received up to where. */
import { sql } from 'kysely'
import type { Position } from '../domain/event-store.js'
import type { AnyEvent, RecordedFact } from '../domain/events.js'
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
    /** Of the last cursor event; sending moves the cursor too, but who follows the conversation sees that by itself. */
    position: string | null
  }
}

export const receiptsProjection: Projection = {
  name: 'receipts',
  version: 1,
  settings: '',
  tables: ['receipts'],
  ddl: `
    CREATE TABLE receipts (
      conversation_id text COLLATE "C", user_id text COLLATE "C", read_seq integer, read_at bigint, delivered_seq integer,
        delivered_at bigint,
      position text COLLATE "C",
      PRIMARY KEY (conversation_id, user_id)
    ) WITH (fillfactor = 70);`,
  indexes: 'CREATE INDEX receipts_moved ON receipts (conversation_id, position) WHERE position IS NOT NULL;',
  begin: () => new ReceiptsFold(),
}

interface CursorChange {
  /** What the table has is void: the user left or joined. */
  wiped: boolean
  readSeq: number | null
  readAt: number | null
  deliveredSeq: number | null
  deliveredAt: number | null
  position: Position | null
}

type Entry = { first: string; second: string; value: CursorChange }

const unmoved = (): CursorChange => ({ wiped: false, readSeq: null, readAt: null, deliveredSeq: null, deliveredAt: null, position: null })

class ReceiptsFold implements Fold {
  readonly #cursors = new PairMap<CursorChange>()

  collect(event: RecordedFact<AnyEvent>, id: string): void {
    switch (event.type) {
      case 'MessageSent':
        this.#read(id, event.metadata.actor.userId ?? '', event.revision, event.metadata.at)
        return
      case 'ReadUpTo':
        this.#read(id, event.data.userId, event.data.seq, event.metadata.at).position = event.position
        return
      case 'DeliveredUpTo':
        return this.#deliver(event, id)
      // A cursor may still be flushed after its member has left: joining begins anew.
      case 'MemberJoined':
      case 'MemberLeft':
      case 'MemberRemoved':
        this.#cursors.set(id, event.data.userId, { ...unmoved(), wiped: true })
        return
      default:
        return
    }
  }

  #read(conversationId: string, userId: string, seq: number, at: number): CursorChange {
    const cursor = this.#cursors.ensure(conversationId, userId, unmoved)
    if (seq > (cursor.readSeq ?? -1)) {
      cursor.readSeq = seq
      cursor.readAt = at
    }
    return cursor
  }

  #deliver({ data, metadata, position }: RecordedFact<Extract<AnyEvent, { type: 'DeliveredUpTo' }>>, conversationId: string): void {
    const cursor = this.#cursors.ensure(conversationId, data.userId, unmoved)
    cursor.position = position
    if (data.seq <= (cursor.deliveredSeq ?? -1)) return
    cursor.deliveredSeq = data.seq
    cursor.deliveredAt = metadata.at
  }

  async flush(db: Database): Promise<void> {
    const entries = this.#cursors.entries()
    const wiped = entries.filter(({ value }) => value.wiped)
    const moved = entries.filter(({ value }) => value.readSeq !== null || value.deliveredSeq !== null)
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
  await sql`
    INSERT INTO receipts AS r (conversation_id, user_id, read_seq, read_at, delivered_seq, delivered_at, position)
    SELECT * FROM unnest(
      ${texts(entries, (e) => e.first)}::text[], ${texts(entries, (e) => e.second)}::text[],
      ${integers(entries, (e) => e.value.readSeq)}::integer[], ${bigints(entries, (e) => e.value.readAt)}::bigint[],
      ${integers(entries, (e) => e.value.deliveredSeq)}::integer[], ${bigints(entries, (e) => e.value.deliveredAt)}::bigint[],
      ${texts(entries, (e) => e.value.position)}::text[])
    ON CONFLICT (conversation_id, user_id) DO UPDATE SET
      read_at = CASE WHEN excluded.read_seq > coalesce(r.read_seq, -1) THEN excluded.read_at ELSE r.read_at END,
      read_seq = greatest(r.read_seq, excluded.read_seq),
      delivered_at = CASE WHEN excluded.delivered_seq > coalesce(r.delivered_seq, -1) THEN excluded.delivered_at ELSE r.delivered_at END,
      delivered_seq = greatest(r.delivered_seq, excluded.delivered_seq),
      position = coalesce(excluded.position, r.position)`.execute(db)
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

/** A page of the members in the order in which they joined, with their cursors. */
export async function listReceipts(
  db: Database,
  conversationId: string,
  { cursor, limit, readBy }: ReceiptsOptions,
): Promise<Page<Receipt>> {
  // Those who have read one message are a list of their own.
  const owner = readBy === undefined ? conversationId : `${conversationId} ${readBy}`
  const [seq, rank] = receiptList.after(owner, cursor) ?? [-1, 0]
  const whoRead =
    readBy === undefined
      ? sql``
      : sql`
    AND r.read_seq >= ${readBy}::bigint
    AND m.user_id IS DISTINCT FROM (SELECT sender_id FROM messages WHERE conversation_id = ${conversationId} AND seq = ${readBy}::bigint)`
  const { rows } = await sql<ReceiptRow>`
    SELECT m.user_id, m.joined_seq, m.rank, r.read_seq, r.read_at, r.delivered_seq, r.delivered_at,
      ${appliedOf('receipts')} AS applied
    FROM members m LEFT JOIN receipts r ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id
    WHERE m.conversation_id = ${conversationId} AND (m.joined_seq, m.rank) > (${seq}::integer, ${rank}::integer) ${whoRead}
    ORDER BY m.joined_seq, m.rank LIMIT ${limit + 1}`.execute(db)
  return receiptList.page(owner, rows, limit, toReceipt, (row) => [row.joined_seq, row.rank])
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
    SELECT asked.n, r.conversation_id, r.user_id, r.read_seq, r.delivered_seq
    FROM unnest(${texts(asked, ({ id }) => id)}::text[], ${texts(asked, ({ position }) => position)}::text[],
      ${integers(asked, ({ n }) => n)}::integer[]) AS asked (conversation_id, position, n)
    JOIN receipts r ON r.conversation_id = asked.conversation_id AND r.position > asked.position COLLATE "C"
    JOIN members m ON m.conversation_id = r.conversation_id AND m.user_id = r.user_id`.execute(db)
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
