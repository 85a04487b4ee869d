import type { Device, Event, Frame } from './device.js'
import type { User } from './world.js'

/**
 * A device whose line breaks at any place: what came after the break is lost to it, and it resumes from the place that the last
 * frame named which it kept. It drops by seq what it has already.
 */
export class ForgetfulDevice {
  readonly user: User
  /** Of all connections, as far as they were kept. */
  readonly kept: Frame[] = []
  device: Device | undefined
  #position: string | undefined

  constructor(user: User) {
    this.user = user
  }

  async connect(): Promise<void> {
    this.device = await this.user.connect({ deviceId: 'forgetful', position: this.#position })
    if (this.device.hello!.recovered !== true) throw new Error(`not recovered from ${this.#position}`)
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
    return Math.max(-1, ...this.frames.flatMap((frame) => (frame.type === 'head' && frame.conversationId === conversationId ? [frame.seq!] : [])))
  }

  /** What of `from`–`to` it neither has nor knows that it misses. */
  holes(conversationId: string, from: number, to: number): number[] {
    const [events, announced] = [this.events(conversationId), this.announced(conversationId)]
    const holes: number[] = []
    for (let seq = from; seq <= to; seq += 1) if (!events.has(seq) && seq > announced) holes.push(seq)
    return holes
  }
}
