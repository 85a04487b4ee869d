/**
 * What the gateway asks when a device connects: queries over several read models, no tables of its own.
 * OFFSET 0 is a fence: what lies within it is planned apart, so that a plan goes from the user asked for to its rows and from each
 * row to its neighbours by key, whatever the statistics say of how many conversations a user is in.
 */
import { sql } from 'kysely'
import type { Position } from '../domain/event-store.js'
import type { ConversationType } from '../domain/events.js'
import { rowsByQuestion } from '../gatherer.js'
import { integers, texts } from './arrays.js'
import type { Database } from './database.js'

export interface Membership {
  conversationId: string
  type: ConversationType
  head: number
  lastOrdinal: number
  memberCount: number
  joinedSeq: number
  joinedPosition: Position
  /** Of the conversation's last event. */
  lastPosition: Position
  readOrdinal: number
  /** Unread ones, ascending. */
  mentionOrdinals: number[]
  muted: boolean
}

export interface MembershipOfUser {
  /** The state of the log that this shows. */
  position: Position
  conversations: Membership[]
}

interface Row {
  n: number
  applied: Position
  conversation_id: string | null
  type: ConversationType
  head: number
  last_ordinal: number
  member_count: number
  joined_seq: number
  joined_position: Position
  last_position: Position
  read_ordinal: number
  mention_ordinals: number[] | null
  muted: boolean | null
}

/** For each user every conversation, and the position at which it is so: one statement, one snapshot. */
export async function membershipsOfUsers(db: Database, userIds: readonly string[]): Promise<MembershipOfUser[]> {
  const { rows } = await sql<Row>`
    SELECT asked.n, at.position AS applied, membership.* FROM checkpoints at
    CROSS JOIN unnest(${texts(userIds, (id) => id)}::text[]) WITH ORDINALITY AS asked (user_id, n)
    LEFT JOIN LATERAL (
      SELECT m.conversation_id, c.type, c.head, c.last_ordinal, c.member_count, m.joined_seq, m.joined_position, c.last_position,
        r.read_ordinal, i.muted, (
          SELECT array_agg(ordinal ORDER BY ordinal) FROM mentions WHERE user_id = m.user_id AND conversation_id = m.conversation_id
        ) AS mention_ordinals
      FROM (SELECT * FROM members WHERE user_id = asked.user_id OFFSET 0) m
      JOIN conversations c ON c.id = m.conversation_id
      JOIN unread_counts r ON r.conversation_id = m.conversation_id AND r.user_id = m.user_id
      LEFT JOIN inbox i ON i.conversation_id = m.conversation_id AND i.user_id = m.user_id
    ) membership ON true
    WHERE at.projection = 'conversations'`.execute(db)
  return rowsByQuestion(rows, userIds.length).map((own) => ({
    position: own[0]?.applied ?? '',
    conversations: own.filter((row) => row.conversation_id !== null).map(toMembership),
  }))
}

const toMembership = (row: Row): Membership => ({
  conversationId: row.conversation_id!,
  type: row.type,
  head: row.head,
  lastOrdinal: row.last_ordinal,
  memberCount: row.member_count,
  joinedSeq: row.joined_seq,
  joinedPosition: row.joined_position,
  lastPosition: row.last_position,
  readOrdinal: row.read_ordinal,
  mentionOrdinals: row.mention_ordinals ?? [],
  muted: row.muted ?? false,
})

export interface Departure {
  conversationId: string
  seq: number
  position: Position
}

/**
 * For each user the last departures, one a conversation, that lie after `position`: the first `limit` of them. The user may have come
 * back since.
 */
export async function departuresAfter(
  db: Database,
  asked: readonly { userId: string; position: Position; limit: number }[],
): Promise<Departure[][]> {
  const { rows } = await sql<{ n: number; conversation_id: string; seq: number; position: Position }>`
    SELECT asked.n, d.conversation_id, d.seq, d.position
    FROM unnest(${texts(asked, ({ userId }) => userId)}::text[], ${texts(asked, ({ position }) => position)}::text[],
      ${integers(asked, ({ limit }) => limit)}::integer[]) WITH ORDINALITY AS asked (user_id, position, size, n)
    CROSS JOIN LATERAL (
      SELECT conversation_id, seq, position FROM departures
      WHERE user_id = asked.user_id AND position > asked.position COLLATE "C" ORDER BY position LIMIT asked.size
    ) d ORDER BY d.position`.execute(db)
  return rowsByQuestion(rows, asked.length).map((own) =>
    own.map((row) => ({ conversationId: row.conversation_id, seq: row.seq, position: row.position })),
  )
}

/** Those of `userIds` that share a conversation with the user. */
export async function findSharing(db: Database, userId: string, userIds: readonly string[]): Promise<Set<string>> {
  const { rows } = await sql<{ user_id: string }>`
    SELECT asked.user_id FROM unnest(${texts([...new Set(userIds)], (id) => id)}::text[]) AS asked (user_id)
    WHERE EXISTS (
      SELECT FROM (SELECT conversation_id FROM members WHERE user_id = asked.user_id OFFSET 0) theirs
      WHERE EXISTS (SELECT FROM members WHERE conversation_id = theirs.conversation_id AND user_id = ${userId} OFFSET 0) OFFSET 0
    )`.execute(db)
  return new Set(rows.map((row) => row.user_id))
}
