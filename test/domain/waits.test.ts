import { describe, expect, test, vi } from 'vitest'
import { Conditions, FeedProgress, withDeadline } from '../../src/domain/waits.js'

describe('a deadline', () => {
  test('lets what comes in time through, and leaves no timer', async () => {
    vi.useFakeTimers()
    await expect(withDeadline(Promise.resolve(1), 1_000, () => new Error('late'))).resolves.toBe(1)
    await expect(withDeadline(Promise.reject(new Error('own')), 1_000, () => new Error('late'))).rejects.toThrow('own')
    expect(vi.getTimerCount()).toBe(0)
    vi.useRealTimers()
  })

  test('ends a wait for what never comes', async () => {
    await expect(withDeadline(new Promise(() => {}), 1, () => new Error('late'))).rejects.toThrow('late')
  })
})

describe('a condition', () => {
  test('is waited for until it holds', async () => {
    const conditions = new Conditions()
    let value = 0
    const waiting = [1, 2].map((wanted) => conditions.until(() => value >= wanted))
    value = 1
    conditions.changed()
    expect(await waiting[0]).toBe(true)
    value = 2
    conditions.changed()
    expect(await waiting[1]).toBe(true)
  })

  test('is not waited for longer than was said, nor after the end', async () => {
    const conditions = new Conditions()
    expect(await conditions.until(() => false, 1)).toBe(false)
    const waiting = conditions.until(() => false)
    conditions.end()
    expect(await waiting).toBe(false)
    expect(await conditions.until(() => false)).toBe(false)
    expect(await conditions.until(() => true)).toBe(true)
  })
})

describe('a feed', () => {
  test('that does not get there is unavailable, and so is one that ends', async () => {
    const progress = new FeedProgress()
    progress.moveTo('1')
    await progress.reached('1')
    await expect(progress.reached('2', 1)).rejects.toMatchObject({ code: 'unavailable' })
    const waiting = progress.reached('2')
    progress.end()
    await expect(waiting).rejects.toMatchObject({ code: 'unavailable' })
  })
})
