import { once, setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Device, Event, Frame } from './device.js'
import type { User } from './world.js'

const RETRY_MS = 20

/**
 * A device whose line breaks at any place: what came after the break is lost to it, and it resumes from the place that the last
 * frame named which it kept. It drops by seq what it has already.
 */
export class ForgetfulDevice {
  readonly user: User
  /** Of all connections, as far as they were kept. */
  readonly kept: Frame[] = []
  device: Device | undefined
  /** What its server could not make good. */
  notRecovered = 0
  #position: string | undefined

  constructor(user: User) {
    this.user = user
  }

  async connect(): Promise<void> {
    this.device = await this.user.connect({ deviceId: 'forgetful', position: this.#position })
    if (this.device.hello!.recovered !== true) this.notRecovered += 1
    this.#position ??= this.device.hello!.position
  }

  /** Cuts the line; of the frames that had come `share` (0–1) are kept. */
  cut(share: number): void {
    if (!this.device) return
    const { frames } = this.device
    const kept = frames.slice(0, Math.max(1, Math.ceil(frames.length * share)))
    this.kept.push(...kept)
    this.#position = kept.findLast(({ resume }) => resume !== undefined)?.resume ?? this.#position
    this.device.terminate()
    this.device = undefined
  }

  /** Comes back whenever its server is lost, until it is told to rest; then its line is left as it is. */
  async stayConnected(rest: AbortSignal): Promise<void> {
    setMaxListeners(0, rest)
    const resting = once(rest, 'abort')
    while (!rest.aborted) {
      if (!this.device) await this.connect().catch(() => sleep(RETRY_MS))
      else if (this.device.closeCode === undefined) await Promise.race([this.device.closed, resting])
      else this.cut(1)
    }
  }

  get frames(): Frame[] {
    return [...this.kept, ...(this.device?.frames ?? [])]
  }

  /** What it has of a conversation, each fact once. */
  events(conversationId: string): Map<number, Event> {
    const events = this.frames.flatMap((frame) => (frame.events && frame.type === 'events' ? frame.events : []))
    return new Map(events.filter((event) => event.conversationId === conversationId).map((event) => [event.seq, event]))
  }

  /** The highest seq that a `head` has announced. */
  announced(conversationId: string): number {
    return Math.max(
      -1,
      ...this.frames.flatMap((frame) => (frame.type === 'head' && frame.conversationId === conversationId ? [frame.seq!] : [])),
    )
  }

  /** It has this fact, or knows that it is there. */
  async waitForSeq(conversationId: string, seq: number): Promise<void> {
    await this.device!.until(
      () => this.announced(conversationId) >= seq || this.events(conversationId).has(seq),
      `seq ${seq} of ${conversationId}`,
    )
  }

  /** What of `from`–`to` it neither has nor knows that it misses. */
  holes(conversationId: string, from: number, to: number): number[] {
    const [events, announced] = [this.events(conversationId), this.announced(conversationId)]
    const holes: number[] = []
    for (let seq = from; seq <= to; seq += 1) if (!events.has(seq) && seq > announced) holes.push(seq)
    return holes
  }
}
