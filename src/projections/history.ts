/** Read model `history`: every message as it reads now, and who reacted. */
import { sql } from 'kysely'
import type { Recalls } from '../domain/conversation/state.js'
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

/** `recalls`: by the folded state, though the table may not know them yet. */
export interface HistoryOptions {
  /** Exclusive. */
  before?: number | undefined
  /** Exclusive. */
  after?: number | undefined
  /** Inclusive, and as many on both sides as there are. */
  around?: number | undefined
  pinned?: boolean | undefined
  limit: number
  recalls: Recalls
}

type MessageRow = HistoryTables['messages']

/** Messages ascending by seq; without a bound the newest. */
export async function listMessages(db: Database, conversationId: string, options: HistoryOptions): Promise<Message[]> {
  const rows =
    options.around === undefined
      ? await oneSide(db, conversationId, options)
      : await bothSides(db, conversationId, options.around, options.limit)
  return toMessages(db, conversationId, rows, options.recalls)
}

/** One message, or undefined where `seq` is none. */
export async function findMessage(db: Database, conversationId: string, seq: number, recalls: Recalls): Promise<Message | undefined> {
  const { rows } = await sql<MessageRow>`SELECT * FROM messages WHERE conversation_id = ${conversationId} AND seq = ${seq}::bigint`.execute(
    db,
  )
  return (await toMessages(db, conversationId, rows, recalls))[0]
}

/** Seqs come from outside and may be beyond what a column holds. */
const bounded = (seq: number) => Math.max(-1, Math.min(seq, SEQ_MAX))

async function oneSide(db: Database, conversationId: string, { before, after, pinned, limit }: HistoryOptions): Promise<MessageRow[]> {
  if (after !== undefined && pinned !== true) return upFrom(db, conversationId, bounded(after), limit)
  const onlyPinned = pinned === true ? sql`AND pinned` : sql``
  const { rows } = await sql<MessageRow>`
    SELECT * FROM messages WHERE conversation_id = ${conversationId} AND seq < ${bounded(before ?? SEQ_MAX)}::integer ${onlyPinned}
    ORDER BY seq DESC LIMIT ${limit}`.execute(db)
  return rows.reverse()
}

async function upFrom(db: Database, conversationId: string, after: number, limit: number): Promise<MessageRow[]> {
  const { rows } = await sql<MessageRow>`
    SELECT * FROM messages WHERE conversation_id = ${conversationId} AND seq > ${after}::integer ORDER BY seq LIMIT ${limit}`.execute(db)
  return rows
}

/** Half before and half after, and more of the one where the other has less. */
async function bothSides(db: Database, conversationId: string, around: number, limit: number): Promise<MessageRow[]> {
  const older = await oneSide(db, conversationId, { before: Math.min(around, SEQ_MAX - 1) + 1, limit, recalls: new Map() })
  const newer = await upFrom(db, conversationId, bounded(around), limit)
  const olderCount = Math.min(older.length, Math.max(Math.ceil(limit / 2), limit - newer.length))
  return [...older.slice(older.length - olderCount), ...newer.slice(0, limit - olderCount)]
}

async function toMessages(db: Database, conversationId: string, rows: readonly MessageRow[], recalls: Recalls): Promise<Message[]> {
  const reactions = await reactionsOf(
    db,
    conversationId,
    rows.map(({ seq }) => seq),
  )
  return rows.map((row) => toMessage(row, reactions.get(row.seq) ?? [], recalls.get(row.seq)))
}

function toMessage(row: MessageRow, reactions: Reaction[], recall: ReturnType<Recalls['get']>): Message {
  return {
    conversationId: row.conversation_id,
    seq: row.seq,
    ordinal: row.ordinal,
    senderId: row.sender_id,
    clientMessageId: row.client_message_id,
    content: row.content === null || recall ? null : (JSON.parse(row.content) as Content),
    replyToSeq: row.reply_to_seq,
    mentions: row.mentions === null ? [] : (JSON.parse(row.mentions) as string[]),
    sentAt: isoTime(row.sent_at),
    editedAt: isoTimeOrNull(row.edited_at),
    recalledAt: isoTimeOrNull(row.recalled_at ?? recall?.at ?? null),
    recalledBy: row.recalled_by ?? recall?.userId ?? null,
    reactions,
    pinned: row.pinned,
  }
}

const REACTED_USERS_MAX = 20

async function reactionsOf(db: Database, conversationId: string, seqs: readonly number[]): Promise<Map<number, Reaction[]>> {
  const bySeq = new Map<number, Reaction[]>()
  if (seqs.length === 0) return bySeq
  const { rows } = await sql<{ seq: number; emoji: string; count: number; user_ids: string[] }>`
    SELECT seq, emoji, count(*) AS count, (array_agg(user_id ORDER BY position))[1:${sql.lit(REACTED_USERS_MAX)}] AS user_ids
    FROM reactions WHERE conversation_id = ${conversationId} AND seq = ANY(${integers(seqs, (seq) => seq)}::integer[])
    GROUP BY seq, emoji ORDER BY seq, min(position)`.execute(db)
  for (const { seq, emoji, count, user_ids } of rows) {
    const reactions = bySeq.get(seq)
    const reaction = { emoji, count, userIds: user_ids }
    if (reactions) reactions.push(reaction)
    else bySeq.set(seq, [reaction])
  }
  return bySeq
}
