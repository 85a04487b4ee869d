import fc from 'fast-check'
import { hash } from 'immutable'
import { expect, test } from 'vitest'
import { evolveReceipts, noReceipts } from '../../src/domain/receipts/receipts.js'
import { IdMap, IdSet, hashedId } from '../../src/domain/id-map.js'
import { evolveUser, unknownUser } from '../../src/domain/user/user.js'
import { noConversation } from '../../src/domain/conversation/state.js'
import { metadataOf } from '../support/given.js'

/** All have one hash by which `immutable` places texts: "Aa" and "BB" do, and so does whatever is made of as many of them. */
const colliding = Array.from({ length: 4_096 }, (_, n) => Array.from({ length: 12 }, (_bit, i) => ((n >> i) & 1 ? 'Aa' : 'BB')).join(''))

/** Counts those that share the fullest bucket. */
function fullestBucket(keys: readonly string[]): number {
  const buckets = new Map<number, number>()
  for (const key of keys) buckets.set(hash(key), (buckets.get(hash(key)) ?? 0) + 1)
  return Math.max(...buckets.values())
}

test('ids that collide by choice do not share a bucket', () => {
  expect(fullestBucket(colliding)).toBe(colliding.length)
  expect(fullestBucket(colliding.map(hashedId))).toBeLessThanOrEqual(3)
})

test('whatever clients may fill is kept by such keys', () => {
  const metadata = metadataOf('anna', 1)
  const about = { stream: 's', revision: 0, metadata }
  const { cursors } = evolveReceipts(noReceipts, { type: 'DeliveredUpTo', data: { userId: 'anna', seq: 1 }, ...about })
  const user = evolveUser(unknownUser, { type: 'ContactAdded', data: { userId: 'anna' }, ...about })
  expect([cursors, noConversation.lastSent]).toEqual([expect.any(IdMap), expect.any(IdMap)])
  expect([user.contacts, user.blocks]).toEqual([expect.any(IdSet), expect.any(IdSet)])
})

test('a map is a value, and has what was set', () => {
  const step = fc.record({ id: fc.constantFrom('a', 'b', ...colliding.slice(0, 20)), value: fc.option(fc.nat(5)) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      const expected = new Map<string, number>()
      let map = IdMap.of<number>()
      for (const { id, value } of steps) {
        const before = [map, map.size, map.get(id)] as const
        map = value === null ? map.delete(id) : map.set(id, value)
        expect([before[0].size, before[0].get(id)]).toEqual(before.slice(1))
        if (value === null) expected.delete(id)
        else expected.set(id, value)
        expect([map.get(id), map.has(id), map.size]).toEqual([expected.get(id), expected.has(id), expected.size])
      }
      expect(new Map(map)).toEqual(expected)
      expect(new Set(IdSet.of(expected.keys()))).toEqual(new Set(expected.keys()))
    }),
  )
})
