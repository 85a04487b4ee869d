import type { Message, Receipt, UnreadCounts, InboxLine, MemberItem } from '../../src/projections/read-models.js'
import type { Event } from '../support/device.js'
import type { Checks, Viewer } from './checks.js'
import type { SimulatedNode } from './node.js'
import type { World } from './world.js'

export type Kind = Write | Read
export type Write =
  | 'send'
  | 'edit'
  | 'recall'
  | 'react'
  | 'unreact'
  | 'pin'
  | 'read'
  | 'add'
  | 'remove'
  | 'join'
  | 'leave'
  | 'update'
  | 'mark'
export type Read = 'events' | 'messages' | 'message' | 'inbox' | 'unread' | 'receipts' | 'members' | 'conversation'

const writes = new Set<Kind>([
  'send',
  'edit',
  'recall',
  'react',
  'unreact',
  'pin',
  'read',
  'add',
  'remove',
  'join',
  'leave',
  'update',
  'mark',
])
export const isWrite = (kind: Kind): kind is Write => writes.has(kind)

/** What a user asked for, by REST or WebSocket. */
export interface Request {
  kind: Kind
  userId: string
  node: SimulatedNode
  way: 'rest' | 'socket'
  conversationId: string
  /** When it left the user. */
  at: number
  seq?: number
  clientMessageId?: string
  content?: object
  subject?: string
  after?: number
  limit?: number
  bounds?: { before?: number; after?: number; around?: number; pinned?: boolean }
  minPosition?: string
  settled?: true
}

interface Answer {
  seq?: number
  position?: string
  unchanged?: boolean
  duplicate?: boolean
  readSeq?: number
  head?: number
  items?: unknown[]
  events?: unknown[]
  role?: string | null
  conversationId?: string
  added?: number
}

/** Refusals that no request of these users deserves. */
const NEVER = new Set(['internal', 'unauthenticated', 'method_not_allowed', 'unsupported_media_type', 'payload_too_large'])

/** Holds each answer to the log as it was between question and answer. */
export class AnswerCheck {
  readonly #world: World
  readonly #checks: Checks

  constructor(world: World, checks: Checks) {
    this.#world = world
    this.#checks = checks
  }

  refused(request: Request, code: string, message: string): void {
    const { kind, conversationId, userId, at } = request
    const { truth, clock } = this.#world
    const told = () => `${describe(request)} was refused: ${code}, ${message}`
    if (code === 'unavailable' || code === 'rate_limited') return
    if (NEVER.has(code)) return this.#world.report(code === 'internal' ? 'internal' : 'refused', told())
    const group = isWrite(kind) ? 'refused-write' : 'refused-read'
    if (code === 'not_found') {
      if (truth.wasOutside(conversationId, userId, at, clock.now) || this.#isMissing(request)) return
      return this.#world.report(group, `${told()} It was a member all the time.`)
    }
    if (code === 'invalid_request') {
      if (kind === 'read' && request.seq! > this.#headAt(conversationId, at)) return
      return this.#world.report(group, `${told()} The log was at ${this.#headAt(conversationId, at)}.`)
    }
    if (code === 'idempotency_conflict') {
      const [first] = truth.sent.get(`${conversationId} ${userId} ${request.clientMessageId}`) ?? []
      const logged = first === undefined ? undefined : (truth.eventAt(conversationId, first)?.data as { content: object })
      if (logged === undefined || JSON.stringify(logged.content) === JSON.stringify(request.content))
        this.#world.report('refused-write', `${told()} The log has ${first} with the same content.`)
    }
  }

  /** A message or a member that was never there. */
  #isMissing({ kind, conversationId, seq, subject, at }: Request): boolean {
    const { truth, clock } = this.#world
    if (subject !== undefined) return truth.wasOutside(conversationId, subject, at, clock.now)
    if (kind === 'send' || kind === 'read' || seq === undefined) return false
    return truth.eventAt(conversationId, seq)?.type !== 'MessageSent' || truth.committedAt(conversationId, seq) > at
  }

  #headAt(conversationId: string, at: number): number {
    const { truth } = this.#world
    let head = truth.headOf(conversationId)
    while (head >= 0 && truth.committedAt(conversationId, head) > at) head -= 1
    return head
  }

  answered(request: Request, given: unknown): void {
    const answer = given as Answer
    const viewer: Viewer = request
    if (isWrite(request.kind)) return this.#written(request, answer)
    if (request.kind !== 'inbox' && request.kind !== 'unread')
      this.#checks.membership(request.conversationId, viewer, request.at, request.kind)
    switch (request.kind) {
      case 'events':
        return this.#events(request, answer)
      case 'messages':
        return this.#messages(request, answer.items as Message[], answer.head!)
      case 'message':
        this.#message(request, given as Message)
        return this.#shows(request, 'message', (given as Message).seq)
      case 'conversation':
        this.#checks.head(request.conversationId, answer.head!, viewer, 'conversation', () => describe(request))
        return this.#shows(request, 'conversation', answer.head!)
      case 'inbox':
        return this.#inbox(request, answer.items as InboxLine[])
      case 'unread':
        for (const { conversationId } of (given as UnreadCounts).conversations)
          this.#checks.membership(conversationId, viewer, request.at, 'unread')
        return
      case 'receipts':
        return this.#receipts(request, answer.items as Receipt[])
      case 'members':
        for (const { userId } of answer.items as MemberItem[])
          if (!this.#world.truth.changeBefore(request.conversationId, userId, Infinity))
            this.#world.report('other', `${describe(request)} lists ${userId}, who was never a member`)
        return
      default:
        return request.kind satisfies never
    }
  }

  // --- writes ---

  #written(request: Request, answer: Answer): void {
    const { kind, conversationId, userId, node } = request
    const { truth } = this.#world
    if (kind === 'mark') return
    if (kind === 'read') {
      this.#checks.seq(conversationId, answer.readSeq!, { userId, node }, 'receipts', 'read cursor')
      if (answer.readSeq! < request.seq!) this.#world.report('other', `${describe(request)} was answered with readSeq ${answer.readSeq}`)
      return
    }
    const event = truth.eventAt(conversationId, answer.seq!)
    if (!event)
      return this.#world.report('not-durable', `${describe(request)} was acknowledged as ${answer.seq}, which the log does not have`)
    if (answer.unchanged) {
      if (kind === 'recall') this.#acknowledge(request, truth.recallOf(conversationId, request.seq!))
      return
    }
    if (answer.position !== event.position)
      this.#world.report('other', `${describe(request)} was answered with ${answer.position}; ${answer.seq} is at ${event.position}`)
    if (kind === 'send') this.#sent(request, answer.seq!)
    if (kind === 'recall') this.#acknowledge(request, answer.seq)
    if (kind === 'remove') this.#acknowledge(request, truth.changeBefore(conversationId, request.subject!, answer.seq!)?.seq)
    if (kind === 'leave') this.#acknowledge(request, truth.changeBefore(conversationId, userId, answer.seq!)?.seq)
  }

  #acknowledge({ node, conversationId }: Request, seq: number | undefined): void {
    if (seq !== undefined) node.acknowledge(conversationId, seq)
  }

  #sent(request: Request, seq: number): void {
    const { conversationId, userId, clientMessageId, content } = request
    const { truth } = this.#world
    const event = truth.eventAt(conversationId, seq)!
    const data = event.data as { clientMessageId: string; content: object }
    const isIt =
      event.type === 'MessageSent' &&
      event.metadata.actor.userId === userId &&
      data.clientMessageId === clientMessageId &&
      JSON.stringify(data.content) === JSON.stringify(content)
    if (!isIt) this.#world.report('not-durable', `${describe(request)} was acknowledged as ${seq}, which is ${this.#world.describe(event)}`)
    const [first] = truth.sent.get(`${conversationId} ${userId} ${clientMessageId}`) ?? []
    if (first !== seq) this.#world.report('sent-twice', `${describe(request)} was acknowledged as ${seq}; the first is ${first}`)
  }

  // --- reads ---

  /** A read with `minPosition` shows all that was there at that place. */
  #shows(request: Request, what: string, seq: number): void {
    const { minPosition, conversationId } = request
    if (minPosition === undefined) return
    const { truth } = this.#world
    const wanted = truth.seqAt(conversationId, truth.placeOf(minPosition))
    if (what === 'message' ? false : seq < wanted)
      this.#world.report('own-write', `${describe(request)} shows ${what} up to ${seq}; at ${minPosition} it was ${wanted}`)
  }

  #events(request: Request, { items, events, head }: Answer): void {
    const shown = (items ?? events) as Event[]
    const { conversationId, after = -1, limit = 50 } = request
    this.#checks.head(conversationId, head!, request, 'events', () => describe(request))
    shown.forEach((event, index) => {
      if (event.seq !== after + 1 + index) this.#world.report('hole', `${describe(request)} has ${event.seq} in place ${index}`)
      this.#checks.event(event, request, 'events')
    })
    const last = after + shown.length
    if (shown.length === 0 && head! > after) this.#world.report('hole', `${describe(request)} is empty, and the head is ${head}`)
    if (shown.length > limit) this.#world.report('other', `${describe(request)} has ${shown.length} events`)
    if (shown.length > 0 && last > head!) this.#world.report('head', `${describe(request)} goes up to ${last}, beyond its head ${head}`)
    this.#shows(request, 'the head', head!)
  }

  #messages(request: Request, items: Message[], head: number): void {
    const { conversationId, bounds } = request
    const { truth } = this.#world
    this.#checks.head(conversationId, head, request, 'messages', () => describe(request))
    items.forEach((message, index) => {
      const before = items[index - 1]
      if (before && !bounds?.pinned && message.ordinal !== before.ordinal + 1)
        this.#world.report('hole', `${describe(request)} has ordinal ${message.ordinal} after ${before.ordinal}`)
      this.#message(request, message)
    })
    if (request.minPosition === undefined || Object.keys(bounds ?? {}).length > 0) return
    const wanted = truth.seqAt(conversationId, truth.placeOf(request.minPosition))
    const lastMessage = truth.messagesOf(conversationId).findLast(({ revision }) => revision <= wanted)
    if (lastMessage && (items.at(-1)?.seq ?? -1) < lastMessage.revision)
      this.#world.report('own-write', `${describe(request)} ends at ${items.at(-1)?.seq}; ${lastMessage.revision} was sent`)
  }

  #message(request: Request, { seq, content, ordinal, clientMessageId }: Message): void {
    const { conversationId, minPosition } = request
    const { truth } = this.#world
    const sent = truth.eventAt(conversationId, seq)
    this.#checks.seq(conversationId, seq, request, 'messages', 'message')
    const data = sent?.data as { content: object; ordinal: number; clientMessageId: string } | undefined
    if (sent?.type !== 'MessageSent' || data?.ordinal !== ordinal || data.clientMessageId !== clientMessageId)
      return this.#world.report('other', `${describe(request)} shows ${conversationId}@${seq} with ordinal ${ordinal}`)
    const recall = truth.recallOf(conversationId, seq)
    if (content === null) {
      if (recall === undefined) this.#world.report('blanked', `${describe(request)} shows ${conversationId}@${seq} without content`)
      return
    }
    this.#checks.content(conversationId, seq, request, 'messages')
    const shown = JSON.stringify(content)
    const all = [sent, ...truth.editsOf(conversationId, seq)]
    const found = all.findLast((version) => JSON.stringify((version.data as { content: object }).content) === shown)
    if (!found) return this.#world.report('other', `${describe(request)} shows ${conversationId}@${seq} as ${shown}`)
    if (minPosition === undefined) return
    const wanted = all.findLast(({ position }) => position <= minPosition)
    if (wanted && found.revision < wanted.revision)
      this.#world.report(
        'own-write',
        `${describe(request)} shows ${conversationId}@${seq} as of ${found.revision}; ${wanted.revision} had been written`,
      )
  }

  #inbox(request: Request, lines: InboxLine[]): void {
    const { userId, minPosition, node } = request
    const { truth } = this.#world
    const viewer = { userId, node }
    for (const { conversationId, head, lastMessage } of lines) {
      this.#checks.membership(conversationId, viewer, request.at, 'inbox')
      this.#checks.head(conversationId, head, viewer, 'inbox', () => describe(request))
      if (lastMessage && lastMessage.preview !== null) this.#checks.content(conversationId, lastMessage.seq, viewer, 'inbox')
      if (lastMessage) this.#checks.seq(conversationId, lastMessage.seq, viewer, 'inbox', 'last message')
      if (minPosition !== undefined && head < truth.seqAt(conversationId, truth.placeOf(minPosition)))
        this.#world.report('own-write', `${describe(request)} shows ${conversationId} at ${head}`)
    }
    if (minPosition === undefined) return
    for (const conversationId of truth.conversationsOf(userId)) {
      const joined = truth.changeBefore(conversationId, userId, Infinity)!
      if (truth.placeOfEvent(conversationId, joined.seq) > truth.placeOf(minPosition)) continue
      if (!lines.some((line) => line.conversationId === conversationId))
        this.#world.report('own-write', `${describe(request)} lacks ${conversationId}, joined at ${joined.seq}`)
    }
  }

  #receipts(request: Request, receipts: Receipt[]): void {
    const { conversationId } = request
    for (const { userId, readSeq, deliveredSeq } of receipts) {
      const seq = Math.max(readSeq ?? -1, deliveredSeq ?? -1)
      this.#checks.seq(conversationId, seq, request, 'receipts', `receipt of ${userId}`)
      if (seq > this.#world.truth.headOf(conversationId))
        this.#world.report('head', `${describe(request)} says that ${userId} has read up to ${seq}`)
    }
  }
}

export function describe({
  kind,
  userId,
  node,
  way,
  conversationId,
  seq,
  clientMessageId,
  subject,
  minPosition,
  bounds,
  after,
}: Request): string {
  const fields = { seq, clientMessageId, subject, minPosition, after, ...bounds }
  const given = Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [`${name} ${value}`]))
  return `${kind} of ${userId} by ${way} on ${node.name} in ${[conversationId, ...given].join(', ')}`
}
