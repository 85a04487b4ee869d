import { type Audience, type LocalMember, unreadOf } from './audience.js'
import { textFrame } from './frames.js'

/** Counts that change together are pushed together. */
const PUSH_MS = 50
const LARGE_PUSH_MS = 1_000

/** Tells users that their own counts changed: of a burst only the last counts are pushed, and nothing that did not change. */
export class UnreadPushes {
  readonly #largeAbove: number
  readonly #changed = new Set<Audience>()
  #timer: NodeJS.Timeout | undefined

  constructor({ largeAbove }: { largeAbove: number }) {
    this.#largeAbove = largeAbove
  }

  /** Something in this conversation may have moved a count. */
  changed(audience: Audience): void {
    this.#changed.add(audience)
    this.#timer ??= setTimeout(() => this.#push(), PUSH_MS)
  }

  /** Takes a count as known, without a push: that of a user who has just come. */
  countQuietly(member: LocalMember): void {
    member.pushedUnread = unreadOf(member)
    member.pushedMentions = member.mentionOrdinals.length
    if (!member.muted) member.user.totalUnread += member.pushedUnread
  }

  /** A muted conversation does not count in the total. */
  mute(member: LocalMember, muted: boolean): void {
    if (member.muted === muted) return
    member.muted = muted
    member.user.totalUnread += muted ? -member.pushedUnread : member.pushedUnread
    if (member.pushedUnread > 0) send(member, false)
  }

  /** Nothing of it counts any more. Told before the leaving itself, after which nothing comes of the conversation. */
  leave(member: LocalMember): void {
    pushIfOther(member, 0, 0, false)
  }

  stop(): void {
    clearTimeout(this.#timer)
  }

  #push(): void {
    this.#timer = undefined
    const now = performance.now()
    for (const audience of this.#changed) {
      const isLarge = audience.memberCount > this.#largeAbove
      if (isLarge && now - audience.lastUnreadAt < LARGE_PUSH_MS) continue
      audience.lastUnreadAt = now
      this.#changed.delete(audience)
      for (const member of audience.members.values()) pushIfOther(member, unreadOf(member), member.mentionOrdinals.length, isLarge)
    }
    if (this.#changed.size > 0) this.#timer ??= setTimeout(() => this.#push(), PUSH_MS)
  }
}

function pushIfOther(member: LocalMember, unread: number, mentions: number, canWait: boolean): void {
  if (unread === member.pushedUnread && mentions === member.pushedMentions) return
  if (!member.muted) member.user.totalUnread += unread - member.pushedUnread
  member.pushedUnread = unread
  member.pushedMentions = mentions
  send(member, canWait)
}

function send({ user, audience, pushedUnread, pushedMentions }: LocalMember, canWait: boolean): void {
  const frame = textFrame(
    `{"type":"unread","conversationId":"${audience.conversationId}","unread":${pushedUnread},"mentions":${pushedMentions},"total":${user.totalUnread}}`,
  )
  for (const connection of user.connections) connection.push(frame, canWait)
}
