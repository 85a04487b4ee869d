import type { Conversations } from '../domain/conversations.js'
import { Refusal } from '../domain/errors.js'
import type { Users } from '../domain/users.js'
import type { Audience } from './audience.js'
import type { Connection } from './connection.js'
import { jsonFrame } from './frames.js'
import type { Hub } from './hub.js'
import type { Signals } from './signals.js'

const RELAY_EVERY_MS = 1_000
const REMEMBERED_MAX = 100_000

/** Who is typing: relayed, never stored. `on: true` at most once a second per user and conversation, `on: false` always. */
export class Typing {
  readonly #hub: Hub
  readonly #users: Users
  readonly #conversations: Conversations
  readonly #signals: Signals
  readonly #relayedAt = new Map<string, number>()

  constructor({ hub, users, conversations, signals }: { hub: Hub; users: Users; conversations: Conversations; signals: Signals }) {
    this.#hub = hub
    this.#users = users
    this.#conversations = conversations
    this.#signals = signals
    signals.onSignal = ({ conversationId, userId, on }) => this.#relayHere(conversationId, userId, on)
  }

  /** @throws {Refusal} not_found to who is no member, blocked across a block */
  async relay(connection: Connection, conversationId: string, on: boolean): Promise<void> {
    const { userId } = connection
    const { state } = await this.#conversations.open(conversationId, { userId })
    const other = state.type === 'direct' ? state.members.findOther(userId) : undefined
    if (other !== undefined && (await this.#users.isBlockBetween(userId, other)))
      throw new Refusal('blocked', 'One of the two has blocked the other: nobody is told of typing here.')
    if (on && !this.#isDue(`${userId} ${conversationId}`)) return
    const audience = this.#hub.audienceOf(conversationId)
    if (audience) this.#send(audience, userId, on)
    this.#signals.send({ type: 'typing', conversationId, userId, on })
  }

  /** From another node, which has checked who says it; a user who types on two of them is told of once. */
  #relayHere(conversationId: string, userId: string, on: boolean): void {
    const audience = this.#hub.audienceOf(conversationId)
    if (audience && (!on || this.#isDue(`${userId} ${conversationId}`))) this.#send(audience, userId, on)
  }

  #isDue(key: string): boolean {
    const now = performance.now()
    if (now - (this.#relayedAt.get(key) ?? -Infinity) < RELAY_EVERY_MS) return false
    this.#relayedAt.delete(key)
    this.#relayedAt.set(key, now)
    for (const [oldest, at] of this.#relayedAt) {
      if (this.#relayedAt.size <= REMEMBERED_MAX && now - at < RELAY_EVERY_MS * 10) break
      this.#relayedAt.delete(oldest)
    }
    return true
  }

  /** In a large conversation only those who look at it are told. */
  #send(audience: Audience, userId: string, on: boolean): void {
    const { conversationId } = audience
    const frame = jsonFrame({ type: 'typing', conversationId, userId, on })
    const isLarge = this.#hub.isLarge(audience)
    for (const { user } of audience.members.values()) {
      if (user.userId === userId) continue
      for (const connection of user.connections) if (!isLarge || connection.activeConversationId === conversationId) connection.push(frame)
    }
  }
}
