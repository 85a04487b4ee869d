import { expect, test } from 'vitest'
import { RecordedEvent } from '../../src/domain/event-store.js'
import { LogTail } from '../../src/event-stores/postgres/log-tail.js'
import { toPlace } from '../../src/event-stores/postgres/positions.js'

/** Of 1,000 bytes with what is counted beside its data. */
const eventAt = (n: number) =>
  new RecordedEvent({ id: `${n}`, type: 'Said', stream: 's', revision: n, dataJson: JSON.stringify('x'.repeat(486)) }, toPlace(n), '{}')

/** A tail of an empty log whose first event another process wrote; `written` of this process come after it. */
async function follow(written: readonly number[], bytesMax: number): Promise<{ read: number[]; tail: LogTail }> {
  const read: number[] = []
  const tail = new LogTail({
    start: 0,
    read: async (after) => {
      read.push(after)
      return { events: [eventAt(after + 1)], isEnd: true }
    },
    eventsMax: 100,
    bytesMax,
    signal: new AbortController().signal,
  })
  tail.addReader()
  for (const n of written) tail.committed(n, [eventAt(n)])
  const last = written.at(-1)!
  while (tail.position < last) await tail.waitPast(tail.position, new AbortController().signal)
  return { read, tail }
}

test('commits of this process wait in memory for those before them', async () => {
  const { read, tail } = await follow([2, 3, 4], 1 << 20)
  expect(read).toEqual([0])
  expect(tail.take(0, 10)!.map(({ id }) => id)).toEqual(['1', '2', '3', '4'])
})

test('so many bytes wait at most; what is more is read from the database', async () => {
  const { read, tail } = await follow([2, 3, 4, 5], 2_000)
  expect(read).toEqual([0, 3, 4])
  expect(tail.take(3, 10)!.map(({ id }) => id)).toEqual(['4', '5'])
})
