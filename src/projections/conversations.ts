/** Read model `conversations`: what a conversation is, who its members are, who left it. */
import { sql } from 'kysely'
import type { AnyEvent, Content, ConversationEvent, RecordedFact, Role } from '../domain/events.js'
import { bigints, booleans, integers, texts } from './arrays.js'
import type { Database } from './database.js'
import { type Page, type PageOptions, PagedList, appliedOf, isoTime } from './pages.js'
import { previewOf } from './preview.js'
import { type Fold, PairMap, type Projection } from './projection.js'

export interface ConversationsTables {
  conversations: {
    id: string
    type: string
    name: string | null
    join_policy: string
    frozen: boolean
    custom: string
    created_at: number
    created_by: string
    user_id_one: string | null
    user_id_other: string | null
    member_count: number
    head: number
    last_ordinal: number
    last_position: string
    last_message_seq: number | null
    last_message_at: number | null
    last_message_sender: string | null
    last_message_position: string | null
    last_message_preview: string | null
  }
  members: {
    conversation_id: string
    user_id: string
    role: Role
    /** The place among those that the same event made members. */
    rank: number
    joined_seq: number
    joined_at: number
    joined_ordinal: number
    joined_position: string
  }
  /** The last one of each, also where the user has come back. */
  departures: { conversation_id: string; user_id: string; seq: number; position: string }
}

export const conversationsProjection: Projection = {
  name: 'conversations',
  version: 3,
  settings: '',
  tables: ['conversations', 'members', 'departures'],
  // Free space in the pages and no index on what every message changes: an update stays in its page and touches no index.
  ddl: `
    CREATE TABLE conversations (
      id text COLLATE "C" PRIMARY KEY,
      type text NOT NULL, name text, join_policy text NOT NULL, frozen boolean NOT NULL, custom text NOT NULL,
      created_at bigint NOT NULL, created_by text COLLATE "C" NOT NULL, user_id_one text COLLATE "C", user_id_other text COLLATE "C",
      member_count integer NOT NULL, head integer NOT NULL, last_ordinal integer NOT NULL, last_position text COLLATE "C" NOT NULL,
      last_message_seq integer, last_message_at bigint, last_message_sender text COLLATE "C",
      last_message_position text COLLATE "C", last_message_preview text
    ) WITH (fillfactor = 50);
    CREATE TABLE members (
      conversation_id text COLLATE "C", user_id text COLLATE "C", role text NOT NULL, rank integer NOT NULL,
      joined_seq integer NOT NULL, joined_at bigint NOT NULL, joined_ordinal integer NOT NULL, joined_position text COLLATE "C" NOT NULL,
      PRIMARY KEY (conversation_id, user_id)
    );
    CREATE TABLE departures (
      conversation_id text COLLATE "C", user_id text COLLATE "C", seq integer NOT NULL, position text COLLATE "C" NOT NULL,
      PRIMARY KEY (user_id, conversation_id)
    );`,
  // Whichever index a plan takes to a member, it finds the one row: statistics may say that a user has few, and one has thousands.
  indexes: `
    CREATE INDEX members_in_joining_order ON members (conversation_id, joined_seq, rank);
    CREATE INDEX members_of_user ON members (user_id, conversation_id);
    CREATE INDEX departures_of_user ON departures (user_id, position);`,
  begin: () => new ConversationsFold(),
}

type Of<Type extends ConversationEvent['type']> = RecordedFact<Extract<ConversationEvent, { type: Type }>>

interface ConversationChange {
  created?: Of<'ConversationCreated'>
  name?: string | null
  joinPolicy?: string
  frozen?: boolean
  custom?: string
  membersAdded: number
  head: number
  lastPosition: string
  lastOrdinal?: number
  lastMessage?: { seq: number; at: number; senderId: string; position: string }
  /** What that message says now; without `lastMessage`, what the newest message that was edited or recalled says. */
  said?: { messageSeq: number; content: Content | null }
}

interface Departure {
  seq: number
  position: string
}

interface Joining {
  kind: 'joined'
  role: Role
  rank: number
  seq: number
  at: number
  ordinal: number | undefined
  position: string
  /** The last departure before it, where that is among the same events. */
  departure: Departure | undefined
}

type MemberChange = Joining | { kind: 'role'; role: Role } | { kind: 'left'; departure: Departure }

class ConversationsFold implements Fold {
  readonly #conversations = new Map<string, ConversationChange>()
  readonly #members = new PairMap<MemberChange>()

  collect(event: RecordedFact<AnyEvent>, id: string): void {
    switch (event.type) {
      case 'ConversationCreated':
        return this.#create(event, id)
      case 'ConversationUpdated':
        return this.#update(event, id)
      case 'ConversationFrozen':
        this.#touch(event, id).frozen = true
        return
      case 'ConversationUnfrozen':
        this.#touch(event, id).frozen = false
        return
      case 'MemberJoined':
        return this.#join(event, id)
      case 'MemberLeft':
      case 'MemberRemoved':
        return this.#leave(event, id)
      case 'MemberRoleChanged':
        return this.#changeRole(event, id)
      case 'MessageSent':
        return this.#send(event, id)
      case 'MessageEdited':
        return this.#say(event, id, event.data.content)
      case 'MessageRecalled':
        return this.#say(event, id, null)
      case 'ReactionAdded':
      case 'ReactionRemoved':
      case 'MessagePinned':
      case 'MessageUnpinned':
        this.#touch(event, id)
        return
      default:
        return
    }
  }

  #touch({ revision, position }: RecordedFact<ConversationEvent>, id: string): ConversationChange {
    let change = this.#conversations.get(id)
    if (!change) this.#conversations.set(id, (change = { membersAdded: 0, head: revision, lastPosition: position }))
    change.head = revision
    change.lastPosition = position
    return change
  }

  #create(event: Of<'ConversationCreated'>, id: string): void {
    const { data, revision, position, metadata } = event
    const change = this.#touch(event, id)
    change.created = event
    change.membersAdded = data.members.length
    change.lastOrdinal = 0
    data.members.forEach(({ userId, role }, rank) =>
      this.#members.set(id, userId, {
        kind: 'joined',
        role,
        rank,
        seq: revision,
        at: metadata.at,
        ordinal: 0,
        position,
        departure: undefined,
      }),
    )
  }

  #update(event: Of<'ConversationUpdated'>, id: string): void {
    const change = this.#touch(event, id)
    const { name, joinPolicy, custom } = event.data
    if (name !== undefined) change.name = name
    if (joinPolicy !== undefined) change.joinPolicy = joinPolicy
    if (custom !== undefined) change.custom = JSON.stringify(custom)
  }

  #join(event: Of<'MemberJoined'>, id: string): void {
    const { data, revision, position, metadata } = event
    const change = this.#touch(event, id)
    change.membersAdded += 1
    const before = this.#members.get(id, data.userId)
    this.#members.set(id, data.userId, {
      kind: 'joined',
      role: data.role,
      rank: 0,
      seq: revision,
      at: metadata.at,
      ordinal: change.lastOrdinal,
      position,
      departure: before && 'departure' in before ? before.departure : undefined,
    })
  }

  #leave(event: Of<'MemberLeft' | 'MemberRemoved'>, id: string): void {
    this.#touch(event, id).membersAdded -= 1
    this.#members.set(id, event.data.userId, { kind: 'left', departure: { seq: event.revision, position: event.position } })
  }

  #changeRole(event: Of<'MemberRoleChanged'>, id: string): void {
    const { userId, role } = event.data
    this.#touch(event, id)
    const before = this.#members.get(id, userId)
    this.#members.set(id, userId, before?.kind === 'joined' ? { ...before, role } : { kind: 'role', role })
  }

  #send(event: Of<'MessageSent'>, id: string): void {
    const { data, revision, position, metadata } = event
    const change = this.#touch(event, id)
    change.lastOrdinal = data.ordinal
    change.lastMessage = { seq: revision, at: metadata.at, senderId: metadata.actor.userId ?? '', position }
    change.said = { messageSeq: revision, content: data.content }
  }

  /** Only the last message is shown, and no later one than the last can be changed: the highest seq wins. */
  #say(event: Of<'MessageEdited' | 'MessageRecalled'>, id: string, content: Content | null): void {
    const change = this.#touch(event, id)
    const { messageSeq } = event.data
    if (change.said === undefined || messageSeq >= change.said.messageSeq) change.said = { messageSeq, content }
  }

  async flush(db: Database): Promise<void> {
    const members = this.#members.entries()
    // Before the conversations move: who joined before any message of this batch starts at the ordinal in the table.
    if (members.length > 0) await writeMembers(db, members)
    const changes = [...this.#conversations]
    const created = changes.filter(([, change]) => change.created !== undefined)
    const updated = created.length === 0 ? changes : changes.filter(([, change]) => change.created === undefined)
    if (created.length > 0) await insertConversations(db, created)
    if (updated.length > 0) await updateConversations(db, updated)
  }
}

type Changes = readonly (readonly [id: string, change: ConversationChange])[]

const previewIn = ({ said }: ConversationChange) => (said?.content ? previewOf(said.content) : null)

async function insertConversations(db: Database, created: Changes): Promise<void> {
  const directUser =
    (i: number) =>
    ([, { created }]: Changes[number]) =>
      created!.data.type === 'direct' ? created!.data.members[i]?.userId : null
  await sql`
    INSERT INTO conversations
    SELECT * FROM unnest(
      ${texts(created, ([id]) => id)}::text[], ${texts(created, ([, c]) => c.created!.data.type)}::text[],
      ${texts(created, ([, c]) => (c.name === undefined ? c.created!.data.name : c.name))}::text[],
      ${texts(created, ([, c]) => c.joinPolicy ?? c.created!.data.joinPolicy)}::text[],
      ${booleans(created, ([, c]) => c.frozen ?? false)}::boolean[],
      ${texts(created, ([, c]) => c.custom ?? JSON.stringify(c.created!.data.custom ?? {}))}::text[],
      ${bigints(created, ([, c]) => c.created!.metadata.at)}::bigint[],
        ${texts(created, ([, c]) => c.created!.metadata.actor.userId ?? '')}::text[],
      ${texts(created, directUser(0))}::text[], ${texts(created, directUser(1))}::text[],
      ${integers(created, ([, c]) => c.membersAdded)}::integer[], ${integers(created, ([, c]) => c.head)}::integer[],
      ${integers(created, ([, c]) => c.lastOrdinal ?? 0)}::integer[], ${texts(created, ([, c]) => c.lastPosition)}::text[],
      ${integers(created, ([, c]) => c.lastMessage?.seq)}::integer[], ${bigints(created, ([, c]) => c.lastMessage?.at)}::bigint[],
      ${texts(created, ([, c]) => c.lastMessage?.senderId)}::text[], ${texts(created, ([, c]) => c.lastMessage?.position)}::text[],
      ${texts(created, ([, c]) => previewIn(c))}::text[])`.execute(db)
}

async function updateConversations(db: Database, updated: Changes): Promise<void> {
  await sql`
    UPDATE conversations c SET
      name = CASE WHEN u.renamed THEN u.name ELSE c.name END,
      join_policy = coalesce(u.join_policy, c.join_policy), frozen = coalesce(u.frozen, c.frozen), custom = coalesce(u.custom, c.custom),
      member_count = c.member_count + u.members_added, head = u.head, last_position = u.last_position,
      last_ordinal = coalesce(u.last_ordinal, c.last_ordinal),
      last_message_seq = coalesce(u.message_seq, c.last_message_seq), last_message_at = coalesce(u.message_at, c.last_message_at),
      last_message_sender = coalesce(u.message_sender, c.last_message_sender),
      last_message_position = coalesce(u.message_position, c.last_message_position),
      last_message_preview =
        CASE WHEN u.said_seq = coalesce(u.message_seq, c.last_message_seq) THEN u.preview ELSE c.last_message_preview END
    FROM unnest(
      ${texts(updated, ([id]) => id)}::text[], ${booleans(updated, ([, c]) => c.name !== undefined)}::boolean[],
        ${texts(updated, ([, c]) => c.name)}::text[],
      ${texts(updated, ([, c]) => c.joinPolicy)}::text[], ${booleans(updated, ([, c]) => c.frozen)}::boolean[],
        ${texts(updated, ([, c]) => c.custom)}::text[],
      ${integers(updated, ([, c]) => c.membersAdded)}::integer[], ${integers(updated, ([, c]) => c.head)}::integer[],
      ${texts(updated, ([, c]) => c.lastPosition)}::text[], ${integers(updated, ([, c]) => c.lastOrdinal)}::integer[],
      ${integers(updated, ([, c]) => c.lastMessage?.seq)}::integer[], ${bigints(updated, ([, c]) => c.lastMessage?.at)}::bigint[],
      ${texts(updated, ([, c]) => c.lastMessage?.senderId)}::text[], ${texts(updated, ([, c]) => c.lastMessage?.position)}::text[],
      ${integers(updated, ([, c]) => c.said?.messageSeq)}::integer[], ${texts(updated, ([, c]) => previewIn(c))}::text[]
    ) AS u(id, renamed, name, join_policy, frozen, custom, members_added, head, last_position, last_ordinal,
           message_seq, message_at, message_sender, message_position, said_seq, preview)
    WHERE c.id = u.id`.execute(db)
}

type MemberEntry<Kind extends MemberChange['kind']> = { first: string; second: string; value: Extract<MemberChange, { kind: Kind }> }

async function writeMembers(db: Database, entries: ReturnType<PairMap<MemberChange>['entries']>): Promise<void> {
  const joined = entries.filter((entry): entry is MemberEntry<'joined'> => entry.value.kind === 'joined')
  const left = entries.filter((entry): entry is MemberEntry<'left'> => entry.value.kind === 'left')
  const changed = entries.filter((entry): entry is MemberEntry<'role'> => entry.value.kind === 'role')
  if (joined.length > 0) await insertMembers(db, joined)
  if (left.length > 0) await deleteMembers(db, left)
  const departures = [...joined, ...left].flatMap(({ first, second, value }) =>
    value.departure ? [{ conversationId: first, userId: second, ...value.departure }] : [],
  )
  if (departures.length > 0) await upsertDepartures(db, departures)
  if (changed.length > 0) {
    await sql`
      UPDATE members m SET role = u.role
      FROM unnest(${texts(changed, (e) => e.first)}::text[], ${texts(changed, (e) => e.second)}::text[],
        ${texts(changed, (e) => e.value.role)}::text[])
        AS u(conversation_id, user_id, role)
      WHERE m.conversation_id = u.conversation_id AND m.user_id = u.user_id`.execute(db)
  }
}

async function insertMembers(db: Database, joined: readonly MemberEntry<'joined'>[]): Promise<void> {
  const [conversations, users] = [texts(joined, (e) => e.first), texts(joined, (e) => e.second)]
  await sql`
    INSERT INTO members
    SELECT u.conversation_id, u.user_id, u.role, u.rank, u.seq, u.at, coalesce(u.ordinal, c.last_ordinal, 0), u.position
    FROM unnest(
      ${conversations}::text[], ${users}::text[], ${texts(joined, (e) => e.value.role)}::text[],
        ${integers(joined, (e) => e.value.rank)}::integer[],
      ${integers(joined, (e) => e.value.seq)}::integer[], ${bigints(joined, (e) => e.value.at)}::bigint[],
      ${integers(joined, (e) => e.value.ordinal)}::integer[], ${texts(joined, (e) => e.value.position)}::text[]
    ) AS u(conversation_id, user_id, role, rank, seq, at, ordinal, position)
    LEFT JOIN conversations c ON c.id = u.conversation_id
    ON CONFLICT (conversation_id, user_id) DO UPDATE SET
      role = excluded.role, rank = excluded.rank, joined_seq = excluded.joined_seq, joined_at = excluded.joined_at,
      joined_ordinal = excluded.joined_ordinal, joined_position = excluded.joined_position`.execute(db)
}

async function deleteMembers(db: Database, left: readonly MemberEntry<'left'>[]): Promise<void> {
  const [conversations, users] = [texts(left, (e) => e.first), texts(left, (e) => e.second)]
  await sql`
    DELETE FROM members m USING unnest(${conversations}::text[], ${users}::text[]) AS u(conversation_id, user_id)
    WHERE m.conversation_id = u.conversation_id AND m.user_id = u.user_id`.execute(db)
}

async function upsertDepartures(
  db: Database,
  departures: readonly (Departure & { conversationId: string; userId: string })[],
): Promise<void> {
  await sql`
    INSERT INTO departures
    SELECT * FROM unnest(${texts(departures, (d) => d.conversationId)}::text[], ${texts(departures, (d) => d.userId)}::text[],
      ${integers(departures, (d) => d.seq)}::integer[], ${texts(departures, (d) => d.position)}::text[])
    ON CONFLICT (conversation_id, user_id) DO UPDATE SET seq = excluded.seq, position = excluded.position`.execute(db)
}

export interface MemberItem {
  userId: string
  role: Role
  joinedAt: string
}

const memberList = new PagedList('members', ['number', 'number'])

/** A page of the members in the order in which they joined. */
export async function listMembers(db: Database, conversationId: string, options: PageOptions): Promise<Page<MemberItem>> {
  const { cursor, limit } = options
  const [seq, rank] = memberList.after(conversationId, cursor) ?? [-1, 0]
  const { rows } = await sql<{ user_id: string; role: Role; joined_at: number; joined_seq: number; rank: number; applied: string }>`
    SELECT user_id, role, joined_at, joined_seq, rank, ${appliedOf('conversations')} AS applied FROM members
    WHERE conversation_id = ${conversationId} AND (joined_seq, rank) > (${seq}::integer, ${rank}::integer)
    ORDER BY joined_seq, rank LIMIT ${limit + 1}`.execute(db)
  return memberList.page(
    conversationId,
    rows,
    options,
    (row) => ({ userId: row.user_id, role: row.role, joinedAt: isoTime(row.joined_at) }),
    (row) => [row.joined_seq, row.rank],
  )
}
