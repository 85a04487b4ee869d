import { expect, test } from 'vitest'
import { Account } from '../../src/load/account.js'
import { Load } from '../../src/load/load.js'

function givenAccount(unitsPerSecond = 100) {
  const clock = { ms: 0 }
  return { clock, account: new Account('u:alice', true, unitsPerSecond, () => clock.ms) }
}

test('units come back at a steady rate, up to those of a second', () => {
  const { clock, account } = givenAccount()
  account.charge(60)
  expect(account.unitsLeft).toBe(40)
  clock.ms += 100
  expect(account.unitsLeft).toBe(50)
  clock.ms += 60_000
  expect(account.unitsLeft).toBe(100)
})

test('one request may cost more than there is, and is paid for before the next', () => {
  const { clock, account } = givenAccount()
  account.charge(350)
  expect(account.unitsLeft).toBe(-250)
  expect(account.secondsToFull).toBe(4)
  clock.ms += account.retryAfterMs - 1
  expect(account.unitsLeft).toBeLessThan(1)
  clock.ms += 1
  expect(account.unitsLeft).toBeGreaterThanOrEqual(1)
})

test('a clock that is set back locks nobody out: the time is one that only goes forward', () => {
  const load = new Load()
  const account = load.ofUser('alice')
  const { now } = Date
  try {
    account.charge(1_000)
    Date.now = () => now() - 3_600_000
    expect(account.retryAfterMs).toBeLessThanOrEqual(1_000)
  } finally {
    Date.now = now
  }
})

test('what was used lately is forgotten with time', () => {
  const { clock, account } = givenAccount()
  account.charge(500)
  expect(account.recentUnitsPerSecond).toBe(100)
  clock.ms += 60_000
  expect(account.recentUnitsPerSecond).toBeLessThan(0.01)
})

test('a node that is late and idle in between refuses nobody: others have the machine', () => {
  const load = new Load({ now: () => 0 })
  load.admit(load.ofUser('hostile'), 900)
  for (let i = 0; i < 20; i += 1) load.overload.judge(500, 0.2)
  expect(() => load.admit(load.ofUser('hostile'), 1)).not.toThrow()
})

test('a node that is late refuses those who used most, and nobody who uses little', () => {
  const load = new Load({ now: () => 0 })
  const [hostile, ordinary] = [load.ofUser('hostile'), load.ofUser('ordinary')]
  load.admit(hostile, 900)
  load.admit(ordinary, 5)
  for (let i = 0; i < 20; i += 1) load.overload.judge(500, 1)
  expect(() => load.admit(hostile, 1)).toThrow('busy')
  expect(() => load.admit(ordinary, 1)).not.toThrow()
  for (let i = 0; i < 60; i += 1) load.overload.judge(0, 1)
  expect(() => load.admit(hostile, 1)).not.toThrow()
})
