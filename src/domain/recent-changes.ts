import { LRUCache } from 'lru-cache'
import type { RecordedEvent } from './event-store.js'

/** Of all conversations together, about 150 bytes each; a conversation is one more. */
const RECENT_CHANGES_MAX = 100_000
/** Of one conversation. */
const CHANGES_MAX = 5_000

interface Changes {
  recalled: Set<number>
  /** Who left or was removed, and did not come back. */
  left: Set<string>
}

/**
 * What the feed has brought of conversations whose state is not in memory, and what tables may not show yet: recalls and
 * departures, which hold from then on whichever table is asked.
 */
export class RecentChanges {
  readonly #changes = new LRUCache<string, Changes>({
    maxSize: RECENT_CHANGES_MAX,
    sizeCalculation: ({ recalled, left }) => 1 + recalled.size + left.size,
  })

  take(conversationId: string, { type, data }: RecordedEvent): void {
    if (type === 'MessageRecalled') this.#add(conversationId, ({ recalled }) => recalled.add((data as { messageSeq: number }).messageSeq))
    else if (type === 'MemberLeft' || type === 'MemberRemoved')
      this.#add(conversationId, ({ left }) => left.add((data as { userId: string }).userId))
    else if (type === 'MemberJoined') this.#changes.peek(conversationId)?.left.delete((data as { userId: string }).userId)
  }

  recalled(conversationId: string): ReadonlySet<number> | undefined {
    return this.#changes.get(conversationId)?.recalled
  }

  hasLeft(conversationId: string, userId: string): boolean {
    return this.#changes.get(conversationId)?.left.has(userId) ?? false
  }

  #add(conversationId: string, to: (changes: Changes) => void): void {
    let changes = this.#changes.get(conversationId)
    // The first of so many are in the tables by now.
    if (!changes || changes.recalled.size + changes.left.size >= CHANGES_MAX) changes = { recalled: new Set(), left: new Set() }
    to(changes)
    // It weighs more now, which the cache sees only of what is new to it.
    this.#changes.delete(conversationId)
    this.#changes.set(conversationId, changes)
  }
}
