import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import type { History } from '../../src/domain/history.js'
import { SentIds } from '../../src/domain/sent-ids.js'

const sentUpTo = (count: number) => Array.from({ length: count }, (_, i) => ({ clientMessageId: `m${i + 1}`, seq: i + 1 }))

/** A history in which one sender has sent every message; it says how often it was read. */
function historyOf({ messages, fails = false }: { messages: number; fails?: boolean }) {
  const reads: number[] = []
  const known = { messages, fails }
  const findSentIds: History['findSentIds'] = async (_conversation, _sender, after, limit) => {
    reads.push(after)
    if (known.fails) throw new Error('no database')
    return { asOf: known.messages, sent: sentUpTo(known.messages).slice(Math.max(0, after)).slice(0, limit) }
  }
  return { reads, known, sentIds: new SentIds({ findSentIds } as unknown as History) }
}

async function ask(sentIds: SentIds, times: number, since = 0, senderId = 'ben'): Promise<void> {
  for (let i = 0; i < times; i++) sentIds.find('g', senderId, 'new', since)
  await nextTurn()
}

describe('the ids that a sender has sent', () => {
  test('are read when it has asked a few times, and then known as of then', async () => {
    const { sentIds, reads } = historyOf({ messages: 3_000 })
    await ask(sentIds, 3)
    expect(reads).toEqual([])
    expect(sentIds.find('g', 'ben', 'm7', 0)).toBeUndefined()
    await nextTurn()
    expect(sentIds.find('g', 'ben', 'm7', 1_500)).toEqual({ sentBefore: 7 })
    expect(sentIds.find('g', 'ben', 'new', 1_500)).toEqual({ asOf: 3_000 })
    expect(sentIds.find('g', 'cleo', 'm7', 1_500)).toBeUndefined()
    expect(reads).toEqual([-1])
  })

  test('are no answer to who needs to know of later ones; then only those are read', async () => {
    const { sentIds, reads, known } = historyOf({ messages: 3_000 })
    await ask(sentIds, 4)
    expect(sentIds.find('g', 'ben', 'new', 3_001)).toBeUndefined()
    known.messages = 5_000
    await ask(sentIds, 4, 3_001)
    expect(sentIds.find('g', 'ben', 'm4000', 3_001)).toEqual({ sentBefore: 4_000 })
    expect(sentIds.find('g', 'ben', 'm1', 3_001)).toEqual({ sentBefore: 1 })
    expect(reads).toEqual([-1, 3_000])
  })

  test('are not held where they are too many', async () => {
    const { sentIds, reads } = historyOf({ messages: 20_000 })
    await ask(sentIds, 20)
    await ask(sentIds, 20)
    expect(sentIds.find('g', 'ben', 'm1', 0)).toBeUndefined()
    expect(reads).toEqual([-1])
  })

  test('of all senders are bounded together: who has not asked for longest is forgotten', async () => {
    const { sentIds } = historyOf({ messages: 10_000 })
    for (let i = 0; i < 40; i++) await ask(sentIds, 4, 0, `user${i}`)
    expect(sentIds.find('g', 'user39', 'm1', 0)).toEqual({ sentBefore: 1 })
    expect(sentIds.find('g', 'user0', 'm1', 0)).toBeUndefined()
  })

  test('are read again later where they could not be read', async () => {
    const { sentIds, known } = historyOf({ messages: 10, fails: true })
    await ask(sentIds, 5)
    expect(sentIds.find('g', 'ben', 'm1', 0)).toBeUndefined()
    known.fails = false
    await ask(sentIds, 4)
    expect(sentIds.find('g', 'ben', 'm1', 0)).toEqual({ sentBefore: 1 })
  })
})
