import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { type Append, AppendOutcomeUnknown, NO_STREAM, StoreUnavailable } from '../../src/domain/event-store.js'
import type { Suite } from './contract.js'
import { appendOf, Follower, keys, streamName, wholeLog } from './events.js'

export function crashContract(it: Suite): void {
  test('in the middle of appends: what was acknowledged is there once, the store and its feeds go on', { timeout: 180_000 }, async ({
    skip,
  }) => {
    const { killServer, restartServer } = it.harness
    if (killServer === undefined || restartServer === undefined) return skip('this harness cannot kill its server')
    const follower = new Follower((signal) => it.store.subscribeToAll(undefined, {}, signal))
    const writers = Array.from({ length: 20 }, () => new Writer(it, streamName()))
    const running = writers.map((writer) => writer.run())
    for (let crash = 0; crash < 2; crash++) {
      const enough = acknowledged(writers) + 400
      await follower.until(() => acknowledged(writers) > enough)
      await killServer()
      await restartServer()
      const more = acknowledged(writers) + 100
      await follower.until(() => acknowledged(writers) > more)
    }
    for (const writer of writers) writer.stop()
    await Promise.all(running)
    const log = await wholeLog(it.store)
    for (const { stream, ids } of writers) expect(log.filter((event) => event.stream === stream).map((event) => event.id)).toEqual(ids)
    await follower.until(() => follower.events.length >= log.length)
    await follower.stop()
    expect(keys(follower.events)).toEqual(keys(log))
  })

  test('a server that is away: appends and reads say so, a feed can be left, and all is well when it is back', {
    timeout: 180_000,
  }, async ({ skip }) => {
    const { killServer, restartServer } = it.harness
    if (killServer === undefined || restartServer === undefined) return skip('this harness cannot kill its server')
    const waiting = new Follower((signal) => it.store.subscribeToAll(undefined, {}, signal))
    await waiting.until(() => waiting.saidCaughtUp)
    await killServer()
    const stream = streamName()
    const append = appendOf(stream, NO_STREAM)
    await expect(it.store.append(append)).rejects.toSatisfy(
      (error) => error instanceof StoreUnavailable || error instanceof AppendOutcomeUnknown,
    )
    await expect(it.store.readStream(stream, { limit: 1 })).rejects.toThrow(StoreUnavailable)
    await expect(it.store.head()).rejects.toThrow(StoreUnavailable)
    const starting = new Follower((signal) => it.store.subscribeToAll(undefined, {}, signal))
    await starting.stop()
    await restartServer()
    expect((await retried(it, append)).outcome).toMatch(/appended|duplicate/)
    await waiting.until(() => waiting.events.at(-1)?.stream === stream)
    await waiting.stop()
  })
}

function acknowledged(writers: Writer[]): number {
  return writers.reduce((sum, writer) => sum + writer.ids.length, 0)
}

/** Appends to its stream one event after the other; retries each, unchanged, until it has been told that it is stored. */
class Writer {
  readonly ids: string[] = []
  readonly stream: string
  readonly #it: Suite
  #stopped = false

  constructor(it: Suite, stream: string) {
    this.#it = it
    this.stream = stream
  }

  async run(): Promise<void> {
    while (!this.#stopped) {
      const append = appendOf(this.stream, this.ids.length - 1)
      const { outcome } = await retried(this.#it, append)
      if (outcome === 'conflict') throw new Error(`${this.stream}@${this.ids.length} is a conflict`)
      this.ids.push(append.events[0]!.id)
    }
  }

  stop(): void {
    this.#stopped = true
  }
}

async function retried(it: Suite, append: Append): ReturnType<typeof it.store.append> {
  for (;;) {
    try {
      return await it.store.append(append)
    } catch (error) {
      if (!(error instanceof StoreUnavailable || error instanceof AppendOutcomeUnknown)) throw error
      await nextTurn()
    }
  }
}
