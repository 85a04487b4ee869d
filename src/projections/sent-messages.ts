/** What the write side asks of the history where its own window does not reach. */
import { type RawBuilder, sql } from 'kysely'
import type { MessageFacts } from '../domain/conversation/commands.js'
import type { Content } from '../domain/events.js'
import { bigints, texts } from './arrays.js'
import type { Database } from './database.js'

export interface SentMessageKey {
  conversationId: string
  senderId: string
  clientMessageId: string
}

/** How far the history is (-1: it does not know the conversation), and where the message is in it. */
export interface SentMessage {
  asOf: number
  seq: number | undefined
}

/**
 * The rows that the index of client ids leads to; who asks compares the texts behind the hashes. OFFSET 0 is a fence: were the
 * conversation compared within it, a plan could read all of the conversation by seq instead.
 */
const hashed = (conversationId: RawBuilder<string>, senderId: RawBuilder<string>, more = sql``) => sql`(
  SELECT conversation_id, sender_id, client_message_id, seq FROM messages
  WHERE hashtext(conversation_id || sender_id) = hashtext(${conversationId} || ${senderId}) ${more} OFFSET 0)`

/** For each key, in their order. */
export async function findSentMessages(db: Database, keys: readonly SentMessageKey[]): Promise<SentMessage[]> {
  // The head and the message come from one snapshot: "not there" holds up to the head.
  const { rows } = await sql<{ head: number | null; seq: number | null }>`
    SELECT c.head, m.seq
    FROM unnest(${texts(keys, (k) => k.conversationId)}::text[], ${texts(keys, (k) => k.senderId)}::text[],
      ${texts(keys, (k) => k.clientMessageId)}::text[])
      WITH ORDINALITY AS k(conversation_id, sender_id, client_message_id, i)
    LEFT JOIN conversations c ON c.id = k.conversation_id
    LEFT JOIN LATERAL (
      SELECT min(seq) AS seq
      FROM ${hashed(sql`k.conversation_id`, sql`k.sender_id`, sql`AND hashtext(client_message_id) = hashtext(k.client_message_id)`)} found
      WHERE conversation_id = k.conversation_id AND sender_id = k.sender_id AND client_message_id = k.client_message_id
    ) m ON true
    ORDER BY k.i`.execute(db)
  return rows.map(({ head, seq }) => ({ asOf: head ?? -1, seq: seq ?? undefined }))
}

/** What a sender has sent after a revision (-1: all), at most `limit` of it, and how far the history is. */
export async function findSentIds(
  db: Database,
  conversationId: string,
  senderId: string,
  after: number,
  limit: number,
): Promise<{ asOf: number; sent: { clientMessageId: string; seq: number }[] }> {
  const { rows } = await sql<{ head: number; client_message_id: string | null; seq: number | null }>`
    SELECT c.head, m.client_message_id, m.seq FROM conversations c
    LEFT JOIN ${hashed(sql`${conversationId}::text`, sql`${senderId}::text`)} m
      ON m.conversation_id = ${conversationId} AND m.sender_id = ${senderId} AND m.seq > ${after}::integer
    WHERE c.id = ${conversationId} LIMIT ${limit}`.execute(db)
  const sent = rows.flatMap(({ client_message_id, seq }) =>
    client_message_id === null || seq === null ? [] : [{ clientMessageId: client_message_id, seq }],
  )
  return { asOf: rows[0]?.head ?? -1, sent }
}

interface FactsRow {
  head: number
  sender_id: string | null
  content: string | null
  recalled: boolean
  pinned: boolean
  reactions: Record<string, number> | null
  reacted: boolean
}

/** A message as a decision needs it; `reaction`: whether this user has given this emoji. */
export async function findMessageFacts(
  db: Database,
  conversationId: string,
  seq: number,
  reaction?: { userId: string; emoji: string },
): Promise<{ asOf: number; message: MessageFacts | undefined }> {
  const { rows } = await sql<FactsRow>`
    SELECT c.head, m.sender_id, m.content, m.recalled_at IS NOT NULL AS recalled, m.pinned,
      (SELECT json_object_agg(emoji, count) FROM (
         SELECT emoji, count(*) FROM reactions WHERE conversation_id = ${conversationId} AND seq = ${seq}::bigint
           GROUP BY emoji) given) AS reactions,
      EXISTS (SELECT FROM reactions WHERE conversation_id = ${conversationId} AND seq = ${seq}::bigint
        AND emoji = ${reaction?.emoji ?? ''} AND user_id = ${reaction?.userId ?? ''}) AS reacted
    FROM conversations c LEFT JOIN messages m ON m.conversation_id = ${conversationId} AND m.seq = ${seq}::bigint
    WHERE c.id = ${conversationId}`.execute(db)
  const row = rows[0]
  if (!row) return { asOf: -1, message: undefined }
  return { asOf: row.head, message: row.sender_id === null ? undefined : toFacts(seq, row.sender_id, row) }
}

const toFacts = (seq: number, senderId: string, { content, recalled, pinned, reactions, reacted }: FactsRow): MessageFacts => ({
  seq,
  senderId,
  recalled,
  pinned,
  reacted,
  content: content === null ? null : (JSON.parse(content) as Content),
  reactions: new Map(Object.entries(reactions ?? {})),
})

/** Which of these messages are recalled. */
export async function findRecalled(
  db: Database,
  conversationId: string,
  seqs: readonly number[],
): Promise<{ asOf: number; recalled: ReadonlySet<number> }> {
  const { rows } = await sql<{ head: number; seq: number | null }>`
    SELECT c.head, m.seq FROM conversations c
    LEFT JOIN messages m ON m.conversation_id = ${conversationId} AND m.seq = ANY(${bigints(seqs, (seq) => seq)}::bigint[])
      AND m.recalled_at IS NOT NULL
    WHERE c.id = ${conversationId}`.execute(db)
  const recalled = new Set(rows.flatMap(({ seq }) => (seq === null ? [] : [seq])))
  return { asOf: rows[0]?.head ?? -1, recalled }
}

/** The ordinal of the last message at or below `seq`, 0 where there is none, and how far the history is. */
export async function findOrdinal(db: Database, conversationId: string, seq: number): Promise<{ asOf: number; ordinal: number }> {
  const { rows } = await sql<{ head: number; ordinal: number | null }>`
    SELECT c.head, (
      SELECT ordinal FROM messages WHERE conversation_id = ${conversationId} AND seq <= ${seq}::integer ORDER BY seq DESC LIMIT 1
    ) AS ordinal FROM conversations c WHERE c.id = ${conversationId}`.execute(db)
  return { asOf: rows[0]?.head ?? -1, ordinal: rows[0]?.ordinal ?? 0 }
}

/** The last revision of the conversation that the read models have seen, -1 where none. */
export async function findHead(db: Database, conversationId: string): Promise<number> {
  const { rows } = await sql<{ head: number }>`SELECT head FROM conversations WHERE id = ${conversationId}`.execute(db)
  return rows[0]?.head ?? -1
}
