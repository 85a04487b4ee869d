import {
  type AllStreamResolvedEvent,
  BACKWARDS,
  END,
  ErrorType,
  type Filter as ServerFilter,
  FORWARDS,
  streamNameFilter,
} from '@eventstore/db-client'
import {
  type LogPage,
  type Position,
  READ_BYTES_MAX,
  type ReadAllOptions,
  type ReadStreamOptions,
  StoreUnavailable,
  type StreamPage,
} from '../../domain/event-store.js'
import { positionOf } from '../../domain/position.js'
import { CutPage } from '../cut-page.js'
import { settleable } from '../settleable.js'
import { decodeEvent } from './codec.js'
import type { Connection, Session } from './connection.js'
import { isInvalidPosition, toStoreError } from './errors.js'
import { findPlace, fromPosition, later, toPlace, zeroPosition } from './positions.js'

/** How many events the server looks at before it answers, and between two checkpoints. */
export const searchWindowEvents = 512
/** How long a read may go without hearing anything. */
const silenceMsMax = 5000
const headPageEventsMax = 4096

interface Source {
  on(event: string, listener: (...args: unknown[]) => void): unknown
  removeAllListeners(event: string): unknown
}

/** What is read from the server. All throw StoreUnavailable when it can't be read now. */
export class Reads {
  readonly #connection: Connection
  readonly #streamPrefix: string
  /** The place of the log's end when it was last looked at, and the position of the last event before it that is ours. */
  #seen = { end: zeroPosition, head: zeroPosition }

  constructor(connection: Connection, streamPrefix: string) {
    this.#connection = connection
    this.#streamPrefix = streamPrefix
  }

  async stream(
    stream: string,
    { direction = 'forwards', from, limit, bytesMax = READ_BYTES_MAX }: ReadStreamOptions,
    silenceMs = silenceMsMax,
  ): Promise<StreamPage> {
    if (direction === 'backwards' && (from ?? 0) < 0) return { events: [], isEnd: true }
    const page = new CutPage(limit, bytesMax)
    await this.#drain((session, done) => {
      // One more than may be given: it tells that the page is not the end.
      const options = { maxCount: limit + 1, requiresLeader: session.requiresLeader }
      const fromRevision = BigInt(Math.max(from ?? 0, 0))
      const source =
        direction === 'forwards'
          ? session.client.readStream(this.#streamPrefix + stream, { ...options, direction: FORWARDS, fromRevision })
          : session.client.readStream(this.#streamPrefix + stream, {
              ...options,
              direction: BACKWARDS,
              fromRevision: from === undefined ? END : fromRevision,
            })
      source.on('data', ({ event }) => {
        if (event !== undefined) page.add(decodeEvent(event, this.#streamPrefix))
        if (page.isCut) done()
      })
      return { source, leave: () => source.cancel() }
    }, silenceMs).catch((error: unknown) => {
      if ((error as { type?: unknown }).type !== ErrorType.STREAM_NOT_FOUND) throw error
    })
    return { events: page.events, isEnd: !page.isCut }
  }

  /** A page of the whole log; see EventStore.readAll. */
  async page(after: Position, { prefixes = [], limit, bytesMax = READ_BYTES_MAX }: ReadAllOptions): Promise<LogPage> {
    // Asked first: where the server says that we have caught up, it has looked at all that was there now.
    const head = await this.head()
    if (head <= after) return { events: [], position: after, isEnd: true }
    const page = new CutPage(limit, bytesMax)
    await this.#drain((session, done) => {
      let caughtUp = false
      const source = session.client.subscribeToAll({
        fromPosition: fromPosition(after),
        filter: this.filter(prefixes),
        requiresLeader: session.requiresLeader,
      })
      source.on('data', ({ event }: AllStreamResolvedEvent) => {
        if (event !== undefined) page.add(decodeEvent(event, this.#streamPrefix))
        if (page.isCut || page.isFull || (caughtUp && source.readableLength === 0)) done()
      })
      source.on('caughtUp', () => {
        caughtUp = true
        if (source.readableLength === 0) done()
      })
      return { source, leave: () => source.unsubscribe() }
    })
    const last = page.events.at(-1)?.position ?? after
    const position = page.isCut || page.isFull ? last : later(last, head)
    return { events: page.events, position, isEnd: position >= head }
  }

  /** The position of the last event that is ours; what others and the server itself write is passed over. */
  async head(silenceMs = silenceMsMax): Promise<Position> {
    const { end, head } = this.#seen
    let newEnd: string | undefined
    let next: string | undefined
    for (let pageEvents = 1; ; pageEvents = Math.min(pageEvents * 16, headPageEventsMax)) {
      const page = await this.#all(BACKWARDS, next, pageEvents, silenceMs)
      newEnd ??= placeOf(page[0])
      const ours = page.find((resolved) => this.#isOurs(resolved))
      next = page.at(-1) === undefined ? undefined : placeOf(page.at(-1))
      const found = ours !== undefined && placeOf(ours) > head ? toPosition(ours) : undefined
      if (found === undefined && next !== undefined && next > end && page.length === pageEvents) continue
      this.#seen = { end: later(this.#seen.end, newEnd), head: later(this.#seen.head, found ?? head) }
      return found ?? head
    }
  }

  /** The place of the very end of the log, whosever events are there. */
  async end(silenceMs = silenceMsMax): Promise<string> {
    const [last] = await this.#all(BACKWARDS, undefined, 1, silenceMs)
    return placeOf(last)
  }

  /** The position of the event that begins where `position` says; undefined where none of ours does. */
  async positionAt(position: Position): Promise<Position | undefined> {
    const [found] = await this.#all(FORWARDS, position, 1).catch((error: unknown) => {
      if (isInvalidPosition(error)) return []
      throw error
    })
    return found !== undefined && this.#isOurs(found) ? toPosition(found) : undefined
  }

  filter(prefixes: readonly string[], checkpointReached?: (place: string) => void): ServerFilter {
    const options = {
      maxSearchWindow: searchWindowEvents,
      checkpointInterval: 1,
      checkpointReached: (_: unknown, { commit, prepare }: { commit: bigint; prepare: bigint }) => {
        const place = findPlace(commit, prepare)
        if (place !== undefined) checkpointReached?.(place)
      },
    }
    const all = prefixes.length === 0 ? [''] : prefixes
    const names = all.map((prefix) => this.#streamPrefix + prefix)
    // What the server writes for itself begins with $.
    return names.includes('') ? streamNameFilter({ ...options, regex: '^[^$]' }) : streamNameFilter({ ...options, prefixes: names })
  }

  #isOurs({ event }: AllStreamResolvedEvent): boolean {
    return event !== undefined && event.streamId.startsWith(this.#streamPrefix) && !event.streamId.startsWith('$')
  }

  /** Of the whole database; from the end where `from` is undefined. Backwards what begins at `from` is left out. */
  async #all(
    direction: typeof FORWARDS | typeof BACKWARDS,
    from: string | undefined,
    maxCount: number,
    silenceMs = silenceMsMax,
  ): Promise<AllStreamResolvedEvent[]> {
    const page: AllStreamResolvedEvent[] = []
    await this.#drain((session) => {
      const start = from === undefined ? END : fromPosition(from)
      const options = { direction, maxCount, requiresLeader: session.requiresLeader }
      const source = session.client.readAll({ ...options, fromPosition: start })
      source.on('data', (event) => page.push(event))
      return { source, leave: () => source.cancel() }
    }, silenceMs)
    return page
  }

  /** Ends when the source does, or when whoever opened it is `done` with it. */
  async #drain(
    open: (session: Session, done: () => void) => { source: Source; leave: () => Promise<void> },
    silenceMs = silenceMsMax,
  ): Promise<void> {
    const { session } = this.#connection
    const { promise, resolve, reject } = settleable()
    const silence = setTimeout(() => {
      this.#connection.silent(session, silenceMs)
      reject(new StoreUnavailable(`The log has not answered for ${silenceMs} ms`))
    }, silenceMs)
    const stay = session.onEnd(() => reject(new StoreUnavailable('The connection to the log was given up')))
    const { source, leave } = open(session, resolve)
    source.on('data', () => silence.refresh())
    source.on('end', resolve)
    source.on('error', reject)
    try {
      await promise
      this.#connection.heard(session)
    } catch (error) {
      if (!(error instanceof StoreUnavailable)) this.#connection.failed(session, error)
      throw toStoreError(error)
    } finally {
      clearTimeout(silence)
      stay()
      source.removeAllListeners('data')
      void leave().catch(() => {})
    }
  }
}

function placeOf(resolved: AllStreamResolvedEvent | undefined): string {
  const event = resolved?.event
  return event === undefined ? zeroPosition : toPlace(event.position.commit, event.position.prepare)
}

function toPosition(resolved: AllStreamResolvedEvent): Position {
  const { hash } = (resolved.event?.metadata ?? {}) as { hash?: unknown }
  return positionOf(placeOf(resolved), hash)
}
