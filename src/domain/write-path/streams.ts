import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { LRUCache } from 'lru-cache'
import type { Decision } from '../decision.js'
import { Refusal, isOutage, unavailable } from '../errors.js'
import {
  type Actor,
  type AppendResult,
  type EventStore,
  NO_STREAM,
  ProposedEvent,
  type RecordedEvent,
  StoreUnavailable,
  actorJsonOf,
} from '../event-store.js'
import { type AnyEvent, type Fact, factOf, schemaVersions } from '../events.js'
import { chainHash } from '../hash-chain.js'
import type { Logger } from '../logger.js'
import type { SnapshotStore } from '../snapshot-store.js'
import { withDeadline } from '../waits.js'
import { type Folded, type Item, type Outcome, type Requester, type Round, answerAll } from './round.js'

export type { Folded, Outcome, Requester } from './round.js'

/** One kind of stream: how it is folded and decided. All pure. */
export interface Decider<State, Command, Context, Event extends AnyEvent> {
  initial: State
  streamOf(id: string): string
  evolve(state: State, event: Fact<Event>): State
  decide(state: State, command: Command, context: Context, actor: Actor): Decision<Event>
  /** Whether what was looked up still joins up with this state; if not it is looked up again. */
  isCurrent(context: Context, state: State): boolean
  /** In bytes, about: what the bound of the cache counts. */
  weightOf(state: State): number
  /** What a command that waits takes beyond the usual. */
  bytesOf?(command: Command): number
  snapshotVersion: number
  toJson(state: State): unknown
  fromJson(json: unknown): State
}

/** Looks up what a command needs beyond the state; at once where it needs nothing. */
export type Prepare<State, Command, Context> = (
  id: string,
  command: Command,
  folded: Folded<State>,
  actor: Actor,
) => Context | Promise<Context>

interface Mailbox<State, Command, Context> {
  queue: Item<State, Command, Context>[]
}

/** A look at the end of a stream. Those who come while it runs need one that begins later: they share the next. */
interface Look<State> {
  running: Promise<Folded<State>>
  next: Promise<Folded<State>> | undefined
}

interface Cached<State> {
  folded: Folded<State>
  snapshotRevision: number
}

export interface StreamsOptions<State, Command, Context, Event extends AnyEvent> {
  decider: Decider<State, Command, Context, Event>
  prepare: Prepare<State, Command, Context>
  store: EventStore
  snapshots: SnapshotStore
  logger: Logger
  now?: () => number
  /** Bound of the state cache, in bytes. */
  cacheWeightMax: number
  /** Other nodes write to the same log: a refusal is told only after a look at the stream's end. */
  isShared?: boolean
}

const COMMANDS_PER_APPEND_MAX = 128
/** From here on what is waiting goes into the next append: a store may take no more than 1 MiB at once. */
const APPEND_BYTES = 512 * 1024
/** What an event has beside its data, its actor, the id of its request and twice its type: ids, hash, times and names. */
const EVENT_OVERHEAD_BYTES = 320
const COMMANDS_PER_MAILBOX_MAX = 10_000
/** What waits in all mailboxes of one kind of stream, with what its requests take beside their content. */
export const MAILBOXES_BYTES_MAX = 64 << 20
const COMMAND_OVERHEAD_BYTES = 1_024
const CONFLICTS_MAX = 50
/** What is looked up is asked for again where the window has moved past it meanwhile. */
const LOOK_UPS_MAX = 20
/** A round that failed after so long has found the log away. */
const OUTAGE_WAIT_MS = 2_000
const TAIL_PAGE = 256
/** Small, so that many streams are read in one statement; most tails are a few hundred small events. */
const TAIL_PAGE_BYTES_MAX = 256 << 10
const SNAPSHOT_EVERY_REVISIONS = 500
/** Large states are written more rarely: a snapshot costs what the state weighs. */
const STATE_BYTES_PER_REVISION = 4_096
const SNAPSHOTS_AT_ONCE_MAX = 2
/** A snapshot makes loading sooner: one that takes longer is done without. */
const SNAPSHOT_MS_MAX = 1_000
/** At a clean end, states that moved this far since their snapshot are saved. */
const SNAPSHOT_AT_END_REVISIONS = 50
const SNAPSHOTS_AT_END_MS = 1_500

/**
 * The write path of one kind of stream. Each stream has a mailbox: commands that arrive while an append is in flight
 * are decided together on the state after it and appended together, at the exact revision. Where another node wrote
 * first, what is new is folded and all are decided again on what is true now.
 */
export class Streams<State, Command, Context, Event extends AnyEvent> {
  readonly #decider: Decider<State, Command, Context, Event>
  readonly #prepare: Prepare<State, Command, Context>
  readonly #store: EventStore
  readonly #snapshots: SnapshotStore
  readonly #logger: Logger
  readonly #now: () => number
  readonly #cache: LRUCache<string, Cached<State>>
  readonly #loading = new Map<string, Promise<Folded<State>>>()
  readonly #looks = new Map<string, Look<State>>()
  readonly #mailboxes = new Map<string, Mailbox<State, Command, Context>>()
  readonly #draining = new Set<Promise<void>>()
  /** Where a stream is being loaded or written: the last revision that the feed brought and memory could not take. */
  readonly #ahead = new Map<string, number>()
  readonly #isShared: boolean
  #snapshotsInFlight = 0
  #waitingBytes = 0

  constructor({
    decider,
    prepare,
    store,
    snapshots,
    logger,
    now = Date.now,
    cacheWeightMax,
    isShared = false,
  }: StreamsOptions<State, Command, Context, Event>) {
    this.#decider = decider
    this.#prepare = prepare
    this.#store = store
    this.#snapshots = snapshots
    this.#logger = logger
    this.#now = now
    this.#isShared = isShared
    this.#cache = new LRUCache({ maxSize: cacheWeightMax, sizeCalculation: ({ folded }) => Math.max(1, decider.weightOf(folded.state)) })
  }

  /** The state where it is in memory. */
  peek(id: string): Folded<State> | undefined {
    return this.#cache.get(id)?.folded
  }

  /** The state; a cold one is folded from its snapshot and the tail. @throws {Refusal} unavailable */
  load(id: string): Folded<State> | Promise<Folded<State>> {
    const cached = this.#cache.get(id)
    if (cached) return cached.folded
    let loading = this.#loading.get(id)
    if (!loading) {
      loading = this.#loadCold(id).finally(() => {
        this.#loading.delete(id)
        this.#forgetAhead(id)
      })
      this.#loading.set(id, loading)
    }
    return loading
  }

  /** Whether the state is just being loaded, for somebody who asked before. */
  isLoading(id: string): boolean {
    return this.#loading.has(id)
  }

  /** The state after a look at the end of the stream, which another node may have written. @throws {Refusal} unavailable */
  refresh(id: string): Promise<Folded<State>> {
    const look = this.#looks.get(id)
    if (!look) return this.#look(id)
    return (look.next ??= look.running.then(
      () => this.#look(id),
      () => this.#look(id),
    ))
  }

  /**
   * Decides a command in its stream's mailbox; resolves when what was decided is durable.
   * @throws {Refusal} the decider's, or `unavailable` when it may not have happened
   */
  execute(id: string, command: Command, requester: Requester): Promise<Outcome<State>> {
    return new Promise((resolve, reject) => {
      let mailbox = this.#mailboxes.get(id)
      if (mailbox && mailbox.queue.length >= COMMANDS_PER_MAILBOX_MAX)
        return reject(unavailable('Too much is waiting for this conversation: send it again in a moment.'))
      const bytes = COMMAND_OVERHEAD_BYTES + (this.#decider.bytesOf?.(command) ?? 0)
      if (this.#waitingBytes + bytes > MAILBOXES_BYTES_MAX)
        return reject(unavailable('Too much is waiting to be written: send it again in a moment.'))
      this.#waitingBytes += bytes
      const item: Item<State, Command, Context> = { command, requester, resolve, reject, bytes }
      if (mailbox) {
        mailbox.queue.push(item)
        return
      }
      mailbox = { queue: [item] }
      this.#mailboxes.set(id, mailbox)
      const draining = this.#drain(id, mailbox).finally(() => this.#draining.delete(draining))
      this.#draining.add(draining)
    })
  }

  /** Keeps a state in memory current with what other nodes wrote; what this node wrote it knows already. */
  follow(id: string, event: RecordedEvent): void {
    const cached = this.#cache.peek(id)
    if (cached && event.revision <= cached.folded.revision) return
    if (cached && event.revision === cached.folded.revision + 1) return this.#keep(id, this.#fold(cached.folded, [event]))
    // A hole means that the cache missed something: forget it, the next use folds it anew.
    this.#cache.delete(id)
    // What is being read just now may not hold this event yet: it must not be kept as if it were current.
    if (this.#loading.has(id) || this.#mailboxes.has(id)) this.#ahead.set(id, event.revision)
  }

  /** Waits for what is in the mailboxes, and saves what a restart would have to fold again. */
  async close(): Promise<void> {
    while (this.#draining.size > 0) await Promise.all(this.#draining)
    const until = Date.now() + SNAPSHOTS_AT_END_MS
    for (const [id, cached] of this.#cache.entries()) {
      if (Date.now() > until) return
      if (cached.folded.revision - cached.snapshotRevision >= SNAPSHOT_AT_END_REVISIONS) await this.#saveSnapshot(id, cached)
    }
  }

  // --- the mailbox ---

  async #drain(id: string, mailbox: Mailbox<State, Command, Context>): Promise<void> {
    // All that one read of a socket brings is in the mailbox before the first of it is decided.
    await Promise.resolve()
    while (mailbox.queue.length > 0) {
      const batch = mailbox.queue.splice(0, COMMANDS_PER_APPEND_MAX)
      for (const { bytes } of batch) this.#waitingBytes -= bytes
      const startedAt = performance.now()
      try {
        await this.#settle(id, batch)
      } catch (error) {
        // Where the log was waited for in vain, what has waited behind is not made to wait once more.
        const isLong = isOutage(error) && performance.now() - startedAt > OUTAGE_WAIT_MS
        const failed = isLong ? [...batch, ...mailbox.queue.splice(0)] : batch
        const refusal = this.#refusalOf(id, error)
        for (const item of failed) item.reject(refusal)
      }
    }
    this.#mailboxes.delete(id)
    this.#forgetAhead(id)
  }

  /** Decides and appends until each of these commands has its answer. */
  async #settle(id: string, batch: readonly Item<State, Command, Context>[]): Promise<void> {
    let waiting = batch
    let conflicts = 0
    let lookUps = 0
    // An append at the exact revision proves that a round was decided on what is true; without one, other nodes may be ahead.
    let isProven = !this.#isShared
    while (waiting.length > 0) {
      const loaded = this.load(id)
      const folded = loaded instanceof Promise ? await loaded : loaded
      const preparing = this.#prepareAll(id, waiting, folded)
      if (preparing) {
        if (++lookUps > LOOK_UPS_MAX) throw unavailable('What this needs is not known yet: send it again.')
        await preparing
        waiting = waiting.filter((item) => !item.failed)
        continue
      }
      const round = this.#decideAll(id, waiting, folded)
      if (round.proposed.length === 0 && !isProven) {
        isProven = true
        const current = await this.#foldTail(id, folded)
        this.#keep(id, current)
        if (current.revision > folded.revision) continue
      }
      if (round.proposed.length > 0) {
        const result = await this.#store.append({
          stream: this.#decider.streamOf(id),
          expectedRevision: folded.revision,
          events: round.proposed,
        })
        if (result.outcome === 'conflict') {
          if (++conflicts > CONFLICTS_MAX) throw unavailable('Others are writing to the same place: send it again.')
          await this.#catchUp(id, folded)
          continue
        }
        this.#commit(id, folded, round, result)
      }
      answerAll(round, folded)
      waiting = round.again
    }
  }

  /** Looks up what is missing; undefined when nothing is, so that the usual command waits for nothing. What fails fails alone. */
  #prepareAll(id: string, batch: readonly Item<State, Command, Context>[], folded: Folded<State>): Promise<unknown> | undefined {
    const pending: Promise<void>[] = []
    for (const item of batch) {
      if (item.context !== undefined && this.#decider.isCurrent(item.context, folded.state)) continue
      const context = this.#prepare(id, item.command, folded, item.requester.actor)
      if (context instanceof Promise)
        pending.push(
          context.then(
            (value) => {
              item.context = value
            },
            (error: unknown) => this.#fail(id, item, error),
          ),
        )
      else item.context = context
    }
    return pending.length > 0 ? Promise.all(pending) : undefined
  }

  #fail(id: string, item: Item<State, Command, Context>, error: unknown): void {
    item.failed = true
    if (!(error instanceof Refusal || isOutage(error)))
      this.#logger.warn({ err: error, stream: this.#decider.streamOf(id) }, 'a look-up failed')
    item.reject(error instanceof Refusal ? error : unavailable('What this needs can not be looked up now: send the same again.', error))
  }

  #decideAll(id: string, batch: readonly Item<State, Command, Context>[], folded: Folded<State>): Round<State, Command, Context> {
    const round: Round<State, Command, Context> = {
      answers: [],
      proposed: [],
      bytes: 0,
      state: folded.state,
      revision: folded.revision,
      hash: folded.hash,
      again: [],
    }
    const stream = this.#decider.streamOf(id)
    const at = this.#now()
    for (const item of batch) {
      const context = item.context as Context
      // Whatever follows one that has to wait waits too: the order of arrival is kept.
      if (round.again.length > 0 || round.bytes > APPEND_BYTES || !this.#decider.isCurrent(context, round.state)) {
        round.again.push(item)
        continue
      }
      const first = round.proposed.length
      const { state, revision, hash, bytes } = round
      try {
        const decision = this.#decider.decide(round.state, item.command, context, item.requester.actor)
        if (decision.kind === 'events') this.#propose(round, stream, decision.events, item.requester, at)
        if (first > 0 && round.bytes > APPEND_BYTES) {
          // It does not fit behind the others; the next append begins with it.
          Object.assign(round, { state, revision, hash, bytes })
          round.proposed.length = first
          round.again.push(item)
          continue
        }
        round.answers.push({ item, decision, first, count: round.proposed.length - first })
      } catch (error) {
        // Told only when the round is settled: after a conflict it is decided again, and perhaps otherwise.
        round.answers.push({ item, refusal: this.#refusalOfDecision(error, stream) })
        // A command's events are taken over all together or, where one of them can't be folded, not at all.
        round.proposed.length = first
      }
    }
    return round
  }

  #propose(
    round: Round<State, Command, Context>,
    stream: string,
    events: readonly Event[],
    { actor, correlationId }: Requester,
    at: number,
  ): void {
    let { state, revision, hash, bytes } = round
    const requestBytes = EVENT_OVERHEAD_BYTES + actorJsonOf(actor).length + correlationId.length
    let causationId: string | null = null
    for (const { type, data } of events) {
      const id = randomUUID()
      revision += 1
      const dataJson = JSON.stringify(data)
      hash = chainHash(hash, { stream, revision, id, type, dataJson, actor, at })
      const event = new ProposedEvent({
        id,
        type,
        stream,
        revision,
        data,
        dataJson,
        metadata: { actor, at, correlationId, causationId, schemaVersion: schemaVersions[type], hash },
      })
      causationId ??= id
      round.proposed.push(event)
      state = this.#decider.evolve(state, event as unknown as Fact<Event>)
      bytes += Buffer.byteLength(dataJson) + requestBytes + 2 * type.length
    }
    round.state = state
    round.revision = revision
    round.hash = hash
    round.bytes = bytes
  }

  #commit(
    id: string,
    before: Folded<State>,
    round: Round<State, Command, Context>,
    result: Exclude<AppendResult, { outcome: 'conflict' }>,
  ): void {
    const last = result.events.at(-1)
    round.recorded = result.events
    round.folded = { state: round.state, revision: round.revision, hash: round.hash, position: last?.position ?? before.position }
    this.#keep(id, round.folded)
    // Somebody who loads it just now must not end up behind what is being acknowledged.
    if (this.#loading.has(id)) this.#ahead.set(id, round.revision)
  }

  /** What is refused is said as it is; what may have happened is never called failed. */
  #refusalOf(id: string, error: unknown): Refusal {
    if (error instanceof Refusal) return error
    if (!(error instanceof StoreUnavailable)) {
      // The outcome is unknown, or there is a bug: what memory holds may be behind the log.
      this.#cache.delete(id)
      if (!isOutage(error)) this.#logger.error({ err: error, stream: this.#decider.streamOf(id) }, 'a command could not be settled')
    }
    return unavailable('The log can not answer now: send the same again.', error)
  }

  #refusalOfDecision(error: unknown, stream: string): Refusal {
    if (error instanceof Refusal) return error
    this.#logger.error({ err: error, stream }, 'a decision failed')
    return new Refusal('internal', 'The server could not decide this: it is a bug.', { cause: error })
  }

  // --- states ---

  async #loadCold(id: string): Promise<Folded<State>> {
    try {
      const cold = await this.#foldCold(id)
      let { folded } = cold
      while (this.#isBehind(id, folded)) {
        const further = await this.#foldTail(id, folded)
        if (further === folded) break
        folded = further
      }
      this.#keep(id, folded, cold.snapshotRevision)
      return folded
    } catch (error) {
      if (error instanceof StoreUnavailable) throw unavailable('The log can not be read now: ask again.', error)
      throw error
    }
  }

  #look(id: string): Promise<Folded<State>> {
    const look: Look<State> = { running: this.#foldToEnd(id), next: undefined }
    this.#looks.set(id, look)
    const end = () => {
      if (!look.next) this.#looks.delete(id)
    }
    look.running.then(end, end)
    return look.running
  }

  async #foldToEnd(id: string): Promise<Folded<State>> {
    const known = await this.load(id)
    try {
      const folded = await this.#foldTail(id, known)
      const inMemory = this.#cache.peek(id)?.folded
      if (inMemory && inMemory.revision >= folded.revision) return inMemory
      // What the feed has forgotten meanwhile, because it missed something, may be further on than this.
      if (inMemory) this.#keep(id, folded)
      return folded
    } catch (error) {
      if (error instanceof StoreUnavailable) throw unavailable('The log can not be read now: ask again.', error)
      throw error
    }
  }

  /** Folds from the snapshot, where the log has the event that it ends with, else from the beginning. */
  async #foldCold(id: string): Promise<{ folded: Folded<State>; snapshotRevision: number }> {
    const stream = this.#decider.streamOf(id)
    const snapshot = await this.#findSnapshot(stream)
    if (snapshot) {
      // One event more than is new: the one that the snapshot ends with.
      const page = await this.#store.readStream(stream, {
        from: snapshot.revision,
        limit: TAIL_PAGE + 1,
        bytesMax: TAIL_PAGE_BYTES_MAX,
      })
      const [last, ...tail] = page.events
      if (last?.revision === snapshot.revision && last.metadata.hash === snapshot.hash) {
        const folded = this.#fold({ ...snapshot, position: last.position }, tail)
        return { folded: page.isEnd ? folded : await this.#foldTail(id, folded), snapshotRevision: snapshot.revision }
      }
      await this.#discardSnapshot(stream, snapshot)
    }
    const nothing = { state: this.#decider.initial, revision: NO_STREAM, position: '', hash: '' }
    return { folded: await this.#foldTail(id, nothing), snapshotRevision: NO_STREAM }
  }

  async #findSnapshot(stream: string): Promise<Folded<State> | undefined> {
    try {
      const late = () => unavailable('The snapshot has not come in time.')
      const snapshot = await withDeadline(this.#snapshots.load(stream), SNAPSHOT_MS_MAX, late)
      if (snapshot?.version !== this.#decider.snapshotVersion) return undefined
      const { revision, position, hash } = snapshot
      return { state: this.#decider.fromJson(snapshot.state), revision, position, hash }
    } catch (error) {
      // Snapshots make loading sooner, never possible.
      if (!isOutage(error)) this.#logger.warn({ err: error, stream }, 'a snapshot was not loaded')
      return undefined
    }
  }

  /** A snapshot of another log, or of a time that a restore has cut off, would keep those of this log out: the higher revision stays. */
  async #discardSnapshot(stream: string, { revision, hash }: Folded<State>): Promise<void> {
    this.#logger.warn({ stream, revision }, 'a snapshot is not of this log: it is dropped, and the stream is folded from its beginning')
    try {
      const late = () => unavailable('The snapshot was not dropped in time.')
      await withDeadline(this.#snapshots.discard(stream, revision, hash), SNAPSHOT_MS_MAX, late)
    } catch (error) {
      // It is ignored again by whoever loads it next.
      if (!isOutage(error)) this.#logger.warn({ err: error, stream }, 'a snapshot was not dropped')
    }
  }

  /** Whether the feed has brought more than this. */
  #isBehind(id: string, folded: Folded<State>): boolean {
    return (this.#ahead.get(id) ?? NO_STREAM) > folded.revision
  }

  #forgetAhead(id: string): void {
    if (!this.#loading.has(id) && !this.#mailboxes.has(id)) this.#ahead.delete(id)
  }

  async #catchUp(id: string, behind: Folded<State>): Promise<void> {
    const known = this.#cache.peek(id)?.folded
    const folded = await this.#foldTail(id, known && known.revision > behind.revision ? known : behind)
    this.#keep(id, folded)
    // A loser of a race steps back for a moment, so that writers on two nodes do not collide in step.
    await delay(Math.random() * 3)
  }

  async #foldTail(id: string, start: Folded<State>): Promise<Folded<State>> {
    const stream = this.#decider.streamOf(id)
    for (let folded = start; ; ) {
      const page = await this.#store.readStream(stream, { from: folded.revision + 1, limit: TAIL_PAGE, bytesMax: TAIL_PAGE_BYTES_MAX })
      folded = this.#fold(folded, page.events)
      if (page.isEnd) return folded
    }
  }

  #fold(start: Folded<State>, events: readonly RecordedEvent[]): Folded<State> {
    const last = events.at(-1)
    if (!last) return start
    const state = events.reduce(
      (folded, event) => this.#decider.evolve(folded, factOf<Event>(event) as unknown as Fact<Event>),
      start.state,
    )
    return { state, revision: last.revision, position: last.position, hash: last.metadata.hash }
  }

  #keep(id: string, folded: Folded<State>, loadedSnapshotRevision?: number): void {
    const before = this.#cache.peek(id)
    if ((before && before.folded.revision > folded.revision) || this.#isBehind(id, folded)) return
    // Where nothing says when it was saved last, a state too large for the cache, it was so when it was loaded.
    const snapshotRevision = before?.snapshotRevision ?? loadedSnapshotRevision ?? folded.revision
    const cached: Cached<State> = { folded, snapshotRevision }
    this.#cache.set(id, cached)
    const every = Math.max(SNAPSHOT_EVERY_REVISIONS, this.#decider.weightOf(folded.state) / STATE_BYTES_PER_REVISION)
    if (folded.revision - cached.snapshotRevision >= every) void this.#saveSnapshot(id, cached)
  }

  async #saveSnapshot(id: string, cached: Cached<State>): Promise<void> {
    if (this.#snapshotsInFlight >= SNAPSHOTS_AT_ONCE_MAX) return
    const { state, revision, position, hash } = cached.folded
    cached.snapshotRevision = revision
    this.#snapshotsInFlight += 1
    try {
      await this.#snapshots.save(this.#decider.streamOf(id), {
        version: this.#decider.snapshotVersion,
        revision,
        position,
        hash,
        state: this.#decider.toJson(state),
      })
    } catch (error) {
      // Nothing is lost: the next snapshot covers this one.
      if (!isOutage(error)) this.#logger.warn({ err: error, stream: this.#decider.streamOf(id) }, 'a snapshot was not saved')
    } finally {
      this.#snapshotsInFlight -= 1
    }
  }
}
