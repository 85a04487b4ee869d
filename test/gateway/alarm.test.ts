import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { Alarm } from '../../src/gateway/alarm.js'

const DAY_MS = 24 * 60 * 60 * 1_000

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

test.each([1, 24, 25, 90])('an alarm of %s days rings then, once', (days) => {
  const ring = vi.fn()
  new Alarm(Date.now() + days * DAY_MS, ring)
  vi.advanceTimersByTime(days * DAY_MS - 1)
  expect(ring).not.toHaveBeenCalled()
  vi.advanceTimersByTime(1)
  expect(ring).toHaveBeenCalledTimes(1)
  expect(vi.getTimerCount()).toBe(0)
})

test('an alarm whose time is past rings at once', () => {
  const ring = vi.fn()
  new Alarm(Date.now() - DAY_MS, ring)
  vi.advanceTimersByTime(0)
  expect(ring).toHaveBeenCalledTimes(1)
})

test('an alarm that was stopped does not ring, also after it was set again', () => {
  const ring = vi.fn()
  const alarm = new Alarm(Date.now() + 90 * DAY_MS, ring)
  vi.advanceTimersByTime(30 * DAY_MS)
  alarm.stop()
  vi.advanceTimersByTime(90 * DAY_MS)
  expect(ring).not.toHaveBeenCalled()
  expect(vi.getTimerCount()).toBe(0)
})

test('after a jump of the clock, as a machine that slept has, an alarm rings within a minute', () => {
  const ring = vi.fn()
  new Alarm(Date.now() + DAY_MS, ring)
  vi.setSystemTime(Date.now() + DAY_MS)
  vi.advanceTimersByTime(60_001)
  expect(ring).toHaveBeenCalledTimes(1)
})
