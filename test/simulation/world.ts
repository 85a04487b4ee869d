import type { Position, RecordedEvent } from '../../src/domain/event-store.js'
import type { Snapshot, SnapshotStore } from '../../src/domain/snapshot-store.js'
import { InMemoryLog } from '../support/in-memory-event-store.js'
import { Clock } from './clock.js'
import { Random } from './random.js'
import { Tables } from './tables.js'
import { Truth } from './truth.js'
import type { Weather } from './weather.js'

/** One thing that no client may ever see; the kind is short, so that faults can be counted by it. */
export interface Violation {
  kind: string
  text: string
  atMs: number
}

/** What all nodes and users of a run share: time, chance, the log, the tables that are built from it, and what was found. */
export class World {
  readonly clock: Clock
  /** For delays and failures. */
  readonly random: Random
  readonly log = new InMemoryLog()
  readonly truth: Truth
  readonly tables = new Tables()
  readonly snapshots = new Map<string, Snapshot>()
  readonly violations: Violation[] = []
  readonly trace: string[] | undefined
  /** Told how far the tables are. */
  onApplied: (position: Position) => void = () => {}
  /** The projector does nothing until then. */
  tablesStandUntil = 0
  #isProjecting = false
  #isCalm = false

  constructor(seed: number, isTraced: boolean) {
    this.random = new Random(seed, 1)
    this.clock = new Clock(new Random(seed, 2), (error) => this.report('uncaught', String((error as Error)?.stack ?? error)))
    this.tables.position = this.log.head()
    this.truth = new Truth(this.log, () => this.clock.now)
    this.trace = isTraced ? [] : undefined
  }

  /** A line of the trace; made only where there is one. */
  note(text: string | (() => string)): void {
    this.trace?.push(`${this.clock.now.toFixed(1).padStart(9)}  ${typeof text === 'string' ? text : text()}`)
  }

  report(kind: string, text: string): void {
    this.note(`!! ${kind}: ${text}`)
    this.violations.push({ kind, text, atMs: this.clock.now })
  }

  /** Whatever was appended: truth learns it, and the projector is woken. */
  appended = (): void => {
    this.truth.sync()
    this.#projectSoon()
  }

  calmDown(): void {
    this.#isCalm = true
    this.tablesStandUntil = 0
    this.#isProjecting = false
    this.#projectSoon()
  }

  #projectSoon(): void {
    if (this.#isProjecting || this.tables.applied >= this.log.events.length) return
    this.#isProjecting = true
    const { clock, random } = this
    const lagMs = this.#isCalm ? 1 : random.chance(0.1) ? random.between(20, 600) : random.between(0.5, 20)
    clock.at(Math.max(clock.now, this.tablesStandUntil) + lagMs, () => this.#project())
  }

  #project(): void {
    const { clock, random, tables, log } = this
    this.#isProjecting = false
    if (clock.now < this.tablesStandUntil) return this.#projectSoon()
    const left = log.events.length - tables.applied
    const count = !this.#isCalm && random.chance(0.2) ? 1 + random.int(left) : left
    for (const event of log.events.slice(tables.applied, tables.applied + count)) tables.apply(event)
    if (count > 0) this.onApplied(tables.position)
    this.#projectSoon()
  }

  /** Snapshots as one node keeps them: some get lost, and one that is loaded may be an old one. */
  snapshotsFor(weather: Weather): SnapshotStore {
    return {
      load: async (stream) => {
        await weather.travel(true)
        weather.requireTables()
        const snapshot = this.snapshots.get(stream)
        await weather.travel()
        return snapshot && (JSON.parse(JSON.stringify(snapshot)) as Snapshot)
      },
      save: async (stream, snapshot) => {
        await weather.travel()
        weather.requireTables()
        if (!weather.chance(0.2)) this.snapshots.set(stream, JSON.parse(JSON.stringify(snapshot)) as Snapshot)
        await weather.travel()
      },
      discard: async (stream, revision, hash) => {
        await weather.travel()
        weather.requireTables()
        const kept = this.snapshots.get(stream)
        if (kept?.revision === revision && kept.hash === hash) this.snapshots.delete(stream)
      },
    }
  }

  describe(event: RecordedEvent): string {
    return `${event.stream}@${event.revision} ${event.type}`
  }
}
