/**
 * What the gateway asks when a device connects: queries over several read models, no tables of its own.
 * OFFSET 0, and a LIMIT, is a fence: what lies within it is planned apart, so that a plan goes from the user asked for to its rows and from each
 * row to its neighbours by key, whatever the statistics say of how many conversations a user is in. A page of one user's rows is
 * a range of the index that begins with the user: only that index has them in order, so no plan collects and sorts all of them.
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

/** So many conversations of one user are read in one statement. */
export const MEMBERSHIPS_PAGE = 400

/** The first of a user's conversations by id, or those after one. */
export interface MembershipPage extends MembershipOfUser {
  more: boolean
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

/**
 * Every conversation of a user and the position at which it is so: page by page, in one snapshot. A user in thousands of them is read
 * beside the others, so that those wait for a page of it at most.
 */
export async function allMembershipsOfUser(db: Database, userId: string): Promise<MembershipOfUser> {
  const snapshot = db.transaction().setIsolationLevel('repeatable read').setAccessMode('read only')
  return snapshot.execute(async (trx) => {
    const conversations: Membership[] = []
    for (;;) {
      const [page] = await membershipsOfUsers(trx, [userId], conversations.at(-1)?.conversationId)
      conversations.push(...page!.conversations)
      if (!page!.more) return { position: page!.position, conversations }
    }
  })
}

/** For each user a page of its conversations, and the position at which it is so: one statement, one snapshot. */
export async function membershipsOfUsers(db: Database, userIds: readonly string[], after = ''): Promise<MembershipPage[]> {
  const { rows } = await sql<Row>`
    SELECT asked.n, at.position AS applied, membership.* FROM checkpoints at
    CROSS JOIN unnest(${texts(userIds, (id) => id)}::text[]) WITH ORDINALITY AS asked (user_id, n)
    LEFT JOIN LATERAL (
      SELECT m.conversation_id, c.type, c.head, c.last_ordinal, c.member_count, m.joined_seq, m.joined_position, c.last_position,
        r.read_ordinal, i.muted, (
          SELECT array_agg(ordinal ORDER BY ordinal) FROM mentions WHERE user_id = m.user_id AND conversation_id = m.conversation_id
        ) AS mention_ordinals
      FROM (
        SELECT * FROM members WHERE (user_id, conversation_id) > (asked.user_id, ${after}::text) AND user_id <= asked.user_id
        ORDER BY user_id, conversation_id LIMIT ${sql.lit(MEMBERSHIPS_PAGE + 1)}
      ) m
      CROSS JOIN LATERAL (SELECT * FROM conversations WHERE id = m.conversation_id OFFSET 0) c
      CROSS JOIN LATERAL (SELECT * FROM unread_counts WHERE conversation_id = m.conversation_id AND user_id = m.user_id OFFSET 0) r
      LEFT JOIN LATERAL (SELECT muted FROM inbox WHERE conversation_id = m.conversation_id AND user_id = m.user_id OFFSET 0) i ON true
    ) membership ON true
    WHERE at.projection = 'conversations' ORDER BY asked.n, membership.conversation_id`.execute(db)
  return rowsByQuestion(rows, userIds.length).map((own) => {
    const conversations = own.filter((row) => row.conversation_id !== null).slice(0, MEMBERSHIPS_PAGE)
    return { position: own[0]?.applied ?? '', conversations: conversations.map(toMembership), more: own.length > MEMBERSHIPS_PAGE }
  })
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
