import { setTimeout as delay } from 'node:timers/promises'
import type { ConversationState } from '../domain/conversation/state.js'
import { isOutage } from '../domain/errors.js'
import type { RecordedEvent } from '../domain/event-store.js'
import { idOfStream } from '../domain/ids.js'
import type { Logger } from '../domain/logger.js'
import { type LocalMember, UNKNOWN_ORDINAL, settleOrdinal } from './audience.js'

/** Joins that are still to be found out about; the state of more is left as it was guessed. */
const WAITING_MAX = 10_000
const AGAIN_MS = 500
/** The state may be ahead of the feed for a moment; then it is looked at again, so often at most. */
const LOOKS_MAX = 20
const LOOK_AGAIN_MS = 20

export interface LateLearningOptions {
  isMuted: (userId: string, conversationId: string) => Promise<boolean>
  loadState: (conversationId: string) => Promise<ConversationState>
  logger: Logger
  signal: AbortSignal
  memberOf: (userId: string, conversationId: string) => LocalMember | undefined
  mute: (member: LocalMember, muted: boolean) => void
}

/** Of those whose joining was delivered before all was known: finds it out, one after the other, and corrects what was guessed. */
export class LateLearning {
  readonly #options: LateLearningOptions
  readonly #waiting = new Set<RecordedEvent>()
  #isRunning = false

  constructor(options: LateLearningOptions) {
    this.#options = options
  }

  /** Events with which local users join. */
  add(joins: readonly RecordedEvent[]): void {
    for (const join of joins) if (this.#waiting.size < WAITING_MAX) this.#waiting.add(join)
    if (!this.#isRunning) void this.#run()
  }

  async #run(): Promise<void> {
    const { logger, signal } = this.#options
    this.#isRunning = true
    while (this.#waiting.size > 0 && !signal.aborted) {
      const [join] = this.#waiting
      try {
        await this.#correct(join!)
        this.#waiting.delete(join!)
      } catch (error) {
        if (!isOutage(error)) logger.warn({ err: error }, 'what a new member needs is not known yet')
        await this.#pause(AGAIN_MS)
      }
    }
    this.#isRunning = false
  }

  async #correct(join: RecordedEvent): Promise<void> {
    const { isMuted, mute } = this.#options
    // The event may not be handed on yet.
    await this.#pause(LOOK_AGAIN_MS)
    if (!this.#memberBy(join)) return
    const muted = await isMuted(joinedBy(join), idOfStream(join.stream))
    const member = this.#memberBy(join)
    if (member) mute(member, muted)
    for (let looks = 1; this.#memberBy(join)?.audience.isGuessed; looks += 1) {
      const state = await this.#options.loadState(idOfStream(join.stream))
      const audience = this.#memberBy(join)?.audience
      if (!audience?.isGuessed) return
      if (state.head === audience.head || looks === LOOKS_MAX) {
        audience.isGuessed = false
        audience.memberCount = state.members.size
        const joined = state.members.get(joinedBy(join))?.joinedOrdinal
        if (audience.lastOrdinal === UNKNOWN_ORDINAL && joined !== undefined) settleOrdinal(audience, joined)
        return
      }
      await this.#pause(LOOK_AGAIN_MS)
    }
  }

  /** The member that joined by this event, as long as it is one. */
  #memberBy(join: RecordedEvent): LocalMember | undefined {
    const member = this.#options.memberOf(joinedBy(join), idOfStream(join.stream))
    return member?.joinedSeq === join.revision ? member : undefined
  }

  async #pause(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#options.signal }).catch(() => undefined)
  }
}

/** The user that a MemberJoined is about. */
export const joinedBy = (join: RecordedEvent): string => (join.data as { userId: string }).userId
