import { LRUCache } from 'lru-cache'
import type { RecordedEvent } from './event-store.js'

const CONVERSATIONS_MAX = 10_000
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
  readonly #changes = new LRUCache<string, Changes>({ maxSize: CONVERSATIONS_MAX, sizeCalculation: () => 1 })

  take(conversationId: string, { type, data }: RecordedEvent): void {
    if (type === 'MessageRecalled') this.#of(conversationId).recalled.add((data as { messageSeq: number }).messageSeq)
    else if (type === 'MemberLeft' || type === 'MemberRemoved') this.#of(conversationId).left.add((data as { userId: string }).userId)
    else if (type === 'MemberJoined') this.#changes.peek(conversationId)?.left.delete((data as { userId: string }).userId)
  }

  recalled(conversationId: string): ReadonlySet<number> | undefined {
    return this.#changes.get(conversationId)?.recalled
  }

  hasLeft(conversationId: string, userId: string): boolean {
    return this.#changes.get(conversationId)?.left.has(userId) ?? false
  }

  #of(conversationId: string): Changes {
    let changes = this.#changes.get(conversationId)
    if (!changes) this.#changes.set(conversationId, (changes = { recalled: new Set(), left: new Set() }))
    // The first of so many are in the tables by now.
    if (changes.recalled.size + changes.left.size >= CHANGES_MAX)
      this.#changes.set(conversationId, (changes = { recalled: new Set(), left: new Set() }))
    return changes
  }
}
