import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Refusal } from '../../src/domain/errors.js'
import { Account } from '../../src/load/account.js'
import { type Turn, Turns, type TurnsOptions } from '../../src/load/turns.js'

const accountOf = (key: string) => new Account(key, true, 1_000, () => 0)

/** Turns, and what has begun in them, as `account:number`. */
function givenTurns(options: Partial<TurnsOptions> = {}) {
  const turns = new Turns({ now: () => 0, ...options })
  const begun: { by: string; number: number; units: number; turn: Turn }[] = []
  const counts = new Map<string, number>()
  const ask = (account: Account, units: number, more: { bytes?: number; isGone?: () => boolean } = {}) => {
    const number = counts.get(account.key) ?? 0
    counts.set(account.key, number + 1)
    const begin = (turn: Turn) => void begun.push({ by: account.key, number, units, turn })
    const turn = turns.tryBegin(account, units)
    if (turn) begin(turn)
    else turns.wait(account, { units, bytes: 0, drop: () => {}, ...more, begin })
  }
  return { turns, begun, ask, endAt: (at: number) => turns.end(begun[at]!.turn) }
}

describe('turns', () => {
  test('begin at once where nothing waits', () => {
    const { ask, begun } = givenTurns()
    ask(accountOf('a'), 1)
    ask(accountOf('b'), 400)
    expect(begun.map(({ by }) => by)).toEqual(['a', 'b'])
  })

  test('of light work do not wait for the heavy work of others', () => {
    const { ask, begun } = givenTurns({ heavyUnitsMax: 10 })
    const hostile = accountOf('hostile')
    for (let i = 0; i < 5; i += 1) ask(hostile, 100)
    ask(accountOf('ordinary'), 1)
    expect(begun.map(({ by }) => by)).toEqual(['hostile', 'ordinary'])
  })

  test('of one account keep their order, whatever they weigh', () => {
    const units = fc.array(fc.record({ who: fc.nat(4), units: fc.integer({ min: 1, max: 60 }) }), { maxLength: 200, size: 'max' })
    fc.assert(
      fc.property(units, fc.infiniteStream(fc.nat(1_000)), (asked, picks) => {
        const { ask, begun, turns } = givenTurns({ lightUnitsMax: 8, heavyUnitsMax: 40, accountJobsMax: 1_000 })
        const accounts = [0, 1, 2, 3, 4].map((who) => accountOf(`a${who}`))
        for (const { who, units: weight } of asked) ask(accounts[who]!, weight)
        const running = begun.map(({ turn }) => turn)
        for (let ended = 0; ended < asked.length; ended += 1) {
          const before = begun.length
          const [turn] = running.splice(picks.next().value! % running.length, 1)
          turns.end(turn!)
          running.push(...begun.slice(before).map((one) => one.turn))
        }
        // Nobody starves: all have begun, and each account's in the order in which it asked.
        expect(begun).toHaveLength(asked.length)
        for (const { key } of accounts)
          expect(begun.filter(({ by }) => by === key).map(({ number }) => number)).toEqual(
            begun.filter(({ by }) => by === key).map((_, i) => i),
          )
        expect(turns.waiting).toEqual({ jobs: 0, bytes: 0 })
      }),
      { numRuns: 200 },
    )
  })

  test('are shared by cost: while all wait, none gets more than another but for a quantum and its largest job', () => {
    const weights = fc.array(fc.integer({ min: 7, max: 100 }), { minLength: 2, maxLength: 6 })
    fc.assert(
      fc.property(weights, (weightOf) => {
        const { ask, begun, turns } = givenTurns({ heavyUnitsMax: 1, accountJobsMax: 1_000 })
        const accounts = weightOf.map((_, who) => accountOf(`a${who}`))
        // As many units of each, so that all wait until the end is near.
        ask(accountOf('first'), 7)
        accounts.forEach((account, who) => {
          for (let units = 0; units < 2_000; units += weightOf[who]!) ask(account, weightOf[who]!)
        })
        const got = new Map(accounts.map(({ key }) => [key, 0]))
        for (let at = 0; at < begun.length; at += 1) {
          const { by, units, turn } = begun[at]!
          if (by !== 'first') got.set(by, got.get(by)! + units)
          turns.end(turn)
          if (Math.max(...got.values()) > 1_800) break
          const [least, most] = [Math.min(...got.values()), Math.max(...got.values())]
          expect(most - least).toBeLessThanOrEqual(16 + 2 * Math.max(...weightOf))
        }
      }),
      { numRuns: 100 },
    )
  })

  test('are not given to those who have gone', () => {
    const { ask, begun, endAt } = givenTurns({ heavyUnitsMax: 1 })
    ask(accountOf('a'), 10)
    ask(accountOf('gone'), 10, { isGone: () => true })
    ask(accountOf('b'), 10)
    endAt(0)
    expect(begun.map(({ by }) => by)).toEqual(['a', 'b'])
  })

  test('are refused where too much waits, by number and by bytes, of one account and of all', () => {
    const { ask } = givenTurns({ heavyUnitsMax: 1, accountJobsMax: 2, jobsMax: 4, accountBytesMax: 100, bytesMax: 150 })
    const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((key) => {
      const account = accountOf(key)
      account.note(1_000)
      return account
    }) as [Account, Account, Account, Account]
    ask(accountOf('first'), 7)
    ask(a, 7)
    ask(a, 7)
    expect(() => ask(a, 7)).toThrow('waiting')
    ask(b, 7, { bytes: 90 })
    expect(() => ask(b, 7, { bytes: 20 })).toThrow('waiting')
    expect(() => ask(c, 7, { bytes: 70 })).toThrow('waiting')
    ask(c, 7, { bytes: 60 })
    expect(() => ask(d, 7)).toThrow('waiting')
    // Those who used little lately have as much again.
    const [e, f] = [accountOf('e'), accountOf('f')]
    for (const ordinary of [e, f]) {
      ask(ordinary, 7)
      ask(ordinary, 7)
    }
    expect(() => ask(accountOf('g'), 7)).toThrow('waiting')
  })

  test('go first to accounts that used little lately', () => {
    const { ask, begun, endAt } = givenTurns({ heavyUnitsMax: 1 })
    const [busy, busier] = [accountOf('busy'), accountOf('busier')]
    busy.note(1_000)
    busier.note(5_000)
    ask(busy, 10)
    ask(busier, 10)
    ask(busy, 10)
    ask(accountOf('ordinary'), 10)
    endAt(0)
    expect(begun.map(({ by }) => by)).toEqual(['busy', 'ordinary'])
  })

  test('that do not come in time are refused, and say when to ask again', () => {
    const clock = { ms: 0 }
    const { turns, begun, endAt } = givenTurns({ heavyUnitsMax: 1, now: () => clock.ms })
    const refused: Refusal[] = []
    const wait = (account: Account) =>
      turns.wait(account, {
        units: 10,
        bytes: 0,
        begin: (turn) => void begun.push({ by: account.key, number: 0, units: 10, turn }),
        drop: (refusal) => void refused.push(refusal),
      })
    wait(accountOf('first'))
    wait(accountOf('late'))
    clock.ms = 2_000
    wait(accountOf('in time'))
    clock.ms += 1
    turns.refuseLate()
    expect(refused).toEqual([expect.objectContaining({ code: 'rate_limited', retryAfterMs: expect.any(Number) })])
    expect(turns.waiting.jobs).toBe(1)
    endAt(0)
    expect(begun.map(({ by }) => by)).toEqual(['first', 'in time'])
  })

  test('of light work do not wait in the lane of heavy work that was refused because it came too late', () => {
    const clock = { ms: 0 }
    const { ask, begun, turns } = givenTurns({ heavyUnitsMax: 1, now: () => clock.ms })
    const [one, other] = [accountOf('one'), accountOf('other')]
    ask(accountOf('holds the lane'), 10)
    ask(one, 10)
    ask(other, 10)
    clock.ms = 3_000
    ask(other, 1)
    clock.ms += 1
    turns.refuseLate()
    ask(one, 1)
    expect(begun.map(({ by, units }) => [by, units])).toEqual([
      ['holds the lane', 10],
      ['other', 1],
      ['one', 1],
    ])
    expect(turns.waiting.jobs).toBe(0)
  })

  test('that are held for long no longer stand in the way of others', () => {
    const clock = { ms: 0 }
    const { ask, begun, turns, endAt } = givenTurns({ heavyUnitsMax: 1, now: () => clock.ms })
    ask(accountOf('slow'), 10)
    ask(accountOf('next'), 10)
    turns.releaseHeld()
    expect(begun).toHaveLength(1)
    clock.ms += 1_001
    turns.releaseHeld()
    expect(begun.map(({ by }) => by)).toEqual(['slow', 'next'])
    // Its end comes late, and is not counted twice.
    endAt(0)
    ask(accountOf('third'), 10)
    expect(begun).toHaveLength(2)
  })
})
