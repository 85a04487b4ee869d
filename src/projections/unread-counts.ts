/** Read model `unread_counts`: how far each member has read, and which mentions it has not. */
import { sql } from 'kysely'
import type { AnyEvent, ReceiptEvent, RecordedFact } from '../domain/events.js'
import { integers, texts } from './arrays.js'
import type { Database } from './database.js'
import { type Fold, PairMap, type Projection } from './projection.js'

export interface UnreadCountsTables {
  /** One row a member, from the ordinal at which it joined: unread is `last_ordinal - read_ordinal`. */
  unread_counts: { conversation_id: string; user_id: string; joined_seq: number; read_seq: number | null; read_ordinal: number }
  /** Unread ones, of members only and not of oneself. */
  mentions: { user_id: string; conversation_id: string; ordinal: number }
  /** Where somebody who joins starts. */
  unread_conversations: { conversation_id: string; last_ordinal: number }
}

export const unreadCountsProjection: Projection = {
  name: 'unread-counts',
  version: 3,
  settings: '',
  tables: ['unread_counts', 'mentions', 'unread_conversations'],
  ddl: `
    CREATE TABLE unread_counts (
      conversation_id text COLLATE "C", user_id text COLLATE "C", joined_seq integer NOT NULL, read_seq integer, read_ordinal integer NOT NULL,
      PRIMARY KEY (conversation_id, user_id)
    ) WITH (fillfactor = 70);
    CREATE TABLE mentions (
      user_id text COLLATE "C", conversation_id text COLLATE "C", ordinal integer,
      PRIMARY KEY (user_id, conversation_id, ordinal)
    );
    CREATE TABLE unread_conversations (
      conversation_id text COLLATE "C" PRIMARY KEY, last_ordinal integer NOT NULL
    ) WITH (fillfactor = 50);`,
  // By both, like the primary key: whichever of the two a plan takes to a member's row, it finds that one.
  indexes: 'CREATE INDEX unread_counts_of_user ON unread_counts (user_id, conversation_id);',
  begin: () => new UnreadCountsFold(),
}

type ReadUpTo = Extract<ReceiptEvent, { type: 'ReadUpTo' }>['data']

interface CursorChange {
  /** Undefined: as the table has it. */
  membership: 'joined' | 'left' | undefined
  /** Undefined: that of the table's conversation. */
  joinedOrdinal: number | undefined
  /** Belongs to the membership that begins in this batch, else to the one in which `read` was said. */
  joinedSeq: number
  /** By a cursor: it counts in the membership of which it is, and in no other. */
  read: Read | undefined
  /** By sending. */
  sent: Read | undefined
  mentions: number[]
}

interface Read {
  seq: number
  ordinal: number
}

type Entry = { first: string; second: string; value: CursorChange }

const unmoved = (): CursorChange => ({
  membership: undefined,
  joinedOrdinal: undefined,
  joinedSeq: 0,
  read: undefined,
  sent: undefined,
  mentions: [],
})

class UnreadCountsFold implements Fold {
  readonly #cursors = new PairMap<CursorChange>()
  readonly #lastOrdinals = new Map<string, number>()

  collect(event: RecordedFact<AnyEvent>, id: string): void {
    switch (event.type) {
      case 'MessageSent': {
        const { ordinal, mentions } = event.data
        const senderId = event.metadata.actor.userId ?? ''
        this.#lastOrdinals.set(id, ordinal)
        this.#send(id, senderId, { seq: event.revision, ordinal })
        if (mentions) for (const userId of new Set(mentions)) if (userId !== senderId) this.#mention(id, userId, ordinal)
        return
      }
      case 'ReadUpTo':
        return this.#read(id, event.data)
      case 'ConversationCreated':
        this.#lastOrdinals.set(id, 0)
        for (const { userId } of event.data.members) this.#join(id, userId, event.revision)
        return
      case 'MemberJoined':
        return this.#join(id, event.data.userId, event.revision)
      case 'MemberLeft':
      case 'MemberRemoved':
        this.#cursors.set(id, event.data.userId, { ...unmoved(), membership: 'left' })
        return
      default:
        return
    }
  }

  #join(conversationId: string, userId: string, joinedSeq: number): void {
    const joinedOrdinal = this.#lastOrdinals.get(conversationId)
    this.#cursors.set(conversationId, userId, { ...unmoved(), membership: 'joined', joinedOrdinal, joinedSeq })
  }

  #send(conversationId: string, senderId: string, sent: Read): void {
    const cursor = this.#cursors.ensure(conversationId, senderId, unmoved)
    if (cursor.membership !== 'left') cursor.sent = sent
  }

  /** A cursor may still be written after its membership has ended, even when its user has come back. */
  #read(conversationId: string, { userId, seq, ordinal, joinedSeq = 0 }: ReadUpTo): void {
    const cursor = this.#cursors.ensure(conversationId, userId, unmoved)
    if (cursor.membership === 'left' || joinedSeq < cursor.joinedSeq) return
    if (joinedSeq > cursor.joinedSeq) {
      if (cursor.membership === 'joined') return
      Object.assign(cursor, { joinedSeq, read: undefined })
    }
    if (seq >= (cursor.read?.seq ?? -1)) cursor.read = { seq, ordinal }
  }

  #mention(conversationId: string, userId: string, ordinal: number): void {
    const cursor = this.#cursors.ensure(conversationId, userId, unmoved)
    if (cursor.membership !== 'left') cursor.mentions.push(ordinal)
  }

  async flush(db: Database): Promise<void> {
    const entries = this.#cursors.entries()
    const moved = entries.filter(({ value }) => value.membership !== undefined)
    const joined = moved.filter(({ value }) => value.membership === 'joined')
    const left = moved.filter(({ value }) => value.membership === 'left')
    const moving = entries.filter(({ value }) => value.membership === undefined)
    const mentioned = entries.flatMap(({ first, second, value }) => value.mentions.map((ordinal) => ({ first, second, ordinal })))
    if (moved.length > 0) await dropMentions(db, moved)
    if (left.length > 0) await dropCursors(db, left)
    if (joined.length > 0) await insertCursors(db, joined)
    for (const kind of ['sent', 'read'] as const) {
      const moved = moving.filter(({ value }) => value[kind] !== undefined)
      if (moved.length > 0) await moveCursors(db, moved, kind)
    }
    if (mentioned.length > 0) await insertMentions(db, mentioned)
    // Last: who joined before any message of this batch started at the ordinal in the table.
    if (this.#lastOrdinals.size > 0) await writeLastOrdinals(db, [...this.#lastOrdinals])
  }
}

const keys = (entries: readonly { first: string; second: string }[]) =>
  sql`${texts(entries, (e) => e.first)}::text[], ${texts(entries, (e) => e.second)}::text[]`

async function dropMentions(db: Database, entries: readonly Entry[]): Promise<void> {
  await sql`
    DELETE FROM mentions m USING unnest(${keys(entries)}) AS u(conversation_id, user_id)
    WHERE m.user_id = u.user_id AND m.conversation_id = u.conversation_id`.execute(db)
}

async function dropCursors(db: Database, entries: readonly Entry[]): Promise<void> {
  await sql`
    DELETE FROM unread_counts c USING unnest(${keys(entries)}) AS u(conversation_id, user_id)
    WHERE c.conversation_id = u.conversation_id AND c.user_id = u.user_id`.execute(db)
}

/** Gives the further of the two cursors, if there is one. */
const furthest = ({ read, sent }: CursorChange): Read | undefined => (!sent || (read && read.seq > sent.seq) ? read : sent)

async function insertCursors(db: Database, entries: readonly Entry[]): Promise<void> {
  await sql`
    INSERT INTO unread_counts (conversation_id, user_id, joined_seq, read_seq, read_ordinal)
    SELECT u.conversation_id, u.user_id, u.joined_seq, u.read_seq, greatest(u.read_ordinal, coalesce(u.joined_ordinal, c.last_ordinal, 0))
    FROM unnest(
      ${keys(entries)}, ${integers(entries, (e) => e.value.joinedSeq)}::integer[],
      ${integers(entries, (e) => furthest(e.value)?.seq)}::integer[], ${integers(entries, (e) => furthest(e.value)?.ordinal)}::integer[],
      ${integers(entries, (e) => e.value.joinedOrdinal)}::integer[]
    ) AS u(conversation_id, user_id, joined_seq, read_seq, read_ordinal, joined_ordinal)
    LEFT JOIN unread_conversations c ON c.conversation_id = u.conversation_id
    ON CONFLICT (conversation_id, user_id) DO UPDATE SET
      joined_seq = excluded.joined_seq, read_seq = excluded.read_seq, read_ordinal = excluded.read_ordinal`.execute(db)
}

/** Sending moves the cursor of the membership that there is; a cursor that of its own alone. */
async function moveCursors(db: Database, entries: readonly Entry[], kind: 'sent' | 'read'): Promise<void> {
  await sql`
    UPDATE unread_counts c SET read_seq = u.read_seq, read_ordinal = greatest(c.read_ordinal, u.read_ordinal)
    FROM unnest(
      ${keys(entries)}, ${integers(entries, (e) => (kind === 'sent' ? null : e.value.joinedSeq))}::integer[],
      ${integers(entries, (e) => e.value[kind]!.seq)}::integer[], ${integers(entries, (e) => e.value[kind]!.ordinal)}::integer[]
    ) AS u(conversation_id, user_id, joined_seq, read_seq, read_ordinal)
    WHERE c.conversation_id = u.conversation_id AND c.user_id = u.user_id AND u.read_seq > coalesce(c.read_seq, -1)
      AND c.joined_seq = coalesce(u.joined_seq, c.joined_seq)`.execute(db)
  await sql`
    DELETE FROM mentions m USING unnest(${keys(entries)}) AS u(conversation_id, user_id), unread_counts c
    WHERE m.user_id = u.user_id AND m.conversation_id = u.conversation_id
      AND c.conversation_id = u.conversation_id AND c.user_id = u.user_id AND m.ordinal <= c.read_ordinal`.execute(db)
}

/** After the cursors have moved: what was read within the batch is not unread. */
async function insertMentions(db: Database, mentioned: readonly { first: string; second: string; ordinal: number }[]): Promise<void> {
  await sql`
    INSERT INTO mentions (user_id, conversation_id, ordinal)
    SELECT u.user_id, u.conversation_id, u.ordinal
    FROM unnest(${keys(mentioned)}, ${integers(mentioned, (m) => m.ordinal)}::integer[]) AS u(conversation_id, user_id, ordinal)
    JOIN unread_counts c ON c.conversation_id = u.conversation_id AND c.user_id = u.user_id AND c.read_ordinal < u.ordinal`.execute(db)
}

async function writeLastOrdinals(db: Database, ordinals: readonly [string, number][]): Promise<void> {
  await sql`
    INSERT INTO unread_conversations (conversation_id, last_ordinal)
    SELECT * FROM unnest(${texts(ordinals, ([id]) => id)}::text[], ${integers(ordinals, ([, ordinal]) => ordinal)}::integer[])
    ON CONFLICT (conversation_id) DO UPDATE SET last_ordinal = excluded.last_ordinal`.execute(db)
}

/** As `GET /unread` answers it. */
export interface UnreadCounts {
  /** Without muted conversations. */
  total: number
  /** Muted conversations count. */
  mentions: number
  conversations: { conversationId: string; unread: number; mentions: number }[]
  position: string
}

const UNREAD_CONVERSATIONS_MAX = 1_000

/** Whether the user has left a conversation, though the tables may not know it yet. */
export type HasLeft = (conversationId: string) => boolean

/** What a user has not read: totals over everything, and the newest conversations with unread messages. */
export async function findUnreadCounts(db: Database, userId: string, hasLeft: HasLeft = () => false): Promise<UnreadCounts> {
  const { rows } = await sql<{
    applied: string
    conversation_id: string | null
    unread: number
    mentions: number
    muted: boolean
    total: number
    all_mentions: number
  }>`
    SELECT at.position AS applied, line.* FROM checkpoints at
    LEFT JOIN LATERAL (
      SELECT r.conversation_id, c.last_ordinal - r.read_ordinal AS unread, n.mentions, c.last_message_position,
        coalesce(i.muted, false) AS muted, sum(CASE WHEN i.muted THEN 0 ELSE c.last_ordinal - r.read_ordinal END) OVER () AS total,
        sum(n.mentions) OVER ()::bigint AS all_mentions
      FROM unread_counts r
      JOIN conversations c ON c.id = r.conversation_id
      LEFT JOIN inbox i ON i.conversation_id = r.conversation_id AND i.user_id = r.user_id
      CROSS JOIN LATERAL (SELECT count(*) AS mentions FROM mentions m WHERE m.user_id = r.user_id AND m.conversation_id = r.conversation_id) n
      WHERE r.user_id = ${userId} AND c.last_ordinal > r.read_ordinal
      ORDER BY c.last_message_position DESC LIMIT ${sql.lit(UNREAD_CONVERSATIONS_MAX)}
    ) line ON true
    WHERE at.projection = 'unread-counts' ORDER BY line.last_message_position DESC`.execute(db)
  const unread = rows.filter(({ conversation_id }) => conversation_id !== null)
  const [left, own] = [unread.filter((row) => hasLeft(row.conversation_id!)), unread.filter((row) => !hasLeft(row.conversation_id!))]
  return {
    total: (unread[0]?.total ?? 0) - sumOf(left, (row) => (row.muted ? 0 : row.unread)),
    mentions: (unread[0]?.all_mentions ?? 0) - sumOf(left, (row) => row.mentions),
    conversations: own.map((row) => ({ conversationId: row.conversation_id!, unread: row.unread, mentions: row.mentions })),
    position: rows[0]?.applied ?? '',
  }
}

const sumOf = <Row>(rows: readonly Row[], countOf: (row: Row) => number) => rows.reduce((sum, row) => sum + countOf(row), 0)
