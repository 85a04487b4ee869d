import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { Outbox } from '../../src/gateway/outbox.js'

/** Each writes its name when it is flushed. */
function devices(written: string[], name: string, count: number) {
  return Array.from({ length: count }, (_, i) => ({ flush: () => written.push(`${name}${i}`) }))
}

describe('the outbox', () => {
  test('writes once per loop turn, and to a large audience in parts: who has something else goes first', async () => {
    const outbox = new Outbox()
    const written: string[] = []
    for (const device of devices(written, 'many', 250)) outbox.addLater(device)
    for (const device of devices(written, 'few', 2)) outbox.add(device)
    expect(written).toEqual([])
    await nextTurn()
    expect(written.slice(0, 2)).toEqual(['few0', 'few1'])
    const first = written.length
    expect(first).toBeGreaterThan(2)
    expect(first).toBeLessThan(252)
    outbox.add(devices(written, 'late', 1)[0]!)
    await nextTurn()
    expect(written[first]).toBe('late0')
    while (written.length < 253) await nextTurn()
    expect(new Set(written).size).toBe(253)
  })

  test('takes what comes to a large audience while it writes to it', async () => {
    const outbox = new Outbox()
    const written: string[] = []
    const again = devices(written, 'again', 150)
    const first = devices(written, 'first', 150).map(({ flush }, i) => ({
      flush: () => {
        flush()
        outbox.addLater(again[i]!)
      },
    }))
    for (const device of first) outbox.addLater(device)
    while (written.length < 300) await nextTurn()
    expect(written.slice(0, 150).every((name) => name.startsWith('first'))).toBe(true)
    expect(written.slice(150)).toEqual(Array.from({ length: 150 }, (_, i) => `again${i}`))
  })
})
