import { availableParallelism } from 'node:os'
import { Refusal } from '../domain/errors.js'
import type { Account } from './account.js'
import { LIGHT_UNITS_MAX, ORDINARY_UNITS_PER_SECOND } from './costs.js'

/** What an account may spend more in each round of the turns. */
const QUANTUM_UNITS = 16
const RETRY_AFTER_MS = 1_000
/** What waits on others for longer no longer stands in the way of those behind it. */
const HELD_MS_MAX = 1_000
/** Less than clients wait for an answer, so that they hear why. */
const WAIT_MS_MAX = 2_000

export interface TurnsOptions {
  /** Units of light and of heavy work that are under way at once. */
  lightUnitsMax: number
  heavyUnitsMax: number
  /** Jobs of one account, and of all, that wait. */
  accountJobsMax: number
  jobsMax: number
  /** Bound the memory of waiting requests, of one account and of all. Accounts that used little lately have twice the room of all. */
  accountBytesMax: number
  bytesMax: number
  /** Longer than this nobody waits. */
  waitMsMax: number
  now?: () => number
}

/** A few large pages, or one group of many members: more at once would make nothing sooner, and small things late. */
const HEAVY_UNITS_PER_CORE = 32

export const TURNS: TurnsOptions = {
  lightUnitsMax: 8_192,
  heavyUnitsMax: HEAVY_UNITS_PER_CORE * availableParallelism(),
  accountJobsMax: 512,
  jobsMax: 10_000,
  accountBytesMax: 16 << 20,
  bytesMax: 64 << 20,
  waitMsMax: WAIT_MS_MAX,
}

/** A piece of work that waits for its turn. */
export interface Job {
  units: number
  /** Estimates its memory while it waits: see costs.ts. */
  bytes: number
  /** Begins it; it is over when `end` is called with the turn. */
  begin(turn: Turn): void
  /** True if nobody waits for it any more: then it is not begun. */
  isGone?(): boolean
  /** Ends it without a beginning: it waited too long, or nobody waits for it any more. */
  drop(refusal: Refusal): void
}

interface WaitingJob extends Job {
  readonly sinceMs: number
}

/** A place among the work that is under way. */
export interface Turn {
  /** Internal: where it counts. */
  readonly lane: Lane
  readonly units: number
  readonly beganAtMs: number
}

interface Queue {
  readonly account: Account
  readonly jobs: WaitingJob[]
  /** The next job; those before it are gone. */
  at: number
  bytes: number
  deficit: number
  /** In its turn, which it goes on with when there is room again. */
  isServed: boolean
}

/** One kind of work: how much of it is under way, and whose turn it is next. */
class Lane {
  unitsMax: number
  unitsUnderWay = 0
  /** Those who use little come first: an occasional request never waits behind callers who ask all the time. */
  readonly #sparse: Queue[] = []
  readonly #busy: Queue[] = []
  /** In the order in which they began; only of heavy work. */
  readonly held: Set<Turn> | undefined

  constructor(unitsMax: number, isHeavy: boolean) {
    this.unitsMax = unitsMax
    this.held = isHeavy ? new Set() : undefined
  }

  get isFull(): boolean {
    return this.unitsUnderWay >= this.unitsMax
  }

  get isWaitedFor(): boolean {
    return this.#sparse.length + this.#busy.length > 0
  }

  next(): Queue | undefined {
    return this.#sparse.shift() ?? this.#busy.shift()
  }

  /** Puts a queue at the end of its round. */
  add(queue: Queue): void {
    this.#roundOf(queue).push(queue)
  }

  /** Puts back a queue whose turn is not over. */
  putBack(queue: Queue): void {
    this.#roundOf(queue).unshift(queue)
  }

  /** Takes out a queue that waits here. */
  remove(queue: Queue): void {
    for (const round of [this.#sparse, this.#busy]) if (round.includes(queue)) round.splice(round.indexOf(queue), 1)
  }

  #roundOf({ account }: Queue): Queue[] {
    return isSparse(account) ? this.#sparse : this.#busy
  }
}

const isSparse = ({ recentUnitsPerSecond }: Account): boolean => recentUnitsPerSecond < ORDINARY_UNITS_PER_SECOND

/**
 * Gives work its turn, weighed by its cost: deficit round robin over the accounts, so that the requests of one never delay
 * another's. The jobs of an account keep their order. Small things have a lane of their own and do not wait for large ones of
 * others, and accounts that used little lately come before those that used much; where nothing waits, work begins at once.
 */
export class Turns {
  readonly #options: TurnsOptions
  readonly #now: () => number
  readonly #light: Lane
  readonly #heavy: Lane
  /** Turns for light work, one for all that weighs the same: nothing is made for each message. */
  readonly #lightTurns: readonly Turn[]
  readonly #queues = new Map<Account, Queue>()
  #jobs = 0
  #bytes = 0

  constructor(options: Partial<TurnsOptions> = {}) {
    this.#options = { ...TURNS, ...options }
    this.#now = options.now ?? (() => performance.now())
    this.#light = new Lane(this.#options.lightUnitsMax, false)
    this.#heavy = new Lane(this.#options.heavyUnitsMax, true)
    this.#lightTurns = Array.from({ length: LIGHT_UNITS_MAX + 1 }, (_, units) => ({ lane: this.#light, units, beganAtMs: 0 }))
  }

  /** Bytes and jobs that wait. */
  get waiting(): { jobs: number; bytes: number } {
    return { jobs: this.#jobs, bytes: this.#bytes }
  }

  /** A turn now, where nothing of this account waits and there is room; else `wait` for one. */
  tryBegin(account: Account, units: number): Turn | undefined {
    const lane = this.#laneOf(units)
    return lane.isFull || this.#queues.has(account) ? undefined : this.#beginIn(lane, units)
  }

  /** Begins a job when its turn has come. @throws {Refusal} rate_limited where too much waits already */
  wait(account: Account, job: Job): void {
    const { accountJobsMax, jobsMax, accountBytesMax, bytesMax } = this.#options
    let queue = this.#queues.get(account)
    const share = isSparse(account) ? 2 : 1
    const isOver =
      this.#jobs >= jobsMax * share ||
      this.#bytes + job.bytes > bytesMax * share ||
      (queue !== undefined && (queue.jobs.length - queue.at >= accountJobsMax || queue.bytes + job.bytes > accountBytesMax))
    if (isOver)
      throw new Refusal('rate_limited', 'Too much of yours is waiting to be done: nothing was done, send it again later.', {
        retryAfterMs: RETRY_AFTER_MS,
      })
    if (!queue) {
      queue = { account, jobs: [], at: 0, bytes: 0, deficit: 0, isServed: false }
      this.#queues.set(account, queue)
      this.#laneOf(job.units).add(queue)
    }
    queue.jobs.push(Object.assign(job, { sinceMs: this.#now() }))
    queue.bytes += job.bytes
    this.#jobs += 1
    this.#bytes += job.bytes
    this.#run(this.#laneOf(queue.jobs[queue.at]!.units))
  }

  /** Says that the work of a turn is over. */
  end(turn: Turn): void {
    if (turn.lane.held && !turn.lane.held.delete(turn)) return
    turn.lane.unitsUnderWay -= turn.units
    if (turn.lane.isWaitedFor) this.#run(turn.lane)
  }

  /** How much heavy work may be under way. */
  set heavyUnitsMax(units: number) {
    this.#heavy.unitsMax = Math.min(units, this.#options.heavyUnitsMax)
    this.#run(this.#heavy)
  }

  get heavyUnitsMax(): number {
    return this.#heavy.unitsMax
  }

  /** Refuses what has waited too long. To be called at times. */
  refuseLate(): void {
    const before = this.#now() - this.#options.waitMsMax
    for (const queue of this.#queues.values()) {
      const lane = this.#laneOf(queue.jobs[queue.at]!.units)
      for (let job = queue.jobs[queue.at]; job && job.sinceMs < before; job = queue.jobs[queue.at]) {
        this.#take(queue)
        job.drop(
          new Refusal('rate_limited', 'This server is busy, and its turn did not come in time: nothing was done, send it again later.', {
            retryAfterMs: RETRY_AFTER_MS * (1 + Math.random()),
          }),
        )
      }
      this.#moveFrom(lane, queue)
    }
  }

  /** Moves a queue to the lane of the job that is next now, or removes an empty one. */
  #moveFrom(lane: Lane, queue: Queue): void {
    const job = queue.jobs[queue.at]
    const next = job && this.#laneOf(job.units)
    if (next === lane) return
    lane.remove(queue)
    if (!next) return void this.#queues.delete(queue.account)
    queue.isServed = false
    next.add(queue)
    this.#run(next)
  }

  /** Lets go of turns that have been held for long: they wait for somebody else, and not for this node. To be called at times. */
  releaseHeld(): void {
    const before = this.#now() - HELD_MS_MAX
    for (const turn of this.#heavy.held ?? []) {
      if (turn.beganAtMs > before) return
      this.end(turn)
    }
  }

  #laneOf(units: number): Lane {
    return units <= LIGHT_UNITS_MAX ? this.#light : this.#heavy
  }

  #beginIn(lane: Lane, units: number): Turn {
    lane.unitsUnderWay += units
    if (!lane.held) return this.#lightTurns[units]!
    const turn = { lane, units, beganAtMs: this.#now() }
    lane.held.add(turn)
    return turn
  }

  /** Goes round while there is room: each account spends what it has saved, and what is left over is saved for its next turn. */
  #run(lane: Lane): void {
    while (!lane.isFull) {
      const queue = lane.next()
      if (!queue) return
      if (!queue.isServed) queue.deficit += QUANTUM_UNITS
      queue.isServed = true
      this.#serve(queue, lane)
      this.#putBack(queue, lane)
    }
  }

  #putBack(queue: Queue, lane: Lane): void {
    const job = queue.jobs[queue.at]
    if (!job) return void this.#queues.delete(queue.account)
    const next = this.#laneOf(job.units)
    // Interrupted because there is no more room: it is still its turn.
    if (next === lane && job.units <= queue.deficit) return lane.putBack(queue)
    queue.isServed = false
    next.add(queue)
    if (next !== lane) this.#run(next)
  }

  #serve(queue: Queue, lane: Lane): void {
    while (queue.at < queue.jobs.length && !lane.isFull) {
      const job = queue.jobs[queue.at]!
      if (this.#laneOf(job.units) !== lane) return
      const isGone = job.isGone?.() ?? false
      if (!isGone && job.units > queue.deficit) return
      this.#take(queue)
      if (isGone) job.drop(new Refusal('unavailable', 'The caller has gone before its turn came.'))
      else {
        queue.deficit -= job.units
        job.begin(this.#beginIn(lane, job.units))
      }
    }
  }

  #take(queue: Queue): void {
    const job = queue.jobs[queue.at]!
    queue.at += 1
    queue.bytes -= job.bytes
    this.#jobs -= 1
    this.#bytes -= job.bytes
    if (queue.at < 64 || queue.at * 2 < queue.jobs.length) return
    queue.jobs.splice(0, queue.at)
    queue.at = 0
  }
}
