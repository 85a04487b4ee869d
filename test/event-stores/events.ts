import { hash, randomUUID } from 'node:crypto'
import {
  type Append,
  type EventStore,
  type FeedItem,
  NO_STREAM,
  ProposedEvent,
  type ReadAllOptions,
  type RecordedEvent,
} from '../../src/domain/event-store.js'

export function streamName(prefix = 'conversation'): string {
  return `${prefix}-${randomUUID()}`
}

export function proposed(stream: string, revision: number, data: unknown = { text: `${stream}@${revision}` }): ProposedEvent {
  const id = randomUUID()
  return new ProposedEvent({
    id,
    type: 'MessageSent',
    stream,
    revision,
    data,
    dataJson: JSON.stringify(data),
    metadata: {
      actor: { userId: 'anna' },
      at: 1_700_000_000_000,
      correlationId: randomUUID(),
      causationId: null,
      schemaVersion: 1,
      hash: hash('sha256', id, 'base64url'),
    },
  })
}

/** An append of so many new events. */
export function appendOf(stream: string, expectedRevision: number, count = 1): Append {
  return { stream, expectedRevision, events: Array.from({ length: count }, (_, i) => proposed(stream, expectedRevision + 1 + i)) }
}

/** Appends to each of the streams in turn, one event an append, and gives all in the order of the log. */
export async function seed(store: EventStore, streams: string[], perStream: number): Promise<RecordedEvent[]> {
  const events: RecordedEvent[] = []
  for (let revision = 0; revision < perStream; revision++) {
    const results = await Promise.all(streams.map((stream) => store.append(appendOf(stream, revision === 0 ? NO_STREAM : revision - 1))))
    for (const result of results) if (result.outcome === 'appended') events.push(...result.events)
  }
  return events.sort((a, b) => (a.position < b.position ? -1 : 1))
}

/** The whole log, however many pages it takes. */
export async function wholeLog(store: EventStore, options: Partial<ReadAllOptions> = {}): Promise<RecordedEvent[]> {
  const events: RecordedEvent[] = []
  for (let position: string | undefined; ; ) {
    const page = await store.readAll(position, { limit: 10_000, ...options })
    events.push(...page.events)
    position = page.position
    if (page.isEnd) return events
  }
}

/** The identity of an event, and everything else that a reader sees of it. */
export function seen({ id, type, stream, revision, position, dataJson, data, metadata }: RecordedEvent): unknown {
  return { id, type, stream, revision, position, dataJson, data, metadata }
}

export function keys(events: readonly { stream: string; revision: number; position: string }[]): string[] {
  return events.map(({ position, stream, revision }) => `${position} ${stream}@${revision}`)
}

/** Follows a feed in the background and lets a test wait for what it has seen. */
export class Follower {
  readonly items: FeedItem[] = []
  readonly events: RecordedEvent[] = []
  readonly #stop = new AbortController()
  readonly #done: Promise<void>
  #changed = (): void => {}
  #failure: unknown

  constructor(subscribe: (signal: AbortSignal) => AsyncIterable<FeedItem>) {
    this.#done = this.#run(subscribe(this.#stop.signal)).catch((error: unknown) => {
      this.#failure = error
      this.#changed()
    })
  }

  get saidCaughtUp(): boolean {
    return this.items.some((item) => item.kind === 'caughtUp')
  }

  get lastPosition(): string | undefined {
    const item = this.items.at(-1)
    return item?.kind === 'events' ? item.events.at(-1)?.position : item?.position
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.#failure !== undefined) throw this.#failure as Error
      await new Promise<void>((resolve) => {
        this.#changed = resolve
      })
    }
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#done
    if (this.#failure !== undefined) throw this.#failure as Error
  }

  async #run(feed: AsyncIterable<FeedItem>): Promise<void> {
    for await (const item of feed) {
      this.items.push(item)
      if (item.kind === 'events') this.events.push(...item.events)
      this.#changed()
    }
  }
}
