import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { NO_STREAM } from '../../src/domain/event-store.js'
import type { Suite } from './contract.js'
import { appendOf, Follower, keys, seed, streamName, wholeLog } from './events.js'

const builtSources = fileURLToPath(new URL('../../dist/event-stores', import.meta.url))
const workerScript = fileURLToPath(new URL('worker.mjs', import.meta.url))

export function processesContract(it: Suite): void {
  test('two stores that append at one expected revision at once, a thousand times: exactly one wins each', {
    timeout: 180_000,
  }, async () => {
    const other = await it.another()
    const stream = streamName()
    for (let revision = 0; revision < 1000; revision++) {
      const results = await Promise.all([it.store, other].map((store) => store.append(appendOf(stream, revision - 1))))
      expect(results.map((result) => result.outcome).sort()).toEqual(['appended', 'conflict'])
      expect(results.find((result) => result.outcome === 'conflict')).toEqual({ outcome: 'conflict', actualRevision: revision })
    }
  })

  test('what one store appends reaches the feed of another', async () => {
    const other = await it.another()
    const follower = new Follower((signal) => other.subscribeToAll(undefined, {}, signal))
    await follower.until(() => follower.saidCaughtUp)
    const before = follower.events.length
    const [ours, theirs] = [streamName(), streamName()]
    const written = (await Promise.all([seed(it.store, [ours], 50), seed(other, [theirs], 50)])).flat()
    await follower.until(() => follower.events.length - before === 100)
    expect(keys(follower.events.slice(before))).toEqual(keys(written).sort())
    await follower.stop()
  })

  test('an append that another process has made already is a duplicate here', async () => {
    const other = await it.another()
    const append = appendOf(streamName(), NO_STREAM, 2)
    await it.store.append(append)
    expect((await other.append(append)).outcome).toBe('duplicate')
  })

  test('two processes append at once, a third follows and misses nothing', { timeout: 120_000 }, async () => {
    const past = await wholeLog(it.store)
    const [streams, perStream] = [[0, 1].map(() => Array.from({ length: 20 }, () => streamName())), 50]
    const expected = past.length + 2 * 20 * perStream
    const reader = start(it, 'follow', { events: expected })
    const lines: string[] = []
    createInterface({ input: reader.stdout! }).on('line', (line) => lines.push(line))
    const local = new Follower((signal) => it.store.subscribeToAll(undefined, {}, signal))
    const writers = streams.map((names) => start(it, 'append', { streams: names, perStream }))
    await Promise.all([...writers, reader].map(ended))
    await local.until(() => local.events.length >= expected)
    await local.stop()
    const followed = lines
      .slice(1)
      .flatMap((line) => JSON.parse(line) as [string, string, number][])
      .map(([position, stream, revision]) => ({ position, stream, revision }))
    const log = await wholeLog(it.store)
    expect(log).toHaveLength(expected)
    expect(keys(followed)).toEqual(keys(log))
    expect(keys(local.events)).toEqual(keys(log))
  })
}

function start({ harness }: Suite, role: string, options: object): ChildProcess {
  if (!existsSync(builtSources)) throw new Error('Other processes run what is built: npm run build first')
  const { adapter, options: storeOptions } = harness.worker
  return spawn(process.execPath, [workerScript, adapter, JSON.stringify(storeOptions), role, JSON.stringify(options)], {
    stdio: ['ignore', role === 'follow' ? 'pipe' : 'ignore', 'inherit'],
  })
}

async function ended(child: ChildProcess): Promise<void> {
  const [code] = child.exitCode === null ? ((await once(child, 'close')) as [number]) : [child.exitCode]
  if (code !== 0) throw new Error(`A worker ended with ${code}`)
}
