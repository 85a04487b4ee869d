import { LRUCache } from 'lru-cache'
import type { History } from './history.js'

/** Who has asked so often in vain will ask again: then all its ids are read at once. */
const ASKED_MIN = 4
/** A sender of more messages in one conversation is asked for message by message. */
const IDS_OF_SENDER_MAX = 10_000
/** Of all senders together, about 100 bytes each. */
const IDS_MAX = 300_000
/** What a sender weighs beside its ids, in ids. */
const SENDER_WEIGHT = 4

interface Sender {
  /** All that it had sent up to this revision is in `seqs`. */
  asOf: number
  /** By client message id. */
  seqs: Map<string, number>
  asked: number
  isLoading: boolean
  hasTooMany: boolean
}

/**
 * What those who write now have sent before, so that in a conversation longer than its window not every message waits for an
 * answer of the history. What it holds is never wrong, only old: as of a revision, and the window knows what came after that.
 */
export class SentIds {
  readonly #history: History
  readonly #senders = new LRUCache<string, Sender>({ maxSize: IDS_MAX, sizeCalculation: ({ seqs }) => SENDER_WEIGHT + seqs.size })

  constructor(history: History) {
    this.#history = history
  }

  /** The message with this id where there is one, as of `since` or later; undefined where that is not known here: then the history is asked. */
  find(
    conversationId: string,
    senderId: string,
    clientMessageId: string,
    since: number,
  ): { asOf: number } | { sentBefore: number } | undefined {
    const sender = this.#senderOf(conversationId, senderId)
    if (sender.asOf < since) {
      this.#ask(conversationId, senderId, sender)
      return undefined
    }
    const seq = sender.seqs.get(clientMessageId)
    return seq === undefined ? { asOf: sender.asOf } : { sentBefore: seq }
  }

  #senderOf(conversationId: string, senderId: string): Sender {
    const key = keyOf(conversationId, senderId)
    let sender = this.#senders.get(key)
    if (!sender) this.#senders.set(key, (sender = { asOf: -1, seqs: new Map(), asked: 0, isLoading: false, hasTooMany: false }))
    return sender
  }

  #ask(conversationId: string, senderId: string, sender: Sender): void {
    sender.asked += 1
    if (sender.asked >= ASKED_MIN && !sender.isLoading && !sender.hasTooMany) void this.#load(conversationId, senderId, sender)
  }

  async #load(conversationId: string, senderId: string, sender: Sender): Promise<void> {
    sender.isLoading = true
    try {
      const { asOf, sent } = await this.#history.findSentIds(conversationId, senderId, sender.asOf, IDS_OF_SENDER_MAX + 1)
      if (sender.seqs.size + sent.length > IDS_OF_SENDER_MAX) Object.assign(sender, { asOf: -1, seqs: new Map(), hasTooMany: true })
      else {
        for (const { clientMessageId, seq } of sent) sender.seqs.set(clientMessageId, seq)
        sender.asOf = asOf
      }
      // It weighs something else now, which the cache sees only of what is new to it.
      const key = keyOf(conversationId, senderId)
      this.#senders.delete(key)
      this.#senders.set(key, sender)
    } catch {
      // Nothing depends on it: the history goes on being asked for each message, and that says what is wrong.
    } finally {
      sender.isLoading = false
      sender.asked = 0
    }
  }
}

const keyOf = (conversationId: string, senderId: string) => `${conversationId} ${senderId}`
