import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { performance } from 'node:perf_hooks'
import timers from 'node:timers'
import timersPromises from 'node:timers/promises'
import type { Random } from './random.js'

/** When every run begins: 2026-01-01T00:00:00Z. */
const EPOCH_MS = Date.UTC(2026, 0, 1)
/** A run that does more is going round in circles. */
const JOBS_MAX = 200_000
/** Between two turns of the real event loop, which costs more than most jobs. */
const JOBS_PER_TURN = 200
/** The real one, kept from before the clock is put in place. */
const realSetImmediate = setImmediate
/** Asks for a microtask at a fraction of the cost of `queueMicrotask`. */
const settled = Promise.resolve()

interface Job {
  at: number
  order: number
  run: () => void
  /** Of an interval. */
  everyMs?: number
  isCancelled: boolean
}

/** What `setTimeout` gives out, as far as the program uses it. */
class Timer {
  readonly job: Job
  constructor(job: Job) {
    this.job = job
  }
  ref(): this {
    return this
  }
  unref(): this {
    return this
  }
  hasRef(): boolean {
    return true
  }
  close(): this {
    this.job.isCancelled = true
    return this
  }
  [Symbol.dispose](): void {
    this.close()
  }
}

/**
 * Virtual time. While it is installed, all timers, clocks, random numbers and random ids of the process are its own: a timer is
 * due when everything before it has been done, and no time passes between the two. Microtasks run as ever, all of them before
 * the next job.
 */
export class Clock {
  /** In ms since the run began. */
  now = 0
  /** How many jobs have been run. */
  jobs = 0
  readonly random: Random
  readonly #onError: (error: unknown) => void
  #order = 0
  readonly #heap: Job[] = []
  #immediates: Job[] = []
  #immediatesAt = 0

  constructor(random: Random, onError: (error: unknown) => void) {
    this.random = random
    this.#onError = onError
  }

  /** Takes the place of the process's own timers, clocks and randomness, until `uninstall`. */
  install(): void {
    putInPlace(this)
  }

  uninstall(): void {
    if (installed === this) putInPlace(undefined)
  }

  delay(ms: number, signal?: AbortSignal): Promise<void> {
    return this.promise(ms, undefined, signal).then(
      () => undefined,
      () => undefined,
    )
  }

  at(ms: number, run: () => void): void {
    this.timer(run, ms - this.now)
  }

  /** Runs job after job until `isDone`, or until nothing is left to run or `untilMs` has come. Gives whether it was done. */
  run(isDone: () => boolean, untilMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const step = () => {
        if (isDone()) return resolve(true)
        const job = this.#next(untilMs)
        if (!job) return resolve(false)
        this.jobs += 1
        if (this.jobs > JOBS_MAX) return resolve(false)
        try {
          job.run()
        } catch (error) {
          this.#onError(error)
        }
        next()
      }
      // A tick that a microtask asks for comes when all microtasks have been done; now and then the rest of the process has its turn.
      const next = () => {
        if (this.jobs % JOBS_PER_TURN === 0) realSetImmediate(step)
        else void settled.then(tick)
      }
      const tick = () => process.nextTick(step)
      realSetImmediate(step)
    })
  }

  #next(untilMs: number): Job | undefined {
    for (;;) {
      const immediate = this.#immediates[this.#immediatesAt]
      if (immediate) {
        this.#immediatesAt += 1
        if (this.#immediatesAt === this.#immediates.length) {
          this.#immediates = []
          this.#immediatesAt = 0
        }
        if (!immediate.isCancelled) return immediate
        continue
      }
      const job = this.#heap[0]
      if (!job || job.at > untilMs) {
        this.now = Math.max(this.now, Math.min(untilMs, Number.MAX_SAFE_INTEGER))
        return undefined
      }
      popFrom(this.#heap)
      if (job.isCancelled) continue
      this.now = Math.max(this.now, job.at)
      if (job.everyMs !== undefined) {
        job.at = this.now + job.everyMs
        job.order = this.#order++
        pushTo(this.#heap, job)
      }
      return job
    }
  }

  timer(run: () => void, ms: number, everyMs?: number): Timer {
    const wait = ms > 0 ? ms : 0
    const job: Job = { at: this.now + wait, order: this.#order++, run, isCancelled: false }
    if (everyMs !== undefined) job.everyMs = everyMs
    pushTo(this.#heap, job)
    return new Timer(job)
  }

  immediate(run: () => void): Timer {
    const job: Job = { at: this.now, order: this.#order++, run, isCancelled: false }
    this.#immediates.push(job)
    return new Timer(job)
  }

  promise(ms: number, value: unknown, signal?: AbortSignal): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason as Error)
      const timer = this.timer(() => {
        signal?.removeEventListener('abort', abort)
        resolve(value)
      }, ms)
      const abort = () => {
        timer.close()
        reject(signal?.reason as Error)
      }
      signal?.addEventListener('abort', abort, { once: true })
    })
  }
}

const isBefore = (one: Job, other: Job) => one.at < other.at || (one.at === other.at && one.order < other.order)

function pushTo(heap: Job[], job: Job): void {
  let at = heap.push(job) - 1
  while (at > 0) {
    const parent = (at - 1) >> 1
    if (!isBefore(job, heap[parent]!)) break
    heap[at] = heap[parent]!
    at = parent
  }
  heap[at] = job
}

function popFrom(heap: Job[]): void {
  const last = heap.pop()!
  if (heap.length === 0) return
  let at = 0
  for (;;) {
    let child = 2 * at + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1
    if (!isBefore(heap[child]!, last)) break
    heap[at] = heap[child]!
    at = child
  }
  heap[at] = last
}

/** The clock that stands in for the process's own, where one is installed. */
let installed: Clock | undefined
let isReplaced = false

function putInPlace(clock: Clock | undefined): void {
  replaceOnce()
  installed = clock
}

type Run = (...args: unknown[]) => void

/**
 * Puts functions in the place of the process's own that ask the clock which is installed, or else do as before. They stay:
 * `syncBuiltinESMExports` walks all built-in modules, which takes as long as hundreds of jobs.
 */
function replaceOnce(): void {
  if (isReplaced) return
  isReplaced = true
  const real = { ...timers }
  const clear = (realClear: (timer: never) => void) => (timer?: unknown) => {
    if (timer instanceof Timer) timer.job.isCancelled = true
    else realClear(timer as never)
  }
  const timerFunctions = {
    setTimeout: (run: Run, ms = 0, ...args: unknown[]) =>
      installed ? installed.timer(() => run(...args), ms) : real.setTimeout(run, ms, ...args),
    setInterval: (run: Run, ms = 0, ...args: unknown[]) =>
      installed ? installed.timer(() => run(...args), ms, Math.max(1, ms)) : real.setInterval(run, ms, ...args),
    setImmediate: (run: Run, ...args: unknown[]) => (installed ? installed.immediate(() => run(...args)) : real.setImmediate(run, ...args)),
    clearTimeout: clear(real.clearTimeout),
    clearInterval: clear(real.clearInterval),
    clearImmediate: clear(real.clearImmediate),
  }
  const realPromises = { ...timersPromises }
  const [realDateNow, realNow, realRandom] = [Date.now, performance.now.bind(performance), Math.random]
  const { randomUUID, randomBytes } = crypto
  const realTimeout = AbortSignal.timeout.bind(AbortSignal)
  replace(globalThis, timerFunctions)
  replace(timers, timerFunctions)
  replace(timersPromises, {
    setTimeout: (ms: number, value: unknown, options?: { signal?: AbortSignal }) =>
      installed ? installed.promise(ms, value, options?.signal) : realPromises.setTimeout(ms, value, options),
    setImmediate: (value: unknown) => {
      const clock = installed
      return clock ? new Promise((resolve) => clock.immediate(() => resolve(value))) : realPromises.setImmediate(value)
    },
  })
  replace(Date, { now: () => (installed ? EPOCH_MS + Math.floor(installed.now) : realDateNow()) })
  replace(performance, { now: () => (installed ? installed.now : realNow()) })
  replace(Math, { random: () => (installed ? installed.random.next() : realRandom()) })
  replace(crypto, {
    randomUUID: () => (installed ? installed.random.uuid() : randomUUID()),
    randomBytes: (count: number) => (installed ? installed.random.bytes(count) : randomBytes(count)),
  })
  replace(AbortSignal, {
    timeout: (ms: number) => {
      if (!installed) return realTimeout(ms)
      const controller = new AbortController()
      installed.timer(() => controller.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError')), ms)
      return controller.signal
    },
  })
  syncBuiltinESMExports()
}

function replace(target: object, replacements: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(replacements)) {
    const before = Object.getOwnPropertyDescriptor(target, name)
    Object.defineProperty(target, name, { configurable: true, writable: true, enumerable: true, ...before, value })
  }
}
