import { unavailable } from '../../src/domain/errors.js'
import type { Position } from '../../src/domain/event-store.js'
import { Applied } from '../../src/projections/applied.js'
import { previewOf } from '../../src/projections/preview.js'
import type { InboxLine, Message, ReadQueries, Receipt, UnreadCounts } from '../../src/projections/read-models.js'
import type { ConversationRow, MessageRow, Tables } from './tables.js'
import type { Weather } from './weather.js'

const iso = (at: number) => new Date(at).toISOString()
const isoOrNull = (at: number | null) => (at === null ? null : iso(at))
const page = <Item>(items: Item[]) => ({ items, nextCursor: null })

type Options<Method extends (...asked: never[]) => unknown, Nth extends number> = Parameters<Method>[Nth]
type HistoryOptions = Options<ReadQueries['history']['list'], 1>

/**
 * The read models as one node asks them: all nodes ask the same tables, each on its own slow and unreliable way. An answer shows
 * the tables as they were at one moment between question and answer.
 */
export class SimulatedReadModels implements ReadQueries {
  readonly #tables: Tables
  readonly #weather: Weather
  readonly #headOfLog: () => Position
  readonly applied: Applied

  constructor(tables: Tables, weather: Weather, headOfLog: () => Position) {
    this.#tables = tables
    this.#weather = weather
    this.#headOfLog = headOfLog
    this.applied = new Applied(() => this.#ask(() => tables.position))
  }

  async #ask<Answer>(answer: () => Answer): Promise<Answer> {
    await this.#weather.travel(true)
    this.#weather.requireTables()
    const found = answer()
    await this.#weather.travel(true)
    this.#weather.requireTables()
    return found
  }

  get position(): Position {
    return this.applied.position
  }

  waitFor(position: Position, timeoutMs = 5_000): Promise<void> {
    return this.applied.reach(position, timeoutMs)
  }

  #row(conversationId: string): ConversationRow | undefined {
    return this.#tables.conversations.get(conversationId)
  }

  readonly memberships: ReadQueries['memberships'] = {
    ofUser: (userId) =>
      this.#ask(() => ({
        position: this.#tables.position,
        conversations: this.#tables.ofUser(userId).map((row) => {
          const member = row.members.get(userId)!
          const unread = row.unread.get(userId)!
          return {
            conversationId: row.conversationId,
            type: row.type,
            head: row.head,
            lastOrdinal: row.lastOrdinal,
            memberCount: row.members.size,
            joinedSeq: member.joinedSeq,
            joinedPosition: member.joinedPosition,
            lastPosition: row.lastPosition,
            readOrdinal: unread.readOrdinal,
            mentionOrdinals: [...unread.mentions],
            muted: this.#tables.marksOf(userId, row.conversationId).muted,
          }
        }),
      })),
    departuresAfter: (userId, position, limit) =>
      this.#ask(() =>
        [...this.#tables.conversations.values()]
          .flatMap((row) => {
            const departure = row.departures.get(userId)
            return departure && departure.position > position ? [{ conversationId: row.conversationId, ...departure }] : []
          })
          .sort((one, other) => (one.position < other.position ? -1 : 1))
          .slice(0, limit),
      ),
    sharing: (userId, userIds) =>
      this.#ask(() => {
        const own = this.#tables.ofUser(userId)
        return new Set(userIds.filter((otherId) => own.some(({ members }) => members.has(otherId))))
      }),
  }

  readonly receipts: ReadQueries['receipts'] = {
    list: (conversationId, { readBy }) =>
      this.#ask(() => {
        const row = this.#row(conversationId)
        const sender = readBy === undefined ? undefined : row?.messages.get(readBy)?.senderId
        const receipts = inJoiningOrder(row).map(({ userId }): Receipt => {
          const cursor = row?.receipts.get(userId)
          return {
            userId,
            readSeq: cursor?.readSeq ?? null,
            readAt: isoOrNull(cursor?.readAt ?? null),
            deliveredSeq: cursor?.deliveredSeq ?? null,
            deliveredAt: isoOrNull(cursor?.deliveredAt ?? null),
          }
        })
        return page(
          readBy === undefined ? receipts : receipts.filter(({ userId, readSeq }) => (readSeq ?? -1) >= readBy && userId !== sender),
        )
      }),
    after: (conversationIds, position) =>
      this.#ask(() =>
        conversationIds.flatMap((conversationId) => {
          const row = this.#row(conversationId)
          return [...(row?.receipts ?? [])].flatMap(([userId, { readSeq, deliveredSeq, position: moved }]) =>
            moved !== null && moved > position && row?.members.has(userId) ? [{ conversationId, userId, readSeq, deliveredSeq }] : [],
          )
        }),
      ),
  }

  readonly members: ReadQueries['members'] = {
    list: (conversationId) =>
      this.#ask(() =>
        page(inJoiningOrder(this.#row(conversationId)).map(({ userId, role, joinedAt }) => ({ userId, role, joinedAt: iso(joinedAt) }))),
      ),
  }

  readonly inbox: ReadQueries['inbox'] = {
    list: (userId, options) =>
      this.#ask(() => ({
        ...page(
          this.#tables
            .ofUser(userId)
            .map((row) => this.#line(row, userId))
            .filter(({ hidden }) => hidden === (options.hidden ?? false)),
        ),
        position: this.#tables.position,
      })),
  }

  #line(row: ConversationRow, userId: string): InboxLine {
    const member = row.members.get(userId)!
    const unread = row.unread.get(userId)!
    const marks = this.#tables.marksOf(userId, row.conversationId)
    const last = row.lastMessageSeq === null ? undefined : row.messages.get(row.lastMessageSeq)
    return {
      conversationId: row.conversationId,
      type: row.type,
      name: row.name,
      otherUserId: row.type === 'direct' ? ([...row.members.keys()].find((id) => id !== userId) ?? null) : null,
      memberCount: row.members.size,
      head: row.head,
      lastMessage: last
        ? { seq: last.seq, senderId: last.senderId, sentAt: iso(last.sentAt), preview: last.content ? previewOf(last.content) : null }
        : null,
      lastActivityAt: iso(last?.sentAt ?? member.joinedAt),
      unread: row.lastOrdinal - unread.readOrdinal,
      mentions: unread.mentions.length,
      readSeq: unread.readSeq,
      pinned: marks.pinned,
      muted: marks.muted,
      hidden: marks.hiddenOrdinal !== null && marks.hiddenOrdinal >= row.lastOrdinal,
    }
  }

  readonly unreadCounts: ReadQueries['unreadCounts'] = {
    list: (userId, hasLeft) =>
      this.#ask(() => ({
        position: this.#tables.position,
        rows: this.#tables.ofUser(userId).map((row) => ({
          conversationId: row.conversationId,
          unread: row.lastOrdinal - row.unread.get(userId)!.readOrdinal,
          mentions: row.unread.get(userId)!.mentions.length,
          muted: this.#tables.marksOf(userId, row.conversationId).muted,
        })),
      })).then(({ position, rows }): UnreadCounts => {
        const own = rows.filter(({ conversationId, unread }) => unread > 0 && !hasLeft?.(conversationId))
        return {
          total: own.reduce((sum, { unread, muted }) => sum + (muted ? 0 : unread), 0),
          mentions: own.reduce((sum, { mentions }) => sum + mentions, 0),
          conversations: own.map(({ conversationId, unread, mentions }) => ({ conversationId, unread, mentions })),
          position,
        }
      }),
  }

  readonly contacts: ReadQueries['contacts'] = {
    list: (userId) => this.#ask(() => page([...(this.#tables.contacts.get(userId) ?? [])].map((otherId) => ({ userId: otherId })))),
    whoHave: (userId) => this.#whoHave(userId),
  }

  async *#whoHave(userId: string): AsyncIterable<readonly string[]> {
    yield await this.#ask(() => [...this.#tables.contacts].filter(([, contacts]) => contacts.has(userId)).map(([owner]) => owner))
  }

  readonly blocks: ReadQueries['blocks'] = {
    list: (userId) => this.#ask(() => page([...(this.#tables.blocks.get(userId) ?? [])].map((otherId) => ({ userId: otherId })))),
  }

  /** Nobody asks for these here. */
  readonly users: ReadQueries['users'] = { findProfile: () => this.#notSimulated() }
  readonly devices: ReadQueries['devices'] = { list: () => this.#notSimulated() }

  #notSimulated(): Promise<never> {
    return Promise.reject(unavailable('This is not simulated.'))
  }

  readonly history: ReadQueries['history'] = {
    list: (conversationId, options) =>
      this.#ask(() => {
        const row = this.#row(conversationId)
        const { rows, more } = cut([...(row?.messages.values() ?? [])], options)
        return { asOf: row?.head ?? -1, items: rows.map((message) => messageOf(conversationId, message)), more }
      }),
    find: (conversationId, seq) =>
      this.#ask(() => {
        const row = this.#row(conversationId)
        const message = row?.messages.get(seq)
        return { asOf: row?.head ?? -1, message: message && messageOf(conversationId, message) }
      }),
    findSentMessage: (conversationId, senderId, clientMessageId) =>
      this.#ask(() => {
        const row = this.#row(conversationId)
        const found = sentBy(row, senderId).find((message) => message.clientMessageId === clientMessageId)
        return { asOf: row?.head ?? -1, seq: found?.seq }
      }),
    findSentIds: (conversationId, senderId, after, limit) =>
      this.#ask(() => {
        const row = this.#row(conversationId)
        const sent = sentBy(row, senderId).filter(({ seq }) => seq > after)
        return { asOf: row?.head ?? -1, sent: sent.slice(0, limit).map(({ clientMessageId, seq }) => ({ clientMessageId, seq })) }
      }),
    findMessageFacts: (conversationId, seq, reaction) =>
      this.#ask(() => {
        const row = this.#row(conversationId)
        const message = row?.messages.get(seq)
        if (!message) return { asOf: row?.head ?? -1, message: undefined }
        const { senderId, content, recalledAt, pinned } = message
        const reactions = new Map([...message.reactions].flatMap(([emoji, { size }]) => (size === 0 ? [] : [[emoji, size] as const])))
        const reacted = reaction !== undefined && (message.reactions.get(reaction.emoji)?.has(reaction.userId) ?? false)
        return { asOf: row!.head, message: { seq, senderId, content, recalled: recalledAt !== null, pinned, reactions, reacted } }
      }),
    findRecalled: (conversationId, seqs) =>
      this.#ask(() => {
        const row = this.#row(conversationId)
        const isRecalled = (seq: number) => (row?.messages.get(seq)?.recalledAt ?? null) !== null
        return { asOf: row?.head ?? -1, recalled: new Set(seqs.filter(isRecalled)) }
      }),
    findOrdinal: (conversationId, seq) =>
      this.#ask(() => {
        const row = this.#row(conversationId)
        const message = [...(row?.messages.values() ?? [])].findLast((earlier) => earlier.seq <= seq)
        return { asOf: row?.head ?? -1, ordinal: message?.ordinal ?? 0 }
      }),
    waitForPosition: (position) => this.waitFor(position),
    waitForRevision: async (conversationId, revision) => {
      const head = await this.#ask(() => this.#row(conversationId)?.head ?? -1)
      if (head < revision) await this.waitFor(this.#headOfLog())
    },
  }
}

const sentBy = (row: ConversationRow | undefined, senderId: string): MessageRow[] =>
  [...(row?.messages.values() ?? [])].filter((message) => message.senderId === senderId)

const inJoiningOrder = (row: ConversationRow | undefined) =>
  [...(row?.members.values() ?? [])].sort((one, other) => one.joinedSeq - other.joinedSeq || one.rank - other.rank)

/** A page of at most `limit` messages: they are too small here for a bound in bytes. */
function cut(rows: MessageRow[], { before, after, around, pinned, limit }: HistoryOptions): { rows: MessageRow[]; more: boolean } {
  const shown = pinned ? rows.filter((row) => row.pinned) : rows
  if (around !== undefined) {
    const older = shown.filter(({ seq }) => seq <= around)
    const newer = shown.filter(({ seq }) => seq > around)
    const count = Math.min(older.length, Math.max(Math.ceil(limit / 2), limit - newer.length))
    const newerCount = Math.min(newer.length, limit - count)
    return { rows: [...older.slice(older.length - count), ...newer.slice(0, newerCount)], more: newerCount < newer.length }
  }
  if (after !== undefined && !pinned) {
    const newer = shown.filter(({ seq }) => seq > after)
    return { rows: newer.slice(0, limit), more: newer.length > limit }
  }
  const older = before === undefined ? shown : shown.filter(({ seq }) => seq < before)
  return { rows: older.slice(Math.max(0, older.length - limit)), more: older.length > limit }
}

function messageOf(conversationId: string, row: MessageRow): Message {
  return {
    conversationId,
    seq: row.seq,
    ordinal: row.ordinal,
    senderId: row.senderId,
    clientMessageId: row.clientMessageId,
    content: row.content,
    replyToSeq: row.replyToSeq,
    mentions: [...row.mentions],
    sentAt: iso(row.sentAt),
    editedAt: isoOrNull(row.editedAt),
    recalledAt: isoOrNull(row.recalledAt),
    recalledBy: row.recalledBy,
    reactions: [...row.reactions].flatMap(([emoji, users]) =>
      users.size === 0 ? [] : [{ emoji, count: users.size, userIds: [...users].slice(0, 20) }],
    ),
    pinned: row.pinned,
  }
}
