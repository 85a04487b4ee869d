import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { BATCH_BYTES_MAX, Gatherer } from '../src/gatherer.js'
import { settleable } from '../src/event-stores/settleable.js'

/** Answers when it is told to. */
function slowAnswers(bytesOf?: (key: number) => number, now?: () => number) {
  const batches: { keys: readonly number[]; settled: ReturnType<typeof settleable> }[] = []
  const gatherer = new Gatherer(
    async (keys: readonly number[]) => {
      const settled = settleable()
      batches.push({ keys, settled })
      await settled.promise
      return keys.map((key) => `answer ${key}`)
    },
    1,
    bytesOf,
    now,
  )
  return { batches, gatherer }
}

test('questions of one turn, and those that come while others are asked, are asked together, and each gets its own answer', async () => {
  const { batches, gatherer } = slowAnswers()
  const first = [gatherer.find(1), gatherer.find(2)]
  await nextTurn()
  const later = [gatherer.find(3)]
  await nextTurn()
  later.push(gatherer.find(4))
  expect(batches.map(({ keys }) => keys)).toEqual([[1, 2]])
  batches[0]!.settled.resolve()
  expect(await Promise.all(first)).toEqual(['answer 1', 'answer 2'])
  expect(batches[1]!.keys).toEqual([3, 4])
  batches[1]!.settled.resolve()
  expect(await Promise.all(later)).toEqual(['answer 3', 'answer 4'])
})

test('more than fit into one go out in several', async () => {
  const { batches, gatherer } = slowAnswers()
  const all = Array.from({ length: 150 }, (_, key) => gatherer.find(key))
  for (let sent = 0; sent < all.length; ) {
    await nextTurn()
    const { keys, settled } = batches.at(-1)!
    sent += keys.length
    settled.resolve()
  }
  expect(await Promise.all(all)).toEqual(all.map((_, key) => `answer ${key}`))
  expect(batches.map(({ keys }) => keys.length)).toEqual([64, 64, 22])
})

test('what may come to many bytes goes out with few others, or alone', async () => {
  const { batches, gatherer } = slowAnswers((bytes) => bytes)
  const half = BATCH_BYTES_MAX / 2
  const all = [half - 1, half + 1, 1, BATCH_BYTES_MAX * 2, 2].map((bytes) => gatherer.find(bytes))
  for (let sent = 0; sent < all.length; ) {
    await nextTurn()
    const { keys, settled } = batches.at(-1)!
    sent += keys.length
    settled.resolve()
  }
  await Promise.all(all)
  expect(batches.map(({ keys }) => keys)).toEqual([[half - 1, half + 1], [1], [BATCH_BYTES_MAX * 2], [2]])
})

test('of those that failed together each is asked once more alone, and one that fails again fails alone', async () => {
  const { batches, gatherer } = slowAnswers()
  const all = [1, 2, 3].map((key) => gatherer.find(key))
  await nextTurn()
  const later = gatherer.find(4)
  const settled = Promise.allSettled([...all, later])
  const settle = async (i: number, error?: Error) => {
    if (error) batches[i]!.settled.reject(error)
    else batches[i]!.settled.resolve()
    await nextTurn()
  }
  await settle(0, new Error('one of them'))
  await settle(1)
  await settle(2, new Error('this one'))
  await settle(3)
  await settle(4)
  expect(batches.map(({ keys }) => keys)).toEqual([[1, 2, 3], [1], [2], [3], [4]])
  expect((await settled).map((one) => (one.status === 'fulfilled' ? one.value : (one.reason as Error).message))).toEqual([
    'answer 1',
    'this one',
    'answer 3',
    'answer 4',
  ])
})

test('a question that failed with others is not asked again once nobody waits for it any more', async () => {
  let now = 0
  const { batches, gatherer } = slowAnswers(undefined, () => now)
  const [early, late] = [gatherer.find(1), gatherer.find(2)]
  const settled = Promise.allSettled([early, late])
  await nextTurn()
  now = 5_000
  batches[0]!.settled.reject(new Error('too slow'))
  await nextTurn()
  now = 5_001
  batches[1]!.settled.resolve()
  expect((await settled).map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
  expect(batches).toHaveLength(2)
  const next = gatherer.find(3)
  await nextTurn()
  batches[2]!.settled.resolve()
  expect(await next).toBe('answer 3')
})
