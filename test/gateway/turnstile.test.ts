import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Turnstile } from '../../src/gateway/turnstile.js'

test('so many are let through at once, the others in the order in which they came, also after a failure', async () => {
  const turnstile = new Turnstile(2)
  const [begun, ends]: [number[], (() => void)[]] = [[], []]
  const work = (n: number) =>
    turnstile.pass(async () => {
      begun.push(n)
      await new Promise<void>((resolve) => ends.push(resolve))
      if (n === 1) throw new Error('one that fails')
    })
  const passing = [1, 2, 3, 4].map(work)
  const failed = expect(passing[0]).rejects.toThrow('one that fails')
  expect(begun).toEqual([1, 2])
  ends[0]!()
  await failed
  await turn()
  expect(begun).toEqual([1, 2, 3])
  for (let n = 1; n < 4; n += 1) {
    ends[n]!()
    await turn()
  }
  await Promise.all(passing.slice(1))
  expect(begun).toEqual([1, 2, 3, 4])
})
