import type { RecordedEvent } from '../../src/domain/event-store.js'
import type { Event } from '../support/device.js'
import type { SimulatedNode } from './node.js'
import type { World } from './world.js'

/** By which way something reached a client. */
export type Way = 'live' | 'resume' | 'again' | 'events' | 'messages' | 'inbox' | 'receipts' | 'head' | 'conversation'

/** Who is shown something, where, and since when it has been asked for. */
export interface Viewer {
  userId: string
  node: SimulatedNode
}

/** The rules for every single thing that a client is shown, whatever the way. */
export class Checks {
  readonly #world: World

  constructor(world: World) {
    this.#world = world
  }

  /** One event of a conversation: it is the log's, and the viewer may see it. */
  event(event: Event, viewer: Viewer, way: Way): void {
    const { truth } = this.#world
    const { conversationId, seq } = event
    const name = () => `${way} to ${viewer.userId} on ${viewer.node.name}: ${conversationId}@${seq} ${event.type}`
    const logged = truth.eventAt(conversationId, seq)
    if (!logged) return this.#world.report('phantom', `${name()}, which the log does not have`)
    if (logged.type !== event.type || logged.position !== event.position)
      this.#world.report('other', `${name()} at ${event.position}; the log has ${logged.type} at ${logged.position}`)
    this.#data(event, logged, name)
    const messageSeq = messageOf(event)
    if (messageSeq !== undefined && event.data.content !== null) this.content(conversationId, messageSeq, viewer, way)
    this.seq(conversationId, seq, viewer, way, 'event')
    this.head(conversationId, event.head, viewer, way, () => `${way}, head of an event`)
    if (event.head < seq) this.#world.report('head', `${name()} with head ${event.head}`)
  }

  #data(event: Event, logged: RecordedEvent, name: () => string): void {
    const shown = JSON.stringify(event.data)
    if (shown === logged.dataJson) return
    const isBlanked = event.data.content === null
    if (isBlanked && shown === JSON.stringify({ ...(logged.data as object), content: null })) {
      const messageSeq = messageOf(event)
      if (messageSeq !== undefined && this.#world.truth.recallOf(event.conversationId, messageSeq) !== undefined) return
      return this.#world.report('blanked', `${name()} without content, though it was never recalled`)
    }
    this.#world.report('other', `${name()} says ${shown}; the log has ${logged.dataJson}`)
  }

  /** Content of a message is shown: not where the node knew that it is recalled. */
  content(conversationId: string, messageSeq: number, { userId, node }: Viewer, way: Way): void {
    const { truth, clock } = this.#world
    const recall = truth.recallOf(conversationId, messageSeq)
    if (recall === undefined) return
    if (node.knew(conversationId, recall, clock.now))
      this.#world.report(
        `recalled-${way}`,
        `${way} shows ${userId} on ${node.name} the content of ${conversationId}@${messageSeq}, recalled at ${recall}`,
      )
  }

  /** Something at this seq is shown: whoever is no member any more sees nothing beyond its own departure. */
  seq(conversationId: string, seq: number, { userId, node }: Viewer, way: Way, what: string): void {
    const horizon = this.#world.truth.horizonOf(conversationId, userId)
    if (seq > horizon)
      this.#world.report(
        `beyond-${way}`,
        `${way} shows ${userId} on ${node.name} the ${what} ${conversationId}@${seq}; it was a member up to ${horizon}`,
      )
  }

  /** How far a conversation is, as told to somebody. */
  head(conversationId: string, head: number, { userId, node }: Viewer, way: Way, where: () => string): void {
    const { truth } = this.#world
    const horizon = truth.horizonOf(conversationId, userId)
    if (head > truth.headOf(conversationId))
      this.#world.report('head', `${where()} says ${conversationId}@${head}; the log is at ${truth.headOf(conversationId)}`)
    else if (head > horizon)
      this.#world.report(
        `head-beyond-${way}`,
        `${where()} tells ${userId} on ${node.name} that ${conversationId} is at ${head}; it was a member up to ${horizon}`,
      )
  }

  /** A node that knew of the departure before it was asked answers that there is no such conversation. */
  membership(conversationId: string, { userId, node }: Viewer, askedAt: number, what: string): void {
    const { truth } = this.#world
    const departure = truth.lastDeparture(conversationId, userId)
    if (departure === undefined || truth.isMember(conversationId, userId)) return
    if (node.knew(conversationId, departure, askedAt))
      this.#world.report(`removed-${what}`, `${what} shows ${userId} on ${node.name} ${conversationId}, which it had left at ${departure}`)
  }
}

export function messageOf({ type, seq, data }: Event): number | undefined {
  if (type === 'MessageSent') return seq
  return type === 'MessageEdited' ? data.messageSeq : undefined
}
