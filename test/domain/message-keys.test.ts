import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MessageKeys } from '../../src/domain/conversation/message-keys.js'

describe('the keys of messages', () => {
  test('that were added are found by who has them, and by nobody else', () => {
    const none = MessageKeys.of([])
    const one = none.add('a', 1)
    const two = one.add('b', 4)
    expect([none, one, two].map((keys) => [keys.get('a'), keys.get('b')])).toEqual([
      [undefined, undefined],
      [1, undefined],
      [1, 4],
    ])
    expect([...one]).toEqual([['a', 1]])
  })

  test('of a successor that was dropped are not those of the one that took its place', () => {
    const one = MessageKeys.of([['a', 1]])
    const dropped = one.add('b', 2)
    const instead = one.add('c', 2).add('d', 3)
    expect([...instead]).toEqual([
      ['a', 1],
      ['c', 2],
      ['d', 3],
    ])
    expect(instead.get('b')).toBeUndefined()
    expect([...dropped]).toEqual([
      ['a', 1],
      ['b', 2],
    ])
  })

  test('keep the first seq of each', () => {
    expect(
      MessageKeys.of([['a', 1]])
        .add('a', 2)
        .get('a'),
    ).toBe(1)
  })

  test('are at every version what a map copied each time would be', () => {
    const step = fc.record({ from: fc.nat(), key: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f') })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const versions = [{ keys: MessageKeys.of([]), model: new Map<string, number>(), seq: 0 }]
        for (const { from, key } of steps) {
          const { keys, model, seq } = versions[from % versions.length]!
          const next = new Map(model)
          if (!next.has(key)) next.set(key, seq + 1)
          versions.push({ keys: keys.add(key, seq + 1), model: next, seq: seq + 1 })
        }
        for (const { keys, model } of versions) {
          expect([...keys]).toEqual([...model])
          for (const key of 'abcdef') expect(keys.get(key)).toBe(model.get(key))
        }
      }),
    )
  })
})
