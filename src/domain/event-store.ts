/**
 * The event store port: an append-only log of streams with one global order.
 * Adapters live in `src/event-stores/`; one contract suite (`test/event-stores/contract.ts`) holds them all to this page.
 */

import { hashInMetadata, positionOf } from './position.js'

/** Who did it: a user, an app, or an app for a user. */
export type Actor = { readonly userId: string; readonly app?: string } | { readonly userId?: never; readonly app: string }

let lastActor: Actor | undefined
let lastActorJson = ''

/** As JSON text. An actor does many things in a row: the last text is kept. */
export function actorJsonOf(actor: Actor): string {
  if (actor !== lastActor) {
    lastActor = actor
    lastActorJson = JSON.stringify(actor)
  }
  return lastActorJson
}

export interface EventMetadata {
  actor: Actor
  /** Server clock, ms since the epoch. */
  at: number
  /** The request that led here, the same for every event of one request. */
  correlationId: string
  /** The event that led here, or null where a request did. */
  causationId: string | null
  schemaVersion: number
  /** See hash-chain.ts. */
  hash: string
}

/**
 * A place in the whole log: opaque, and ordered as a string (`<`) within one log. An adapter's text for the place comes first, always
 * of one width, then a part of the hash of the event there (position.ts), by which a log can tell its own positions from another's.
 */
export type Position = string

/** The `expectedRevision` of a stream that must not exist yet. */
export const NO_STREAM = -1

/** A decided event on its way into the log. Its id is made once and kept for every retry. */
export class ProposedEvent {
  readonly id: string
  readonly type: string
  readonly stream: string
  readonly revision: number
  readonly data: unknown
  readonly metadata: EventMetadata
  /** `data` as it is stored. */
  readonly dataJson: string

  constructor(event: {
    id: string
    type: string
    stream: string
    revision: number
    data: unknown
    dataJson: string
    metadata: EventMetadata
  }) {
    this.id = event.id
    this.type = event.type
    this.stream = event.stream
    this.revision = event.revision
    this.data = event.data
    this.dataJson = event.dataJson
    this.metadata = event.metadata
  }
}

/**
 * An event that the log holds. What came from disk is parsed when it is first looked at,
 * so that a reader who drops events by stream name pays for no JSON.
 */
export class RecordedEvent {
  readonly id: string
  readonly type: string
  readonly stream: string
  readonly revision: number
  /** `data` as it is stored. */
  readonly dataJson: string
  /** The adapter's text for the place in the log, without the hash. */
  readonly place: string
  readonly #metadataJson: string
  #position: Position | undefined
  #data: unknown
  #metadata: EventMetadata | undefined

  /** `decoded`: what is parsed already; `metadataJson` is then not looked at. */
  constructor(
    stored: { id: string; type: string; stream: string; revision: number; dataJson: string },
    place: string,
    metadataJson: string,
    decoded?: { data: unknown; metadata: EventMetadata },
  ) {
    this.id = stored.id
    this.type = stored.type
    this.stream = stored.stream
    this.revision = stored.revision
    this.place = place
    this.dataJson = stored.dataJson
    this.#metadataJson = metadataJson
    this.#data = decoded?.data
    this.#metadata = decoded?.metadata
  }

  /** A proposed event that was committed at `place`: nothing is encoded or parsed again. */
  static committed(event: ProposedEvent, place: string): RecordedEvent {
    return new RecordedEvent(event, place, '', event)
  }

  /** The place with a part of this event's hash. */
  get position(): Position {
    return (this.#position ??= positionOf(
      this.place,
      this.#metadata === undefined ? hashInMetadata(this.#metadataJson) : this.#metadata.hash,
    ))
  }

  get data(): unknown {
    return (this.#data ??= JSON.parse(this.dataJson))
  }

  get metadata(): EventMetadata {
    return (this.#metadata ??= JSON.parse(this.#metadataJson) as EventMetadata)
  }
}

export interface Append {
  stream: string
  /** The stream's last revision as the writer knows it; NO_STREAM where there is none. */
  expectedRevision: number
  /** At least one; their revisions follow `expectedRevision` without a gap. */
  events: readonly ProposedEvent[]
}

export type AppendResult =
  /** Committed and fsynced now. */
  | { outcome: 'appended'; events: RecordedEvent[] }
  /** This very append (the same event ids at the same place) was committed before: the first result. */
  | { outcome: 'duplicate'; events: RecordedEvent[] }
  /** Nothing was written; the stream is at another revision. */
  | { outcome: 'conflict'; actualRevision: number }

/** The log can't answer now and nothing was written or read. */
export class StoreUnavailable extends Error {}

/** An append whose outcome is not known: it may have happened, or may still happen. */
export class AppendOutcomeUnknown extends Error {}

export interface ReadStreamOptions {
  /** Default: forwards. */
  direction?: 'forwards' | 'backwards'
  /** The first revision to give, inclusive. Default: the beginning, or backwards the end. */
  from?: number
  /** At most this many events, at least one. */
  limit: number
  /** See {@link READ_BYTES_MAX}, the default. */
  bytesMax?: number
}

/**
 * A page ends before the event with which it would come to more bytes of data and metadata, but it has at least one event.
 * An adapter that cannot tell the exact size of metadata counts more, never less.
 */
export const READ_BYTES_MAX = 4 << 20

export interface StreamPage {
  events: RecordedEvent[]
  /** True if the stream had no further event in this direction when the page was read. */
  isEnd: boolean
}

export interface LogPage {
  /** In the order of the log. */
  events: RecordedEvent[]
  /** Where to go on: it moves past events that the filter drops. */
  position: Position
  /** True if the log had nothing beyond `position` when the page was read. */
  isEnd: boolean
}

export interface Filter {
  /** Only streams whose name begins with one of these. Empty or absent: all. */
  prefixes?: readonly string[]
}

export interface ReadAllOptions extends Filter {
  /** At most this many events, at least one. */
  limit: number
  /** See {@link READ_BYTES_MAX}, the default. */
  bytesMax?: number
}

export type FeedItem =
  /** In the order of the log, at least one. */
  | { kind: 'events'; events: readonly RecordedEvent[] }
  /** All that was in the log when it was asked has been given; what follows is live. Said at least once. */
  | { kind: 'caughtUp'; position: Position }
  /** Nothing up to here passes the filter: a place to resume from. */
  | { kind: 'checkpoint'; position: Position }

export interface EventStore {
  /**
   * Appends at an exact revision; resolves after the events are committed and fsynced.
   * Appends of many streams that are pending in the same instant are committed together; a conflict fails one stream alone.
   * @throws {StoreUnavailable} nothing happened
   * @throws {AppendOutcomeUnknown} it may have happened: settle by reading the stream, or by the same append again
   */
  append(append: Append): Promise<AppendResult>

  /** A page of one stream; empty where the stream or the range is. @throws {StoreUnavailable} */
  readStream(stream: string, options: ReadStreamOptions): Promise<StreamPage>

  /**
   * A page of the whole log in its order, from after `after` (undefined: the beginning), cut by bytes like a page of a stream.
   * @throws {StoreUnavailable}
   */
  readAll(after: Position | undefined, options: ReadAllOptions): Promise<LogPage>

  /**
   * The log from after `after`: catches up, says `caughtUp`, and goes on live, without hole or double, until `signal` aborts (then it returns).
   * Survives the loss of the store: it goes on from its last position when the store is back.
   * The reader sets the pace: nothing is queued for it without bound.
   */
  subscribeToAll(after: Position | undefined, filter: Filter, signal: AbortSignal): AsyncIterable<FeedItem>

  /** One stream from after `afterRevision` (NO_STREAM: all), live, until `signal` aborts. */
  subscribeToStream(stream: string, afterRevision: number, signal: AbortSignal): AsyncIterable<readonly RecordedEvent[]>

  /** The position of the last event in the log; the store's zero where it is empty. @throws {StoreUnavailable} */
  head(): Promise<Position>

  /**
   * Whether a text that came from outside is one of this log's positions: this log has, at that place, the very event that the position
   * was made of. False for every other text, and for a place ahead of the log's end. A position that was confirmed stays so.
   * @throws {StoreUnavailable}
   */
  confirms(text: string): Promise<boolean>

  /** Ends what runs; pending appends are settled first. */
  close(): Promise<void>
}
