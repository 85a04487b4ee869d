/**
 * Read model `inbox`: a user's conversations by last activity, and its own marks on them.
 * Conversations of up to `fanoutOnWriteMax` members keep their last activity in every member's row (fan-out on write);
 * in larger ones the rows stay as they are and the query merges (fan-out on read). The answers are the same.
 */
import { sql } from 'kysely'
import type { AnyEvent, ConversationType, RecordedFact } from '../domain/events.js'
import { booleans, integers, texts } from './arrays.js'
import type { Database } from './database.js'
import { type Page, type PageOptions, PagedList, isoTime } from './pages.js'
import { type Fold, PairMap, type Projection } from './projection.js'

export interface InboxTables {
  inbox: {
    conversation_id: string
    user_id: string
    /** Marks outlive leaving. */
    is_member: boolean
    joined_position: string | null
    /** The line's place in the inbox; null where the conversation is merged on read. */
    activity_position: string | null
    pinned: boolean
    muted: boolean
    /** The conversation's last ordinal when it was hidden. */
    hidden_ordinal: number | null
  }
  inbox_conversations: {
    conversation_id: string
    member_count: number
    last_message_position: string | null
    /** Whether the members' rows hold the activity. */
    fanned_out: boolean
  }
}

export const inboxProjection = (fanoutOnWriteMax: number): Projection => ({
  name: 'inbox',
  version: 1,
  settings: String(fanoutOnWriteMax),
  tables: ['inbox', 'inbox_conversations'],
  ddl: `
    CREATE TABLE inbox (
      conversation_id text COLLATE "C", user_id text COLLATE "C", is_member boolean NOT NULL, joined_position text COLLATE "C",
      activity_position text COLLATE "C", pinned boolean NOT NULL, muted boolean NOT NULL, hidden_ordinal integer,
      PRIMARY KEY (conversation_id, user_id)
    ) WITH (fillfactor = 70);
    CREATE TABLE inbox_conversations (
      conversation_id text COLLATE "C" PRIMARY KEY, member_count integer NOT NULL, last_message_position text COLLATE "C",
        fanned_out boolean NOT NULL
    ) WITH (fillfactor = 50);`,
  indexes: `
    CREATE INDEX inbox_by_activity ON inbox (user_id, pinned, activity_position) WHERE activity_position IS NOT NULL;
    CREATE INDEX inbox_merged_on_read ON inbox (user_id) WHERE is_member AND activity_position IS NULL;
    CREATE INDEX inbox_hidden ON inbox (user_id) WHERE is_member AND hidden_ordinal IS NOT NULL;`,
  begin: (settings) => new InboxFold(Number(settings)),
})

interface ConversationChange {
  membersAdded: number
  lastMessagePosition: string | null
}

interface LineChange {
  /** The position of joining; null: left; undefined: as it was. */
  joinedPosition?: string | null
  pinned?: boolean
  muted?: boolean
  hiddenOrdinal?: number | null
}

type Line = { first: string; second: string; value: LineChange }

class InboxFold implements Fold {
  readonly #fanoutOnWriteMax: number
  readonly #conversations = new Map<string, ConversationChange>()
  readonly #lines = new PairMap<LineChange>()

  constructor(fanoutOnWriteMax: number) {
    this.#fanoutOnWriteMax = fanoutOnWriteMax
  }

  collect(event: RecordedFact<AnyEvent>, id: string): void {
    switch (event.type) {
      case 'MessageSent':
        this.#conversation(id).lastMessagePosition = event.position
        return
      case 'ConversationCreated':
        for (const { userId } of event.data.members) this.#join(id, userId, event.position)
        return
      case 'MemberJoined':
        return this.#join(id, event.data.userId, event.position)
      case 'MemberLeft':
      case 'MemberRemoved':
        this.#conversation(id).membersAdded -= 1
        this.#line(id, event.data.userId).joinedPosition = null
        return
      case 'InboxMarked': {
        const { conversationId, pinned, muted, hidden, ordinal } = event.data
        const line = this.#line(conversationId, id)
        if (pinned !== undefined) line.pinned = pinned
        if (muted !== undefined) line.muted = muted
        if (hidden !== undefined) line.hiddenOrdinal = hidden ? ordinal : null
        return
      }
      default:
        return
    }
  }

  #conversation(id: string): ConversationChange {
    let change = this.#conversations.get(id)
    if (!change) this.#conversations.set(id, (change = { membersAdded: 0, lastMessagePosition: null }))
    return change
  }

  #line(conversationId: string, userId: string): LineChange {
    return this.#lines.ensure(conversationId, userId, () => ({}))
  }

  #join(conversationId: string, userId: string, position: string): void {
    this.#conversation(conversationId).membersAdded += 1
    this.#line(conversationId, userId).joinedPosition = position
  }

  async flush(db: Database): Promise<void> {
    const conversations = [...this.#conversations]
    const lines = this.#lines.entries()
    if (conversations.length > 0) await writeConversations(db, conversations, this.#fanoutOnWriteMax)
    if (lines.length > 0) await writeLines(db, lines, this.#fanoutOnWriteMax)
    if (conversations.length > 0)
      await fanOut(
        db,
        conversations.map(([id]) => id),
        this.#fanoutOnWriteMax,
      )
    const resized = conversations.filter(([, change]) => change.membersAdded !== 0).map(([id]) => id)
    if (resized.length > 0) await noteFannedOut(db, resized, this.#fanoutOnWriteMax)
    const idle = lines.filter(({ value }) => typeof value.joinedPosition !== 'string')
    if (idle.length > 0) await dropUnmarked(db, idle)
  }
}

async function writeConversations(db: Database, changes: readonly [string, ConversationChange][], max: number): Promise<void> {
  await sql`
    INSERT INTO inbox_conversations AS c (conversation_id, member_count, last_message_position, fanned_out)
    SELECT u.conversation_id, u.members_added, u.position, u.members_added <= ${max}::integer
    FROM unnest(
      ${texts(changes, ([id]) => id)}::text[], ${integers(changes, ([, c]) => c.membersAdded)}::integer[],
        ${texts(changes, ([, c]) => c.lastMessagePosition)}::text[]
    ) AS u(conversation_id, members_added, position)
    ON CONFLICT (conversation_id) DO UPDATE SET
      member_count = c.member_count + excluded.member_count,
      last_message_position = coalesce(excluded.last_message_position, c.last_message_position)`.execute(db)
}

async function writeLines(db: Database, lines: readonly Line[], max: number): Promise<void> {
  await sql`
    INSERT INTO inbox (conversation_id, user_id, is_member, joined_position, activity_position, pinned, muted, hidden_ordinal)
    SELECT conversation_id, user_id, joined_position IS NOT NULL, joined_position,
      CASE WHEN joined_position IS NOT NULL AND member_count <= ${max}::integer THEN coalesce(last_message_position, joined_position) END,
      pinned, muted, hidden_ordinal
    FROM (
      SELECT u.conversation_id, u.user_id, c.member_count, c.last_message_position,
        CASE WHEN u.moved THEN u.joined_position ELSE i.joined_position END AS joined_position,
        coalesce(u.pinned, i.pinned, false) AS pinned, coalesce(u.muted, i.muted, false) AS muted,
        CASE WHEN u.hidden_set THEN u.hidden_ordinal ELSE i.hidden_ordinal END AS hidden_ordinal
      FROM unnest(
        ${texts(lines, (l) => l.first)}::text[], ${texts(lines, (l) => l.second)}::text[],
        ${booleans(lines, (l) => l.value.joinedPosition !== undefined)}::boolean[], ${texts(lines, (l) => l.value.joinedPosition)}::text[],
        ${booleans(lines, (l) => l.value.pinned)}::boolean[], ${booleans(lines, (l) => l.value.muted)}::boolean[],
        ${booleans(lines, (l) => l.value.hiddenOrdinal !== undefined)}::boolean[],
          ${integers(lines, (l) => l.value.hiddenOrdinal)}::integer[]
      ) AS u(conversation_id, user_id, moved, joined_position, pinned, muted, hidden_set, hidden_ordinal)
      LEFT JOIN inbox i ON i.conversation_id = u.conversation_id AND i.user_id = u.user_id
      LEFT JOIN inbox_conversations c ON c.conversation_id = u.conversation_id
    ) AS line
    ON CONFLICT (conversation_id, user_id) DO UPDATE SET
      is_member = excluded.is_member, joined_position = excluded.joined_position, activity_position = excluded.activity_position,
      pinned = excluded.pinned, muted = excluded.muted, hidden_ordinal = excluded.hidden_ordinal`.execute(db)
}

/** Writes the activity into the members' rows, or takes it out where the conversation has outgrown that. */
async function fanOut(db: Database, conversationIds: readonly string[], max: number): Promise<void> {
  const activity = sql`CASE WHEN c.member_count <= ${max}::integer THEN coalesce(c.last_message_position, i.joined_position) END`
  await sql`
    UPDATE inbox i SET activity_position = ${activity}
    FROM unnest(${texts(conversationIds, (id) => id)}::text[]) AS u(conversation_id)
    JOIN inbox_conversations c ON c.conversation_id = u.conversation_id AND (c.fanned_out OR c.member_count <= ${max}::integer)
    WHERE i.conversation_id = c.conversation_id AND i.is_member AND i.activity_position IS DISTINCT FROM ${activity}`.execute(db)
}

async function noteFannedOut(db: Database, conversationIds: readonly string[], max: number): Promise<void> {
  await sql`
    UPDATE inbox_conversations c SET fanned_out = c.member_count <= ${max}::integer
    FROM unnest(${texts(conversationIds, (id) => id)}::text[]) AS u(conversation_id)
    WHERE c.conversation_id = u.conversation_id AND c.fanned_out <> (c.member_count <= ${max}::integer)`.execute(db)
}

/** A row says something only of a member, or of one who left and has marks. */
async function dropUnmarked(db: Database, lines: readonly Line[]): Promise<void> {
  await sql`
    DELETE FROM inbox i USING unnest(${texts(lines, (l) => l.first)}::text[],
      ${texts(lines, (l) => l.second)}::text[]) AS u(conversation_id, user_id)
    WHERE i.conversation_id = u.conversation_id AND i.user_id = u.user_id
      AND NOT i.is_member AND NOT i.pinned AND NOT i.muted AND i.hidden_ordinal IS NULL`.execute(db)
}

/** A line as `GET /inbox` answers it. */
export interface InboxLine {
  conversationId: string
  type: ConversationType
  name: string | null
  otherUserId: string | null
  memberCount: number
  head: number
  lastMessage: null | { seq: number; senderId: string; sentAt: string; preview: string | null }
  lastActivityAt: string
  unread: number
  mentions: number
  readSeq: number | null
  pinned: boolean
  muted: boolean
  hidden: boolean
}

export interface InboxOptions extends PageOptions {
  /** The hidden ones, and only they. Default: the others. */
  hidden?: boolean | undefined
}

interface LineRow {
  applied: string
  conversation_id: string | null
  activity: string
  type: ConversationType
  name: string | null
  other_user_id: string | null
  member_count: number
  head: number
  last_message_seq: number | null
  last_message_at: number | null
  last_message_sender: string | null
  last_message_preview: string | null
  activity_at: number
  unread: number
  mentions: number
  read_seq: number | null
  pinned: boolean
  muted: boolean
  hidden: boolean
}

const isHidden = sql`(i.hidden_ordinal IS NOT NULL AND i.hidden_ordinal >= c.last_ordinal)`
const picked = sql`i.conversation_id, i.pinned, i.muted, i.hidden_ordinal`

const shownLines = new PagedList('inbox', ['boolean', 'string'])
const hiddenLines = new PagedList('hidden', ['boolean', 'string'])
const listOf = ({ hidden = false }: InboxOptions) => (hidden ? hiddenLines : shownLines)

/** A page of a user's inbox, pinned on top, then by newest activity; `position`: the state of the log it shows. */
export async function listInbox(db: Database, userId: string, options: InboxOptions): Promise<Page<InboxLine> & { position: string }> {
  const { rows } = await sql<LineRow>`
    SELECT at.position AS applied, line.* FROM checkpoints at
    LEFT JOIN LATERAL (
      SELECT l.conversation_id, l.activity, l.pinned, l.muted, l.hidden, c.type, c.name, c.member_count, c.head,
        CASE c.user_id_one WHEN ${userId} THEN c.user_id_other ELSE c.user_id_one END AS other_user_id,
        c.last_message_seq, c.last_message_at, c.last_message_sender, c.last_message_preview,
        coalesce(c.last_message_at, m.joined_at) AS activity_at,
        c.last_ordinal - r.read_ordinal AS unread, r.read_seq,
        (SELECT count(*) FROM mentions n WHERE n.user_id = ${userId} AND n.conversation_id = l.conversation_id) AS mentions
      FROM (${lines(userId, options)}) l
      JOIN conversations c ON c.id = l.conversation_id
      JOIN members m ON m.conversation_id = l.conversation_id AND m.user_id = ${userId}
      JOIN unread_counts r ON r.conversation_id = l.conversation_id AND r.user_id = ${userId}
    ) line ON true
    WHERE at.projection = 'inbox' ORDER BY line.pinned DESC, line.activity DESC`.execute(db)
  const found = rows.filter(({ conversation_id }) => conversation_id !== null)
  return {
    ...listOf(options).page(userId, found, options, toLine, (row) => [row.pinned, row.activity]),
    position: rows[0]?.applied ?? '',
  }
}

/** One more line than the page holds, of both kinds of conversations. */
function lines(userId: string, options: InboxOptions) {
  const { cursor, limit, hidden = false } = options
  const from = listOf(options).after(userId, cursor)
  const beyond = (activity: ReturnType<typeof sql>) =>
    from === undefined ? sql`` : sql`AND (i.pinned, ${activity}) < (${from[0]}::boolean, ${from[1]}::text)`
  const merged = sql`coalesce(c.last_message_position, i.joined_position)`
  const join = sql`FROM inbox i JOIN conversations c ON c.id = i.conversation_id`
  if (hidden) {
    return sql`
      SELECT ${picked}, ${merged} AS activity, true AS hidden ${join}
      WHERE i.user_id = ${userId} AND i.is_member AND i.hidden_ordinal IS NOT NULL AND ${isHidden} ${beyond(merged)}
      ORDER BY i.pinned DESC, activity DESC LIMIT ${limit + 1}`
  }
  return sql`
    SELECT * FROM (
      (SELECT ${picked}, i.activity_position AS activity, false AS hidden ${join}
       WHERE i.user_id = ${userId} AND i.activity_position IS NOT NULL AND NOT ${isHidden} ${beyond(sql`i.activity_position`)}
       ORDER BY i.pinned DESC, i.activity_position DESC LIMIT ${limit + 1})
      UNION ALL
      (SELECT ${picked}, ${merged} AS activity, false AS hidden ${join}
       WHERE i.user_id = ${userId} AND i.is_member AND i.activity_position IS NULL AND NOT ${isHidden} ${beyond(merged)}
       ORDER BY i.pinned DESC, activity DESC LIMIT ${limit + 1})
    ) both_kinds ORDER BY pinned DESC, activity DESC LIMIT ${limit + 1}`
}

function toLine(row: LineRow): InboxLine {
  return {
    conversationId: row.conversation_id!,
    type: row.type,
    name: row.name,
    otherUserId: row.type === 'direct' ? row.other_user_id : null,
    memberCount: row.member_count,
    head: row.head,
    lastMessage:
      row.last_message_seq === null
        ? null
        : {
            seq: row.last_message_seq,
            senderId: row.last_message_sender ?? '',
            sentAt: isoTime(row.last_message_at ?? 0),
            preview: row.last_message_preview,
          },
    lastActivityAt: isoTime(row.activity_at),
    unread: row.unread,
    mentions: row.mentions,
    readSeq: row.read_seq,
    pinned: row.pinned,
    muted: row.muted,
    hidden: row.hidden,
  }
}
