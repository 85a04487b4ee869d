import type { AllStreamResolvedEvent } from '@eventstore/db-client'
import type { Position, RecordedEvent } from '../../domain/event-store.js'
import { backoffMs, pause } from '../retry.js'
import { settleable } from '../settleable.js'
import { decodeEvent } from './codec.js'
import type { Connection } from './connection.js'
import { fromPosition, later, zeroPosition } from './positions.js'
import type { Reads } from './reads.js'

export interface LiveTailOptions {
  connection: Connection
  reads: Reads
  streamPrefix: string
  eventsMax: number
  bytesMax: number
}

/** Roughly what an event takes beside its data. */
const eventOverheadBytes = 1024
const evictedMax = 4096

/**
 * The most recent events, in memory, in the order of the log and without a gap, for all readers of this process: one subscription,
 * decoded once. The server pushes, so what it pushes is always taken and the oldest is forgotten; a reader is a cursor, and one that
 * falls behind reads pages. While nobody reads there is no subscription.
 */
export class LiveTail {
  readonly #options: LiveTailOptions
  readonly #waiting = new Set<() => void>()
  readonly #waitingFor = new Set<{ position: Position; wake: () => void }>()
  #events: RecordedEvent[] = []
  /** How many of #events are forgotten already. */
  #evicted = 0
  #bytes = 0
  /** All that came after this place, up to the position, is here. */
  #start: Position = zeroPosition
  #position: Position = zeroPosition
  /** Up to this place the server has nothing of ours beyond #position: where the next subscription begins. */
  #passed = zeroPosition
  #readers = 0
  #stop: AbortController | undefined
  #running: Promise<void> = Promise.resolve()
  #wakes = false

  constructor(options: LiveTailOptions) {
    this.#options = options
  }

  /** Whether anybody reads, so that what is appended comes by here. */
  get isRunning(): boolean {
    return this.#readers > 0
  }

  /** The position up to which readers may go. */
  get position(): Position {
    return this.#position
  }

  /** The first reader starts it, from the end of the log as it knows it. */
  addReader(end: Position): void {
    if (this.#readers++ > 0) return
    this.#events = []
    this.#evicted = this.#bytes = 0
    this.#start = this.#position = this.#passed = end
    const stop = (this.#stop = new AbortController())
    // One after the other: what is left of the last subscription must not add to this one.
    this.#running = this.#running.then(() => this.#run(stop.signal))
  }

  removeReader(): void {
    if (--this.#readers === 0) this.#stop?.abort()
  }

  /** Ends when nothing runs any more; the readers have left. */
  async close(): Promise<void> {
    this.#stop?.abort()
    await this.#running
  }

  /** Up to `limit` events from after `after`; none at the end; undefined when they are forgotten. */
  take(after: Position, limit: number): RecordedEvent[] | undefined {
    if (after < this.#start) return undefined
    const first = this.#indexAfter(after)
    return this.#events.slice(first, first + limit)
  }

  /** Whether the event at this position is in memory. */
  has(position: Position): boolean {
    const end = this.#indexAfter(position)
    return end > this.#evicted && this.#events[end - 1]!.position === position
  }

  /** Ends when there is more than `position`, or the signal aborts. */
  waitPast(position: Position, signal: AbortSignal): Promise<void> {
    if (this.#position > position || signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      signal.addEventListener('abort', wake)
    })
  }

  /** The `count` events up to and with that at `last`, as soon as they come by; undefined when they do not within `withinMs`, or did not. */
  async upTo(last: Position, count: number, withinMs: number): Promise<readonly RecordedEvent[] | undefined> {
    if (last > this.#position) await this.#reaching(last, withinMs)
    const end = this.#indexAfter(last)
    return last > this.#position || end - count < this.#evicted ? undefined : this.#events.slice(end - count, end)
  }

  #reaching(position: Position, withinMs: number): Promise<void> {
    return new Promise((resolve) => {
      const waiting = {
        position,
        wake: () => {
          clearTimeout(timer)
          this.#waitingFor.delete(waiting)
          resolve()
        },
      }
      const timer = setTimeout(waiting.wake, withinMs)
      this.#waitingFor.add(waiting)
    })
  }

  /** The first of #events that is past the position. */
  #indexAfter(position: Position): number {
    let low = this.#evicted
    for (let high = this.#events.length; low < high; ) {
      const middle = (low + high) >>> 1
      if (this.#events[middle]!.position > position) high = middle
      else low = middle + 1
    }
    return low
  }

  async #run(signal: AbortSignal): Promise<void> {
    for (let attempt = 0; !signal.aborted; attempt++) {
      const from = this.#position
      await this.#subscribe(signal)
      if (this.#position !== from) attempt = 0
      await pause(backoffMs(attempt), signal)
    }
  }

  /** Ends when the subscription does, for whatever reason: it never comes back by itself. */
  async #subscribe(signal: AbortSignal): Promise<void> {
    const { connection, reads, streamPrefix } = this.#options
    const { session } = connection
    const { promise: over, resolve: end } = settleable()
    let checkpoint = zeroPosition
    const subscription = session.client.subscribeToAll({
      fromPosition: fromPosition(later(this.#position, this.#passed)),
      filter: reads.filter([], (place) => {
        checkpoint = place
        passCheckpoint()
      }),
      requiresLeader: session.requiresLeader,
    })
    // A checkpoint is told in its place, while events before it may still wait in the buffer.
    const passCheckpoint = (): void => {
      if (subscription.readableLength === 0) this.#passed = later(this.#passed, checkpoint)
    }
    const fail = (error: unknown): void => {
      connection.failed(session, error)
      end()
    }
    const ended = (): void => fail(new Error('The server ended the subscription'))
    subscription.on('confirmation', () => connection.heard(session))
    subscription.on('data', ({ event }: AllStreamResolvedEvent) => {
      if (event !== undefined) this.#push(decodeEvent(event, streamPrefix))
      passCheckpoint()
      connection.heard(session)
    })
    subscription.on('error', fail)
    subscription.on('end', ended)
    const stay = session.onEnd(end)
    signal.addEventListener('abort', end)
    if (signal.aborted) end()
    await over
    stay()
    signal.removeEventListener('abort', end)
    // What comes from now on comes again with the next subscription.
    for (const event of ['data', 'error', 'end']) subscription.removeAllListeners(event)
    subscription.on('error', () => {})
    void subscription.unsubscribe().catch(() => {})
  }

  #push(event: RecordedEvent): void {
    if (event.position <= this.#position) return
    this.#events.push(event)
    this.#bytes += event.dataJson.length + eventOverheadBytes
    while (this.#bytes > this.#options.bytesMax || this.#events.length - this.#evicted > this.#options.eventsMax) this.#evict()
    this.#moveTo(event.position)
  }

  #evict(): void {
    const event = this.#events[this.#evicted++]!
    this.#bytes -= event.dataJson.length + eventOverheadBytes
    this.#start = event.position
    if (this.#evicted < evictedMax && this.#evicted < this.#events.length) return
    this.#events = this.#events.slice(this.#evicted)
    this.#evicted = 0
  }

  #moveTo(position: Position): void {
    if (position <= this.#position) return
    this.#position = position
    // A turn's wait lets readers take all that one packet brought at once.
    if (this.#wakes) return
    this.#wakes = true
    setImmediate(() => {
      this.#wakes = false
      for (const wake of this.#waiting) wake()
      for (const { position: awaited, wake } of this.#waitingFor) if (awaited <= this.#position) wake()
    })
  }
}
