import { LRUCache } from 'lru-cache'
import type { Position, RecordedEvent } from './event-store.js'

/** Of all conversations together, about 150 bytes each; a conversation is one more. */
const RECENT_CHANGES_MAX = 100_000
/** Of one conversation. */
const CHANGES_MAX = 5_000

interface Membership {
  isMember: boolean
  /** Of the event that says so: where somebody came back, the seq of joining. */
  revision: number
}

interface Changes {
  recalled: Set<number>
  /** Those who left or were removed, also where they came back. */
  memberships: Map<string, Membership>
  position: Position
}

const sizeOf = ({ recalled, memberships }: Changes) => 1 + recalled.size + memberships.size

/**
 * The recalls and departures that this node has written or its feed has brought, which tables may not show yet.
 * Tables that are at `since` or past it and these changes together miss nothing that this node was told of.
 */
export class RecentChanges {
  readonly #changes = new LRUCache<string, Changes>({
    maxSize: RECENT_CHANGES_MAX,
    sizeCalculation: sizeOf,
    dispose: ({ position }, _, reason) => {
      if (reason === 'evict') this.startAt(position)
    },
  })
  #since: Position = ''

  /** Everything after this is known here. */
  get since(): Position {
    return this.#since
  }

  /** Nothing that was written before `position` is known here. */
  startAt(position: Position): void {
    if (position > this.#since) this.#since = position
  }

  /** Takes an event, in any order and any number of times. */
  take(conversationId: string, { type, data, revision, position }: RecordedEvent): void {
    if (type === 'MessageRecalled') this.takeRecall(conversationId, (data as { messageSeq: number }).messageSeq, position)
    else if (type === 'MemberLeft' || type === 'MemberRemoved')
      this.#change(conversationId, position, ({ memberships }) =>
        note(memberships, (data as { userId: string }).userId, { isMember: false, revision }),
      )
    else if (type === 'MemberJoined') {
      const { userId } = data as { userId: string }
      const memberships = this.#changes.peek(conversationId)?.memberships
      if (memberships?.has(userId)) note(memberships, userId, { isMember: true, revision })
    }
  }

  /** Takes a recall. `position`: of it, or of a later event of its conversation. */
  takeRecall(conversationId: string, messageSeq: number, position: Position): void {
    this.#change(conversationId, position, ({ recalled }) => recalled.add(messageSeq))
  }

  recalled(conversationId: string): ReadonlySet<number> | undefined {
    return this.#changes.peek(conversationId)?.recalled
  }

  /** What is known of somebody who has left, at least once; undefined of everybody else. */
  membership(conversationId: string, userId: string): Membership | undefined {
    return this.#changes.peek(conversationId)?.memberships.get(userId)
  }

  #change(conversationId: string, position: Position, change: (changes: Changes) => void): void {
    let changes = this.#changes.peek(conversationId)
    if (changes && sizeOf(changes) > CHANGES_MAX) {
      this.startAt(changes.position)
      changes = undefined
    }
    changes ??= { recalled: new Set(), memberships: new Map(), position }
    if (position > changes.position) changes.position = position
    change(changes)
    // It weighs more now, which the cache sees only of what is new to it.
    this.#changes.delete(conversationId)
    this.#changes.set(conversationId, changes)
  }
}

function note(memberships: Map<string, Membership>, userId: string, membership: Membership): void {
  if ((memberships.get(userId)?.revision ?? -1) < membership.revision) memberships.set(userId, membership)
}
