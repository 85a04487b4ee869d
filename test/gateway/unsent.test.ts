import { EventEmitter } from 'node:events'
import { PassThrough } from 'node:stream'
import { pino } from 'pino'
import type { WebSocket } from 'ws'
import { describe, expect, test, vi } from 'vitest'
import { Refusal } from '../../src/domain/errors.js'
import { RecallsAhead } from '../../src/domain/recalls-ahead.js'
import { ANSWERS_BYTES_MAX, type Answer, Connection, FRAMES_IN_HAND_BYTES_MAX } from '../../src/gateway/connection.js'
import { Outbox } from '../../src/gateway/outbox.js'
import { NODE_UNSENT_BYTES_MAX, USER_UNSENT_BYTES_MAX, relieve } from '../../src/gateway/unsent.js'
import { useServer } from '../support/app-server.js'
import { withinBudget } from '../support/rest.js'
import { eventually } from '../support/world.js'

describe('a device that reads nothing of its resume', () => {
  const world = useServer({ times: { stalledMs: 300, presenceGraceMs: 50 } })

  test('is closed with 4001, and a later resume makes it whole', async () => {
    const [a, b] = world().users('a', 'b')
    const conversation = await a.group([b])
    const { position } = (await b.connect()).hello!
    const words = 'x'.repeat(10_000)
    for (let n = 0; n < 20; n += 1) await Promise.all(Array.from({ length: 100 }, () => withinBudget(() => a.send(conversation, words))))
    const slow = await b.open()
    await slow.sayHello({ token: b.token, deviceId: 'slow', position })
    slow.pause()
    const isOnline = async () => {
      const { items } = await b.get<{ items: { deviceId: string; online: boolean }[] }>('/v1/devices')
      return items.find(({ deviceId }) => deviceId === 'slow')!.online
    }
    expect(await isOnline()).toBe(true)
    await eventually(async () => !(await isOnline()), 'the device that does not read to be given up')
    slow.read()
    expect(await slow.waitForClose()).toBe(4001)
    expect(slow.lastSeq(conversation.conversationId)).toBeLessThan(2_000)
    const again = await b.connect({ deviceId: 'slow', position: slow.position })
    await again.waitForSeq(conversation.conversationId, 2_000)
    const seqs = [...slow.seqs(conversation.conversationId), ...again.seqs(conversation.conversationId)]
    expect(new Set(seqs).size).toBe(2_000)
  }, 120_000)
})

describe('what waits for sockets', () => {
  function socketWith(userId: string, unsentBytes: number) {
    return {
      userId,
      unsentBytes,
      isOpen: true,
      isThere: true,
      closeStalled() {},
      refuse(closeCode: number) {
        expect(closeCode).toBe(4001)
        this.isOpen = false
      },
      terminate() {
        this.isThere = false
      },
    }
  }
  const openOf = (sockets: readonly { isOpen: boolean }[]) => sockets.map(({ isOpen }) => isOpen)

  test('is bounded for a user: its fullest are closed, nobody else', () => {
    const part = USER_UNSENT_BYTES_MAX / 4
    const own = [part, part, part, part + 1].map((bytes) => socketWith('anna', bytes))
    const other = socketWith('ben', USER_UNSENT_BYTES_MAX)
    relieve([...own, other], 0, 1)
    expect(openOf(own)).toEqual([true, true, true, false])
    expect(other.isOpen).toBe(true)
  })

  test('is bounded for the node: the fullest are closed, and cut off where that does not help', () => {
    const count = Math.ceil(NODE_UNSENT_BYTES_MAX / USER_UNSENT_BYTES_MAX) + 3
    const sockets = Array.from({ length: count }, (_, n) => socketWith(`u${n}`, USER_UNSENT_BYTES_MAX - n))
    relieve(sockets, 0, 1)
    expect(openOf(sockets).indexOf(true)).toBe(3)
    expect(sockets.every(({ isThere }) => isThere)).toBe(true)
    relieve(sockets, 0, 1)
    expect(sockets.filter(({ isThere }) => !isThere)).toEqual(sockets.slice(0, 3))
  })
})

/** A connection on a socket of the test's own; `handle` is given the `ref` of each frame that it works on. */
const connect = (ws: EventEmitter, handle: (ref: number) => Answer): Connection =>
  new Connection(ws as unknown as WebSocket, new PassThrough({ highWaterMark: 1 }).resume(), {
    sessionId: 's',
    outbox: new Outbox(),
    logger: pino({ level: 'silent' }),
    framesPerSecond: undefined,
    recallsAhead: new RecallsAhead(),
    turns: { end() {} },
    handle: (_, frame) => handle('ref' in frame ? (frame.ref ?? -1) : -1),
  })

describe('what one socket asks for at once', () => {
  function connected() {
    const ws = Object.assign(new EventEmitter(), { pause() {}, resume() {}, close() {} })
    const asked: (() => void)[] = []
    const order: number[] = []
    const connection = connect(ws, (ref) => {
      order.push(ref)
      return new Promise((resolve) => asked.push(() => resolve({})))
    })
    const say = (frame: object) => ws.emit('message', Buffer.from(JSON.stringify(frame)), false)
    const ask = (ref: number) => say({ type: 'events.get', ref, conversationId: 'c', after: -1, limit: 200 })
    return { connection, asked, order, ask, say }
  }

  test('is bounded by the bytes of its frames, also before hello is answered', async () => {
    const { asked, say } = connected()
    const content = { type: 'text', text: 'x'.repeat(20_000) }
    for (let ref = 0; ref < 240; ref += 1) say({ type: 'message.send', ref, conversationId: 'c', clientMessageId: `m${ref}`, content })
    let most = 0
    for (let done = 0; done < 240; done += 1) {
      most = Math.max(most, asked.length - done)
      asked[done]!()
      await expect.poll(() => asked.length > done + 1 || done === 239).toBe(true)
    }
    expect(most).toBeGreaterThan(10)
    expect(most * 20_000).toBeLessThanOrEqual(FRAMES_IN_HAND_BYTES_MAX)
  })

  test('if it is pages, they are made a few at a time, and in their order, however many frames one read of the socket brings', async () => {
    const { asked, order, ask } = connected()
    for (let ref = 0; ref < 240; ref += 1) ask(ref)
    let most = 0
    for (let done = 0; done < 240; done += 1) {
      const outstanding = asked.length - done
      most = Math.max(most, outstanding)
      asked[done]!()
      await expect.poll(() => asked.length > done + 1 || done === 239).toBe(true)
    }
    expect(most * 256 * 1024).toBeLessThanOrEqual(ANSWERS_BYTES_MAX)
    expect(order).toEqual(Array.from({ length: 240 }, (_, ref) => ref))
  })
})

test('a socket that asks on though its budget is spent is left unread until there is some again', () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  try {
    const ws = Object.assign(new EventEmitter(), { pause: vi.fn(), resume: vi.fn(), close() {} })
    const taken: number[] = []
    connect(ws, (ref) => {
      taken.push(ref)
      throw new Refusal('rate_limited', 'Spent.', { retryAfterMs: 400 })
    })
    for (let ref = 0; ref < 30; ref += 1)
      ws.emit('message', Buffer.from(JSON.stringify({ type: 'presence.query', ref, userIds: ['u'] })), false)
    expect(taken).toHaveLength(20)
    expect(ws.pause).toHaveBeenCalledOnce()
    vi.advanceTimersByTime(400)
    expect(taken).toHaveLength(21)
    // One at a time, and all of them, in their order.
    for (let rest = 0; rest < 10; rest += 1) vi.advanceTimersByTime(400)
    expect(taken).toEqual(Array.from({ length: 30 }, (_, ref) => ref))
    expect(ws.resume).toHaveBeenCalledOnce()
  } finally {
    vi.useRealTimers()
  }
})
