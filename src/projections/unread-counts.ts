/** Read model `unread_counts`: how far each member has read, and which mentions it has not. */
import { sql } from 'kysely'
import type { AnyEvent, RecordedFact } from '../domain/events.js'
import { integers, texts } from './arrays.js'
import type { Database } from './database.js'
import { type Fold, PairMap, type Projection } from './projection.js'

export interface UnreadCountsTables {
  /** One row a member, from the ordinal at which it joined: unread is `last_ordinal - read_ordinal`. */
  unread_counts: { conversation_id: string; user_id: string; read_seq: number | null; read_ordinal: number }
  /** Unread ones, of members only and not of oneself. */
  mentions: { user_id: string; conversation_id: string; ordinal: number }
  /** Where somebody who joins starts. */
  unread_conversations: { conversation_id: string; last_ordinal: number }
}

export const unreadCountsProjection: Projection = {
  name: 'unread-counts',
  version: 2,
  settings: '',
  tables: ['unread_counts', 'mentions', 'unread_conversations'],
  ddl: `
    CREATE TABLE unread_counts (
      conversation_id text COLLATE "C", user_id text COLLATE "C", read_seq integer, read_ordinal integer NOT NULL,
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

interface CursorChange {
  /** Undefined: as the table has it. */
  membership: 'joined' | 'left' | undefined
  /** Undefined: that of the table's conversation. */
  joinedOrdinal: number | undefined
  readSeq: number | null
  readOrdinal: number
  mentions: number[]
}

type Entry = { first: string; second: string; value: CursorChange }

const unmoved = (): CursorChange => ({ membership: undefined, joinedOrdinal: undefined, readSeq: null, readOrdinal: -1, mentions: [] })

class UnreadCountsFold implements Fold {
  readonly #cursors = new PairMap<CursorChange>()
  readonly #lastOrdinals = new Map<string, number>()

  collect(event: RecordedFact<AnyEvent>, id: string): void {
    switch (event.type) {
      case 'MessageSent': {
        const { ordinal, mentions } = event.data
        const senderId = event.metadata.actor.userId ?? ''
        this.#lastOrdinals.set(id, ordinal)
        this.#read(id, senderId, event.revision, ordinal)
        if (mentions) for (const userId of new Set(mentions)) if (userId !== senderId) this.#mention(id, userId, ordinal)
        return
      }
      case 'ReadUpTo':
        return this.#read(id, event.data.userId, event.data.seq, event.data.ordinal)
      case 'ConversationCreated':
        this.#lastOrdinals.set(id, 0)
        for (const { userId } of event.data.members) this.#join(id, userId)
        return
      case 'MemberJoined':
        return this.#join(id, event.data.userId)
      case 'MemberLeft':
      case 'MemberRemoved':
        this.#cursors.set(id, event.data.userId, { ...unmoved(), membership: 'left' })
        return
      default:
        return
    }
  }

  #join(conversationId: string, userId: string): void {
    this.#cursors.set(conversationId, userId, { ...unmoved(), membership: 'joined', joinedOrdinal: this.#lastOrdinals.get(conversationId) })
  }

  #read(conversationId: string, userId: string, seq: number, ordinal: number): void {
    const cursor = this.#cursors.ensure(conversationId, userId, unmoved)
    if (cursor.membership === 'left' || seq < (cursor.readSeq ?? -1)) return
    cursor.readSeq = seq
    cursor.readOrdinal = Math.max(cursor.readOrdinal, ordinal)
    if (cursor.mentions.length > 0) cursor.mentions = cursor.mentions.filter((mentioned) => mentioned > ordinal)
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
    const read = entries.filter(({ value }) => value.membership === undefined && value.readSeq !== null)
    const mentioned = entries.flatMap(({ first, second, value }) => value.mentions.map((ordinal) => ({ first, second, ordinal })))
    if (moved.length > 0) await dropMentions(db, moved)
    if (left.length > 0) await dropCursors(db, left)
    if (joined.length > 0) await insertCursors(db, joined)
    if (read.length > 0) await moveCursors(db, read)
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

async function insertCursors(db: Database, entries: readonly Entry[]): Promise<void> {
  await sql`
    INSERT INTO unread_counts (conversation_id, user_id, read_seq, read_ordinal)
    SELECT u.conversation_id, u.user_id, u.read_seq, greatest(u.read_ordinal, coalesce(u.joined_ordinal, c.last_ordinal, 0))
    FROM unnest(
      ${keys(entries)}, ${integers(entries, (e) => e.value.readSeq)}::integer[],
        ${integers(entries, (e) => e.value.readOrdinal)}::integer[],
      ${integers(entries, (e) => e.value.joinedOrdinal)}::integer[]
    ) AS u(conversation_id, user_id, read_seq, read_ordinal, joined_ordinal)
    LEFT JOIN unread_conversations c ON c.conversation_id = u.conversation_id
    ON CONFLICT (conversation_id, user_id) DO UPDATE SET read_seq = excluded.read_seq, read_ordinal = excluded.read_ordinal`.execute(db)
}

async function moveCursors(db: Database, entries: readonly Entry[]): Promise<void> {
  const reads = sql`unnest(
    ${keys(entries)}, ${integers(entries, (e) => e.value.readSeq)}::integer[], ${integers(entries, (e) => e.value.readOrdinal)}::integer[]
  ) AS u(conversation_id, user_id, read_seq, read_ordinal)`
  await sql`
    UPDATE unread_counts c SET read_seq = u.read_seq, read_ordinal = greatest(c.read_ordinal, u.read_ordinal) FROM ${reads}
    WHERE c.conversation_id = u.conversation_id AND c.user_id = u.user_id AND u.read_seq > coalesce(c.read_seq, -1)`.execute(db)
  await sql`
    DELETE FROM mentions m USING ${reads}
    WHERE m.user_id = u.user_id AND m.conversation_id = u.conversation_id AND m.ordinal <= u.read_ordinal`.execute(db)
}

async function insertMentions(db: Database, mentioned: readonly { first: string; second: string; ordinal: number }[]): Promise<void> {
  await sql`
    INSERT INTO mentions (user_id, conversation_id, ordinal)
    SELECT u.user_id, u.conversation_id, u.ordinal
    FROM unnest(${keys(mentioned)}, ${integers(mentioned, (m) => m.ordinal)}::integer[]) AS u(conversation_id, user_id, ordinal)
    JOIN unread_counts c ON c.conversation_id = u.conversation_id AND c.user_id = u.user_id`.execute(db)
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
