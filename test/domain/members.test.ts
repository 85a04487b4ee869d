import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Member, Members } from '../../src/domain/conversation/members.js'

const member = (rank: number): Member => ({
  role: rank === 0 ? 'owner' : 'member',
  rank,
  joinedSeq: rank,
  joinedAt: 1_000 + rank,
  joinedOrdinal: 0,
})
const throughSnapshot = (members: Members) =>
  Members.fromJson(JSON.parse(JSON.stringify(members.toJson())) as ReturnType<Members['toJson']>)
const plain = (members: Members) => [...members].sort(([one], [other]) => (one < other ? -1 : 1))
const thousand = Array.from({ length: 1_000 }, (_, i): [string, Member] => [`u${i}`, member(i)])

describe('the members of a conversation', () => {
  test('are those of a map to which the same is done, also where they are saved and opened in between', () => {
    const step = fc.record({ kind: fc.constantFrom('set', 'delete', 'save'), who: fc.nat(300), rank: fc.nat(1_000) })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 600, size: 'max' }), (steps) => {
        const expected = new Map<string, Member>()
        let members = Members.of([])
        for (const { kind, who, rank } of steps) {
          const userId = `u${who}`
          if (kind === 'save') members = throughSnapshot(members)
          else if (kind === 'set') {
            expected.set(userId, member(rank))
            members = members.set(userId, member(rank))
          } else {
            expected.delete(userId)
            members = members.delete(userId)
          }
          expect(members.size).toBe(expected.size)
          expect(members.get(userId)).toEqual(expected.get(userId))
        }
        expect(plain(members)).toEqual([...expected].sort(([one], [other]) => (one < other ? -1 : 1)))
      }),
      { numRuns: 50 },
    )
  })

  test('are a value: what comes of them leaves them as they were', () => {
    const before = Members.of(thousand)
    before.set('u1', member(7)).set('new', member(1_000)).delete('u2')
    expect(plain(before)).toEqual(plain(Members.of(thousand)))
  })

  test('are all found, however many they become one by one', () => {
    const one = thousand.reduce((members, [userId, joined]) => members.set(userId, joined), Members.of([]))
    expect(thousand.every(([userId, joined]) => one.get(userId)?.rank === joined.rank)).toBe(true)
    expect(one.has('u1000')).toBe(false)
    expect(plain(throughSnapshot(one))).toEqual(plain(Members.of(thousand)))
  })

  test('lie in buckets of like size, whatever ids clients choose', () => {
    // Ids that a public hash puts into one bucket of 4,096: they were found by trying.
    const publicHash = (id: string) => [...id].reduce((hash, c) => Math.imul(hash ^ c.charCodeAt(0), 0x01000193), 0x811c9dc5) >>> 0
    const chosen: string[] = []
    for (let i = 0; chosen.length < 1_000; i++) if (publicHash(i.toString(36)) % 4_096 === 0) chosen.push(i.toString(36))
    const one = chosen.reduce((members, userId, i) => members.set(userId, member(i)), Members.of([]))
    const largest = Math.max(...one.toJson().buckets.map((text) => text.split('\n').length))
    expect(largest).toBeLessThan(100)
  })

  test('know of two the other', () => {
    const two = Members.of([
      ['alice', member(0)],
      ['bob', member(1)],
    ])
    expect([two.findOther('alice'), two.findOther('bob'), Members.of([]).findOther('alice')]).toEqual(['bob', 'alice', undefined])
  })
})
