import { setTimeout as delay } from 'node:timers/promises'
import type { EventStore, FeedItem, Position } from '../domain/event-store.js'
import type { Logger } from '../domain/logger.js'
import { Conditions } from '../domain/waits.js'
import type { Applied } from './applied.js'
import { Batch, PROJECTED_PREFIXES } from './batch.js'
import { type Checkpoint, CheckpointMoved, furthest, isCurrent, loadCheckpoints, migrate, moveCheckpoints } from './checkpoints.js'
import { type Database, READ_SCHEMA, isLoss, openWriters } from './database.js'
import { tryLease } from './leases.js'
import type { Projection } from './projection.js'
import { rebuild } from './rebuild.js'

export interface ProjectorStatus {
  /** `standby`: another process projects. `lost`: no database or log. `failing`: a bug; what it says is in `error`. */
  state: 'starting' | 'standby' | 'projecting' | 'lost' | 'failing' | 'stopped'
  /** All that was in the log when it was asked has been applied. */
  caughtUp: boolean
  position: Position
  rebuilding: readonly string[]
  error: string | null
}

export interface ProjectorOptions {
  connectionString: string
  store: EventStore
  projections: readonly Projection[]
  logger: Logger
  applied: Applied
  /** The tables may not be what they were: look before the next read. */
  onDoubt: () => void
}

/** Read ahead while a transaction runs; then the feed waits. */
const READ_AHEAD_EVENTS_MAX = 20_000
/** So many are worth a transaction at once. */
const BATCH_EVENTS_ENOUGH = 5_000
/** A batch of more than this says that there is load: the next one may gather. */
const BATCH_EVENTS_BUSY = 64
const GATHER_MS = 50
/** Of a conversation of ten members a batch writes ten inbox lines, whether it holds one message of it or many. */
const BATCH_EVENTS_HEAVY = 500
const GATHER_HEAVY_MS = 200
/** The longest rest after a transaction, however long that took. */
const REST_MS_MAX = 500
const LEADER_LOOK_INTERVAL_MS = 500
const BACK_OFF_MIN_MS = 100
const BACK_OFF_MAX_MS = 5_000
const STOP_PATIENCE_MS = 5_000

/** Follows the log and keeps the read models current. One process does so at a time; the others stand by. */
export class Projector {
  readonly #options: ProjectorOptions
  readonly #stopping = new AbortController()
  #running: Promise<void> = Promise.resolve()
  #state: ProjectorStatus['state'] = 'starting'
  #caughtUp = false
  #error: string | null = null
  #rebuilding: readonly string[] = []
  #rebuilt: Promise<void> | undefined
  #failures = 0

  constructor(options: ProjectorOptions) {
    this.#options = options
  }

  start(): void {
    this.#running = this.#run()
  }

  /** Ends after the transaction that runs; what is not projected is so by the next to start. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await Promise.race([Promise.all([this.#running, this.#rebuilt]), delay(STOP_PATIENCE_MS, undefined, { ref: false })])
    this.#state = 'stopped'
  }

  status(): ProjectorStatus {
    return {
      state: this.#state,
      caughtUp: this.#caughtUp,
      position: this.#options.applied.position,
      rebuilding: this.#rebuilding,
      error: this.#error,
    }
  }

  get #stopped(): boolean {
    return this.#stopping.signal.aborted
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const lost = new AbortController()
      const db = openWriters(this.#options.connectionString, READ_SCHEMA, { onLost: (error) => lost.abort(error) })
      try {
        await db.connection().execute((connection) => this.#session(connection, lost.signal))
      } catch (error) {
        if (!this.#stopped) await this.#recover(error)
      } finally {
        this.#options.applied.isOwn = false
        this.#caughtUp = false
        // The connection that goes gives the leadership back. Of a lost one no goodbye is awaited.
        const gone = db.destroy().catch(() => undefined)
        if (this.#failures === 0) await gone
      }
    }
  }

  async #recover(error: unknown): Promise<void> {
    const { logger, onDoubt } = this.#options
    onDoubt()
    if (error instanceof CheckpointMoved) return logger.info({ reason: error.message }, 'read models: beginning again from the checkpoint')
    const message = error instanceof Error ? error.message : String(error)
    const state = isLoss(error) ? 'lost' : 'failing'
    if (state === 'failing')
      logger.error({ err: error }, 'read models: an event cannot be projected, nothing is projected until it can: this is a bug')
    this.#state = state
    this.#error = message
    this.#failures += 1
    const backOffMs = Math.min(BACK_OFF_MAX_MS, BACK_OFF_MIN_MS * 2 ** Math.min(this.#failures, 10))
    await delay(backOffMs * (0.5 + Math.random() / 2), undefined, { signal: this.#stopping.signal }).catch(() => undefined)
  }

  /** On one connection: it holds the leadership, so that whoever loses it can write nothing more. */
  async #session(db: Database, lost: AbortSignal): Promise<void> {
    const { applied, projections, store, logger, onDoubt } = this.#options
    if (!(await this.#becomeLeader(db))) return
    await migrate(db, projections, store, logger)
    onDoubt()
    applied.isOwn = true
    while (!this.#stopped) {
      await this.#followCurrent(db, lost)
      lost.throwIfAborted()
    }
  }

  async #becomeLeader(db: Database): Promise<boolean> {
    while (!this.#stopped) {
      if (await tryLease(db, 'leader')) return true
      this.#works('standby')
      await delay(LEADER_LOOK_INTERVAL_MS, undefined, { signal: this.#stopping.signal }).catch(() => undefined)
    }
    return false
  }

  #works(state: 'standby' | 'projecting'): void {
    if (this.#state === 'failing') this.#options.logger.info({}, 'read models: projected again')
    this.#failures = 0
    this.#error = null
    this.#state = state
  }

  /** Projects what has the shape of this program; the rest is rebuilt beside it, and then taken in. */
  async #followCurrent(db: Database, lost: AbortSignal): Promise<void> {
    const { projections, applied } = this.#options
    const checkpoints = await loadCheckpoints(db)
    const position = furthest(projections.filter((p) => isCurrent(p, checkpoints.get(p.name))).map((p) => checkpoints.get(p.name)!))
    const live = projections.filter((p) => isCurrent(p, checkpoints.get(p.name)) && checkpoints.get(p.name)!.position === position)
    const outdated = projections.filter((p) => !live.includes(p) || checkpoints.get(p.name)!.settings !== p.settings)
    const reload = new AbortController()
    const rebuilt = outdated.length > 0 ? this.#rebuildBeside(outdated).finally(() => reload.abort()) : undefined
    if (live.length === 0) return rebuilt
    applied.set(position)
    this.#works('projecting')
    await this.#follow(
      db,
      live.map((p) => checkpoints.get(p.name)!),
      position,
      AbortSignal.any([reload.signal, lost]),
    )
  }

  /** Never rejects: what failed is tried again. One at a time. */
  #rebuildBeside(outdated: readonly Projection[]): Promise<void> {
    return (this.#rebuilt ??= this.#rebuild(outdated).finally(() => {
      this.#rebuilt = undefined
      this.#rebuilding = []
    }))
  }

  async #rebuild(outdated: readonly Projection[]): Promise<void> {
    const { connectionString, store, projections, logger, onDoubt } = this.#options
    const names = outdated.map(({ name }) => name)
    this.#rebuilding = names
    logger.info({ projections: names }, 'read models: rebuilding')
    try {
      await rebuild({ connectionString, store, logger, projections, only: names, signal: this.#stopping.signal })
      onDoubt()
      logger.info({ projections: names }, 'read models: rebuilt')
    } catch (error) {
      if (this.#stopped) return
      logger.error({ err: error, projections: names }, 'read models: the rebuild failed and is tried again')
      await delay(BACK_OFF_MAX_MS * (0.5 + Math.random() / 2), undefined, { signal: this.#stopping.signal }).catch(() => undefined)
    }
  }

  async #follow(db: Database, live: readonly Checkpoint[], from: Position, until: AbortSignal): Promise<void> {
    const { store, projections, applied } = this.#options
    const ending = new AbortController()
    const signal = AbortSignal.any([this.#stopping.signal, until, ending.signal])
    const buildings = live.map(({ projection, settings }) => ({
      projection: projections.find(({ name }) => name === projection)!,
      settings,
    }))
    const intake = new Intake((after) => new Batch(buildings, after), from, signal)
    applied.onWaiting = () => intake.changes.changed()
    const filling = intake.fill(store.subscribeToAll(from === '' ? undefined : from, { prefixes: PROJECTED_PREFIXES }, signal))
    const draining = this.#drain(db, live, intake)
    // Whichever ends first, by an error or not, ends the other.
    const both = [filling, draining].map((half) => half.finally(() => ending.abort()))
    const failed = (await Promise.allSettled(both)).find((half) => half.status === 'rejected')
    if (failed) throw failed.reason
  }

  /** Writes what the intake has folded, transaction after transaction. */
  async #drain(db: Database, live: readonly Checkpoint[], intake: Intake): Promise<void> {
    const { applied } = this.#options
    for (let pace = idlePace; await intake.hasMore(); ) {
      await intake.gather(pace, () => applied.isAwaited)
      if (intake.ended) return
      const from = applied.position
      const { batch, caughtUp } = intake.take()
      const startedAt = performance.now()
      await db.transaction().execute(async (trx) => {
        await moveCheckpoints(trx, live, from, batch.position)
        await batch.flush(trx)
      })
      applied.set(batch.position)
      if (caughtUp) this.#caughtUp = true
      pace = { size: batch.size, startedAt, endedAt: performance.now() }
    }
  }
}

/** The last transaction. */
interface Pace {
  size: number
  startedAt: number
  endedAt: number
}

/** When the next transaction begins, where nobody waits for it. */
export function nextStartAt({ size, startedAt, endedAt }: Pace): number {
  if (size > BATCH_EVENTS_HEAVY) return startedAt + GATHER_HEAVY_MS
  if (size > BATCH_EVENTS_BUSY) return startedAt + GATHER_MS
  return endedAt + Math.min(endedAt - startedAt, REST_MS_MAX)
}

const idlePace: Pace = { size: 0, startedAt: 0, endedAt: 0 }

/** Between the feed and the transactions: events are folded as they come, also while a transaction runs. */
class Intake {
  readonly changes = new Conditions()
  readonly #begin: (after: Position) => Batch
  readonly #signal: AbortSignal
  #batch: Batch
  #taken: Position
  #caughtUp = false

  constructor(begin: (after: Position) => Batch, from: Position, signal: AbortSignal) {
    this.#begin = begin
    this.#signal = signal
    this.#batch = begin(from)
    this.#taken = from
    signal.addEventListener('abort', () => this.changes.changed(), { once: true })
  }

  get ended(): boolean {
    return this.#signal.aborted
  }

  async fill(feed: AsyncIterable<FeedItem>): Promise<void> {
    for await (const item of feed) {
      if (item.kind === 'events') for (const event of item.events) this.#batch.add(event)
      else this.#batch.moveTo(item.position)
      if (item.kind === 'caughtUp') this.#caughtUp = true
      this.changes.changed()
      if (this.#batch.isFull(READ_AHEAD_EVENTS_MAX))
        await this.changes.until(() => this.ended || !this.#batch.isFull(READ_AHEAD_EVENTS_MAX))
    }
  }

  /** Waits until there is something to write; false: the end. */
  async hasMore(): Promise<boolean> {
    await this.changes.until(() => this.ended || this.#caughtUp || this.#batch.position !== this.#taken)
    return !this.ended
  }

  /**
   * A transaction costs the same for one event as for many: under load the events of a moment are gathered,
   * and otherwise as much time is left to others as the last one took, within reason. Never while somebody waits for them.
   */
  async gather(pace: Pace, isAwaited: () => boolean): Promise<void> {
    const isDue = () => this.ended || isAwaited() || this.#batch.isFull(BATCH_EVENTS_ENOUGH)
    const leftMs = nextStartAt(pace) - performance.now()
    if (leftMs > 0) await this.changes.until(isDue, leftMs)
  }

  take(): { batch: Batch; caughtUp: boolean } {
    const taken = { batch: this.#batch, caughtUp: this.#caughtUp }
    this.#taken = this.#batch.position
    this.#batch = this.#begin(this.#taken)
    this.#caughtUp = false
    this.changes.changed()
    return taken
  }
}
