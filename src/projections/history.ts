/** Read model `history`: every message as it reads now, and who reacted. */
import { type RawBuilder, sql } from 'kysely'
import type { AnyEvent, Content, ConversationEvent, RecordedFact } from '../domain/events.js'
import { SEQ_MAX } from '../domain/ids.js'
import { bigints, booleans, integers, texts } from './arrays.js'
import { CopyRows, copyRows } from './copy.js'
import type { Database } from './database.js'
import { isoTime, isoTimeOrNull } from './pages.js'
import { type Fold, PairMap, type Projection } from './projection.js'

export interface HistoryTables {
  messages: {
    conversation_id: string
    seq: number
    ordinal: number
    sender_id: string
    client_message_id: string
    /** JSON; null once recalled: erased. */
    content: string | null
    reply_to_seq: number | null
    /** A JSON array, null where there is none. */
    mentions: string | null
    sent_at: number
    edited_at: number | null
    recalled_at: number | null
    recalled_by: string | null
    pinned: boolean
  }
  reactions: { conversation_id: string; seq: number; emoji: string; user_id: string; position: string }
}

const PARTITIONS = Array.from({ length: 8 }, (_, i) => `messages_${i}`)

const partition = (name: string, i: number) =>
  `CREATE TABLE ${name} PARTITION OF messages FOR VALUES WITH (MODULUS ${PARTITIONS.length}, REMAINDER ${i});`

export const historyProjection: Projection = {
  name: 'history',
  version: 2,
  settings: '',
  tables: [...PARTITIONS, 'messages', 'reactions'],
  ddl: `
    CREATE TABLE messages (
      conversation_id text COLLATE "C", seq integer, ordinal integer NOT NULL,
      sender_id text COLLATE "C" NOT NULL, client_message_id text COLLATE "C" NOT NULL, content text,
      reply_to_seq integer, mentions text, sent_at bigint NOT NULL, edited_at bigint, recalled_at bigint, recalled_by text COLLATE "C",
      pinned boolean NOT NULL DEFAULT false,
      PRIMARY KEY (conversation_id, seq)
    ) PARTITION BY HASH (conversation_id);
    ${PARTITIONS.map(partition).join('\n    ')}
    CREATE TABLE reactions (
      conversation_id text COLLATE "C", seq integer, emoji text COLLATE "C", user_id text COLLATE "C", position text COLLATE "C" NOT NULL,
      PRIMARY KEY (conversation_id, seq, emoji, user_id)
    );`,
  // Hashes: half of what an index over the texts costs. Who looks up compares the columns too; that a message is
  // there once is the checkpoint's doing.
  indexes: `
    CREATE INDEX messages_client_id ON messages (hashtext(conversation_id || sender_id), hashtext(client_message_id));
    CREATE INDEX messages_pinned ON messages (conversation_id, seq) WHERE pinned;`,
  begin: () => new HistoryFold(),
}

type Of<Type extends ConversationEvent['type']> = RecordedFact<Extract<ConversationEvent, { type: Type }>>

/** What became of a message after it was sent. */
interface MessageChange {
  content?: Content
  editedAt?: number
  recalledAt?: number
  recalledBy?: string | null
  pinned?: boolean
}

type ReactionChange = { conversationId: string; seq: number; emoji: string; userId: string; position: string | null }

class HistoryFold implements Fold {
  /** By conversation, so that rows reach the table and its indexes in their order. */
  readonly #sent = new Map<string, CopyRows>()
  readonly #changes = new Map<string, Map<number, MessageChange>>()
  readonly #reactions = new PairMap<ReactionChange>()

  collect(event: RecordedFact<AnyEvent>, id: string): void {
    switch (event.type) {
      case 'MessageSent':
        return this.#send(event, id)
      case 'MessageEdited': {
        const change = this.#changeOf(id, event.data.messageSeq)
        change.content = event.data.content
        change.editedAt = event.metadata.at
        return
      }
      case 'MessageRecalled': {
        const change = this.#changeOf(id, event.data.messageSeq)
        change.recalledAt = event.metadata.at
        change.recalledBy = event.metadata.actor.userId ?? null
        return
      }
      case 'MessagePinned':
        this.#changeOf(id, event.data.messageSeq).pinned = true
        return
      case 'MessageUnpinned':
        this.#changeOf(id, event.data.messageSeq).pinned = false
        return
      case 'ReactionAdded':
        return this.#react(event, id, event.position)
      case 'ReactionRemoved':
        return this.#react(event, id, null)
      default:
        return
    }
  }

  #send(event: Of<'MessageSent'>, conversationId: string): void {
    const { data, metadata, revision } = event
    let rows = this.#sent.get(conversationId)
    if (!rows) this.#sent.set(conversationId, (rows = new CopyRows()))
    rows
      .row(sentColumns.length)
      .text(conversationId)
      .integer(revision)
      .integer(data.ordinal)
      .text(metadata.actor.userId ?? '')
      .text(data.clientMessageId)
      .text(contentJson(event))
      .bigint(metadata.at)
      .integer(data.replyToSeq)
      .text(data.mentions === undefined || data.mentions.length === 0 ? undefined : JSON.stringify(data.mentions))
  }

  #changeOf(conversationId: string, seq: number): MessageChange {
    let changes = this.#changes.get(conversationId)
    if (!changes) this.#changes.set(conversationId, (changes = new Map<number, MessageChange>()))
    let change = changes.get(seq)
    if (!change) changes.set(seq, (change = {}))
    return change
  }

  #react({ data, metadata }: Of<'ReactionAdded' | 'ReactionRemoved'>, conversationId: string, position: string | null): void {
    const userId = metadata.actor.userId ?? ''
    this.#reactions.set(conversationId, `${data.messageSeq} ${data.emoji} ${userId}`, {
      conversationId,
      seq: data.messageSeq,
      emoji: data.emoji,
      userId,
      position,
    })
  }

  async flush(db: Database): Promise<void> {
    if (this.#sent.size > 0) await copyRows(db, 'messages', sentColumns, [...this.#sent.values()])
    // Also of messages of this very batch.
    const changes = [...this.#changes].flatMap(([conversationId, bySeq]) =>
      [...bySeq].map(([seq, change]) => ({ conversationId, seq, change })),
    )
    if (changes.length > 0) await updateMessages(db, changes)
    const reactions = this.#reactions.entries().map(({ value }) => value)
    if (reactions.length > 0) await writeReactions(db, reactions)
  }
}

const sentColumns = [
  'conversation_id',
  'seq',
  'ordinal',
  'sender_id',
  'client_message_id',
  'content',
  'sent_at',
  'reply_to_seq',
  'mentions',
]

/** Cut out of what the log has, where that is three fields in the usual order; to write it anew costs more. */
function contentJson({ data, dataJson }: Of<'MessageSent'>): string {
  // A quote that no backslash precedes: no text can hold this.
  const before = `,"ordinal":${data.ordinal},"content":`
  const at = Object.keys(data).length === 3 && dataJson.startsWith('{"clientMessageId":') ? dataJson.indexOf(before) : -1
  return at < 0 ? JSON.stringify(data.content) : dataJson.slice(at + before.length, -1)
}

async function updateMessages(
  db: Database,
  changes: readonly { conversationId: string; seq: number; change: MessageChange }[],
): Promise<void> {
  await sql`
    UPDATE messages m SET
      content = CASE WHEN u.recalled_at IS NOT NULL THEN NULL ELSE coalesce(u.content, m.content) END,
      edited_at = coalesce(u.edited_at, m.edited_at), recalled_at = coalesce(u.recalled_at, m.recalled_at),
      recalled_by = coalesce(u.recalled_by, m.recalled_by), pinned = coalesce(u.pinned, m.pinned)
    FROM unnest(
      ${texts(changes, (c) => c.conversationId)}::text[], ${integers(changes, (c) => c.seq)}::integer[],
      ${texts(changes, ({ change }) => (change.content === undefined ? null : JSON.stringify(change.content)))}::text[],
      ${bigints(changes, ({ change }) => change.editedAt)}::bigint[], ${bigints(changes, ({ change }) => change.recalledAt)}::bigint[],
      ${texts(changes, ({ change }) => change.recalledBy)}::text[], ${booleans(changes, ({ change }) => change.pinned)}::boolean[]
    ) AS u(conversation_id, seq, content, edited_at, recalled_at, recalled_by, pinned)
    WHERE m.conversation_id = u.conversation_id AND m.seq = u.seq`.execute(db)
}

async function writeReactions(db: Database, reactions: readonly ReactionChange[]): Promise<void> {
  const added = reactions.filter(({ position }) => position !== null)
  const removed = reactions.filter(({ position }) => position === null)
  const keys = (rows: readonly ReactionChange[]) => sql`
    ${texts(rows, (r) => r.conversationId)}::text[], ${integers(rows, (r) => r.seq)}::integer[],
    ${texts(rows, (r) => r.emoji)}::text[], ${texts(rows, (r) => r.userId)}::text[]`
  if (removed.length > 0) {
    await sql`
      DELETE FROM reactions r USING unnest(${keys(removed)}) AS u(conversation_id, seq, emoji, user_id)
      WHERE r.conversation_id = u.conversation_id AND r.seq = u.seq AND r.emoji = u.emoji AND r.user_id = u.user_id`.execute(db)
  }
  if (added.length > 0) {
    await sql`
      INSERT INTO reactions SELECT * FROM unnest(${keys(added)}, ${texts(added, (r) => r.position)}::text[])
      ON CONFLICT (conversation_id, seq, emoji, user_id) DO UPDATE SET position = excluded.position`.execute(db)
  }
}

export interface Reaction {
  emoji: string
  count: number
  /** The first 20, in the order of reacting. */
  userIds: string[]
}

/** A message as `GET /conversations/{id}/messages/{seq}` answers it. */
export interface Message {
  conversationId: string
  seq: number
  ordinal: number
  senderId: string
  clientMessageId: string
  content: Content | null
  replyToSeq: number | null
  mentions: string[]
  sentAt: string
  editedAt: string | null
  recalledAt: string | null
  recalledBy: string | null
  reactions: Reaction[]
  pinned: boolean
}

export interface HistoryOptions {
  /** Exclusive. */
  before?: number | undefined
  /** Exclusive. */
  after?: number | undefined
  /** Inclusive, and as many on both sides as there are. */
  around?: number | undefined
  pinned?: boolean | undefined
  limit: number
  /** The page ends before the message with which it would come to more, but has at least one. */
  bytesMax: number
}

/** Messages as the table has them: it may not know recalls after `asOf`, the last revision of the conversation that it has seen. */
export interface MessagePage {
  asOf: number
  /** Ascending by seq. */
  items: Message[]
  /** The table has further ones: newer for `after` and `around`, else older. */
  more: boolean
}

type MessageRow = HistoryTables['messages'] & { reactions: string | null; bytes: number; found: number }
interface PageRow extends MessageRow {
  as_of: number
  is_newer: boolean
}

/** Messages ascending by seq; without a bound the newest. */
export async function listMessages(db: Database, conversationId: string, options: HistoryOptions): Promise<MessagePage> {
  const { after, around, limit, bytesMax, pinned } = options
  if (around !== undefined) return listAround(db, conversationId, { around, limit, bytesMax })
  const isNewer = after !== undefined && pinned !== true
  const page = isNewer ? newerThan(conversationId, after, options) : olderThan(conversationId, options.before ?? SEQ_MAX, options)
  const { asOf, older, newer } = await findPage(db, conversationId, page)
  const rows = isNewer ? newer : older
  return { asOf, items: (isNewer ? rows : rows.reverse()).map(toMessage), more: rows.length < (rows[0]?.found ?? 0) }
}

/** Half before and half after, and more of the one where the other has less. */
async function listAround(
  db: Database,
  conversationId: string,
  { around, limit, bytesMax }: { around: number; limit: number; bytesMax: number },
): Promise<MessagePage> {
  const bounds = { limit, bytesMax }
  const both = sql`${olderThan(conversationId, Math.min(around, SEQ_MAX - 1) + 1, bounds)} UNION ALL ${newerThan(conversationId, around, bounds)}`
  const { asOf, older, newer } = await findPage(db, conversationId, both)
  const [olderCount, newerCount] = balance(older, newer, bounds)
  const rows = [...older.slice(0, olderCount).reverse(), ...newer.slice(0, newerCount)]
  return { asOf, items: rows.map(toMessage), more: newerCount < (newer[0]?.found ?? 0) }
}

/** How many of each side, beginning with the message asked for and going outwards: where one side ends, the other goes on. */
function balance(
  older: readonly MessageRow[],
  newer: readonly MessageRow[],
  { limit, bytesMax }: { limit: number; bytesMax: number },
): [older: number, newer: number] {
  const counts: [number, number] = [0, 0]
  const ended = [older.length === 0, newer.length === 0]
  let bytes = 0
  for (let side = older.length > 0 ? 0 : 1; counts[0] + counts[1] < limit && !(ended[0] && ended[1]); side = 1 - side) {
    if (ended[side]) continue
    const rows = side === 0 ? older : newer
    const row = rows[counts[side]!]!
    const isFirst = counts[0] + counts[1] === 0
    if (isFirst || bytes + row.bytes <= bytesMax) {
      bytes += row.bytes
      counts[side]! += 1
    } else ended[side] = true
    if (counts[side] === rows.length) ended[side] = true
  }
  return counts
}

/** One message, or undefined where `seq` is none. */
export async function findMessage(
  db: Database,
  conversationId: string,
  seq: number,
): Promise<{ asOf: number; message: Message | undefined }> {
  const one = { limit: 1, bytesMax: 0 }
  const { asOf, older } = await findPage(db, conversationId, pageOf(conversationId, sql`seq = ${seq}::bigint`, 'older', one))
  return { asOf, message: older[0] && toMessage(older[0]) }
}

/** Seqs come from outside and may be beyond what a column holds. */
const bounded = (seq: number) => Math.max(-1, Math.min(seq, SEQ_MAX))

type Bounds = Pick<HistoryOptions, 'limit' | 'bytesMax' | 'pinned'>

const olderThan = (conversationId: string, before: number, bounds: Bounds) =>
  pageOf(conversationId, sql`seq < ${bounded(before)}::integer ${bounds.pinned === true ? sql`AND pinned` : sql``}`, 'older', bounds)
const newerThan = (conversationId: string, after: number, bounds: Bounds) =>
  pageOf(conversationId, sql`seq > ${bounded(after)}::integer`, 'newer', bounds)

/** What an answer has of each message beside content and reactions, about. */
const MESSAGE_OVERHEAD_BYTES = 500
const REACTED_USERS_MAX = 20

/** `found` counts one more than fits into the limit, where there is one. */
function pageOf(conversationId: string, condition: RawBuilder<unknown>, side: 'older' | 'newer', { limit, bytesMax }: Bounds) {
  const order = side === 'older' ? sql`DESC` : sql`ASC`
  return sql`(
    SELECT * FROM (
      SELECT ${side === 'newer'}::boolean AS is_newer, weighed.*, count(*) OVER () AS found, row_number() OVER w AS n,
        sum(bytes) OVER w AS bytes_so_far
      FROM (
        SELECT m.*, given.reactions,
          ${MESSAGE_OVERHEAD_BYTES}::integer + coalesce(octet_length(m.content), 0) + coalesce(octet_length(given.reactions), 0) AS bytes
        FROM (
          SELECT * FROM messages WHERE conversation_id = ${conversationId} AND ${condition} ORDER BY seq ${order} LIMIT ${limit + 1}
        ) m
        LEFT JOIN LATERAL (
          SELECT json_agg(json_build_object('emoji', emoji, 'count', count, 'userIds', user_ids) ORDER BY since)::text AS reactions
          FROM (
            SELECT emoji, count(*) AS count, min(position) AS since,
              (array_agg(user_id ORDER BY position))[1:${sql.lit(REACTED_USERS_MAX)}] AS user_ids
            FROM reactions r WHERE r.conversation_id = m.conversation_id AND r.seq = m.seq GROUP BY emoji
          ) by_emoji
        ) given ON true
      ) weighed WINDOW w AS (ORDER BY seq ${order})
    ) page WHERE n <= ${limit} AND (n = 1 OR bytes_so_far <= ${bytesMax}::integer)
  )`
}

/** Each side going outwards, and how far the table is: one statement, one snapshot. */
async function findPage(
  db: Database,
  conversationId: string,
  page: RawBuilder<unknown>,
): Promise<{ asOf: number; older: MessageRow[]; newer: MessageRow[] }> {
  const { rows } = await sql<PageRow>`
    SELECT c.head AS as_of, page.* FROM conversations c LEFT JOIN LATERAL (${page}) page ON true
    WHERE c.id = ${conversationId} ORDER BY page.n`.execute(db)
  const found = rows.filter(({ seq }) => seq !== null)
  return { asOf: rows[0]?.as_of ?? -1, older: found.filter((row) => !row.is_newer), newer: found.filter((row) => row.is_newer) }
}

const toMessage = (row: MessageRow): Message => ({
  conversationId: row.conversation_id,
  seq: row.seq,
  ordinal: row.ordinal,
  senderId: row.sender_id,
  clientMessageId: row.client_message_id,
  content: row.content === null ? null : (JSON.parse(row.content) as Content),
  replyToSeq: row.reply_to_seq,
  mentions: row.mentions === null ? [] : (JSON.parse(row.mentions) as string[]),
  sentAt: isoTime(row.sent_at),
  editedAt: isoTimeOrNull(row.edited_at),
  recalledAt: isoTimeOrNull(row.recalled_at),
  recalledBy: row.recalled_by,
  reactions: row.reactions === null ? [] : (JSON.parse(row.reactions) as Reaction[]),
  pinned: row.pinned,
})
