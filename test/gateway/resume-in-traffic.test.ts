import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { useServer } from '../support/app-server.js'
import type { Device, Frame } from '../support/device.js'
import { ForgetfulDevice } from '../support/forgetful-device.js'
import { placesAhead } from '../support/resume-places.js'
import { type Conversation, type User, type World, text, unique } from '../support/world.js'

const RESUMES = 50

/** Who sends without a pause until told to stop, three in each conversation at once; gives how many there were. */
function traffic(device: Device, conversations: readonly Conversation[]): () => Promise<number> {
  let goesOn = true
  let count = 0
  const sending = (async () => {
    while (goesOn) {
      await Promise.all(
        [...conversations, ...conversations, ...conversations].map(({ conversationId }) =>
          device.ask('message.send', { conversationId, clientMessageId: `m${(count += 1)}`, content: text(`${count}`) }),
        ),
      )
    }
  })()
  return async () => {
    goesOn = false
    await sending
    return count
  }
}

/** A line that breaks 50 times in the middle of the traffic, at any frame. */
async function breakOften(user: User, conversations: readonly Conversation[], sender: User): Promise<ForgetfulDevice> {
  const heads = await headsOf(user, conversations)
  const device = new ForgetfulDevice(user)
  const connections: Frame[][] = []
  await device.connect()
  const stop = traffic(await sender.connect(), conversations)
  for (let n = 0; n < RESUMES; n += 1) {
    const socket = device.device!
    const enough = 2 + (n % 7)
    await socket.until(() => socket.frames.filter(({ type }) => type === 'events' || type === 'head').length >= enough, 'some facts')
    connections.push([...socket.frames])
    expect(socket.violations).toEqual([])
    device.cut(((n * 7) % 11) / 10)
    await device.connect()
  }
  await stop()
  expect(device.notRecovered).toBe(0)
  const events = (await Promise.all(conversations.map((conversation) => user.events(conversation)))).flat()
  for (const frames of connections) expect(placesAhead(frames, events)).toEqual([])
  for (const [index, { conversationId }] of conversations.entries()) {
    const { head } = await user.get<{ head: number }>(`/v1/conversations/${conversationId}`)
    await device.waitForSeq(conversationId, head)
    expect(device.holes(conversationId, heads[index]! + 1, head)).toEqual([])
  }
  return device
}

const headsOf = (user: User, conversations: readonly Conversation[]) =>
  Promise.all(
    conversations.map(async ({ conversationId }) => (await user.get<{ head: number }>(`/v1/conversations/${conversationId}`)).head),
  )

const addStrangers = (user: User, { conversationId }: Conversation, count: number) =>
  user.write('POST', `/v1/conversations/${conversationId}/members`, { userIds: Array.from({ length: count }, () => unique('x')) })

describe(`${RESUMES} resumes in the middle of traffic leave no hole and no double at any seam`, () => {
  describe('where all is delivered', () => {
    const world = useServer()

    test('in small conversations, and in busy ones that are merged', async () => {
      const [a, b] = world().users('a', 'b')
      const conversations = [await a.group([b]), await a.direct(b), await a.group([b]), await a.group([b])]
      await addStrangers(a, conversations[2]!, 110)
      await addStrangers(a, conversations[3]!, 110)
      const device = await breakOften(b, conversations, a)
      for (const { conversationId } of conversations) expect(device.events(conversationId).size).toBeGreaterThan(50)
      // What is more than one round was merged. Some were, or this has tested half of what it should.
      const merged = device.frames.filter(
        ({ type, events }) => type === 'events' && events![0]!.conversationId === conversations[2]!.conversationId && events!.length > 3,
      )
      expect(merged.length).toBeGreaterThan(5)
    })
  })

  describe('where a head stands for events', () => {
    const world = useServer({ env: { FANOUT_ON_WRITE_MAX: '3' } })

    test('in large conversations beside a small one, looking at one of them now and then', async () => {
      const [a, b, ...others] = world().users('a', 'b', 'c', 'd')
      const conversations = [await a.group([b, ...others]), await a.group([b]), await a.group([b, ...others])]
      const device = await breakOften(b, conversations, a)
      expect(device.announced(conversations[0]!.conversationId)).toBeGreaterThan(10)
    })
  })
})

type Step =
  | { kind: 'send' | 'edit' | 'recall' | 'join' | 'leave' | 'remove'; who: number; where: number }
  | { kind: 'burst'; who: number; where: number; count: number }
  | { kind: 'cut'; who: number; share: number }
  | { kind: 'connect'; who: number }
  | { kind: 'look'; who: number; where: number }

const who = fc.integer({ min: 0, max: 2 })
const where = fc.integer({ min: 0, max: 2 })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constantFrom('send', 'edit', 'recall', 'join', 'leave', 'remove'), who, where }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('burst' as const), who, where, count: fc.integer({ min: 2, max: 30 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('cut' as const), who, share: fc.integer({ min: 0, max: 10 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('connect' as const), who }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('look' as const), who, where }) },
)

/** Three users and their owner in three open conversations; whatever they do, and however their lines break. */
class Scene {
  readonly owner: User
  readonly devices: ForgetfulDevice[]
  readonly #world: World
  conversations: Conversation[] = []
  #running: Promise<unknown>[] = []

  constructor(world: World) {
    this.#world = world
    this.owner = world.user('owner')
    this.devices = world.users('a', 'b', 'c').map((user) => new ForgetfulDevice(user))
  }

  async begin(): Promise<void> {
    const users = this.devices.map(({ user }) => user)
    for (let n = 0; n < 3; n += 1) this.conversations.push(await this.owner.group(users, { joinPolicy: 'open' }))
    for (const device of this.devices) await device.connect()
  }

  async take(one: Step): Promise<void> {
    const device = this.devices[one.who]!
    if (one.kind === 'cut') return device.cut(one.share / 10)
    if (one.kind === 'connect') return device.device ? undefined : device.connect()
    const { conversationId } = this.conversations[one.where]!
    const path = `/v1/conversations/${conversationId}`
    const { user } = device
    const message = () => ({ clientMessageId: unique('m'), content: text('hello') })
    switch (one.kind) {
      case 'look':
        return device.device?.send({ type: 'active', conversationId })
      case 'burst':
        return void this.#running.push(...Array.from({ length: one.count }, () => this.owner.call('POST', `${path}/messages`, message())))
      case 'send':
        return void this.#running.push(user.call('POST', `${path}/messages`, message()))
      case 'join':
      case 'leave':
        return void (await user.call('POST', `${path}/${one.kind}`))
      case 'remove':
        return void (await this.owner.call('DELETE', `${path}/members/${user.id}`))
      case 'edit':
      case 'recall': {
        const { head } = await this.owner.get<{ head: number }>(path)
        const [method, body] = one.kind === 'edit' ? ['PATCH', { content: text('edited') }] : ['DELETE', undefined]
        return void (await this.owner.call(method, `${path}/messages/${head}`, body))
      }
    }
  }

  /** All have said what they wanted; every device is there and has what it is going to get. */
  async end(): Promise<void> {
    await Promise.all(this.#running)
    for (const device of this.devices) if (!device.device) await device.connect()
    // A last message in each, and a conversation of each user of its own: when that is here, so is all that was resumed.
    for (const conversation of this.conversations) await this.owner.send(conversation)
    for (const device of this.devices) {
      const { user } = device
      const own = await user.send(await user.group())
      await device.waitForSeq(own.conversationId, own.seq)
      for (const conversation of this.conversations) {
        const spell = await this.spells(conversation, user)
        await device.waitForSeq(conversation.conversationId, spell.at(-1)!.to)
      }
    }
  }

  /** From its joining to its leaving, or to the head. */
  async spells(conversation: Conversation, user: User): Promise<{ from: number; to: number; isOver: boolean }[]> {
    const spells: { from: number; to: number; isOver: boolean }[] = []
    const events = await this.owner.events(conversation)
    for (const { seq, type, data } of events) {
      if (type === 'ConversationCreated' || (type === 'MemberJoined' && data.userId === user.id))
        spells.push({ from: seq, to: events.length - 1, isOver: false })
      if ((type === 'MemberLeft' || type === 'MemberRemoved') && data.userId === user.id)
        Object.assign(spells.at(-1)!, { to: seq, isOver: true })
    }
    return spells
  }

  async judge(): Promise<void> {
    for (const device of this.devices) {
      for (const conversation of this.conversations) {
        const { conversationId } = conversation
        const spells = await this.spells(conversation, device.user)
        const had = device.events(conversationId)
        for (const seq of had.keys())
          expect(
            spells.some(({ from, to }) => from <= seq && seq <= to),
            `${seq} in ${JSON.stringify(spells)}`,
          ).toBe(true)
        // It was connected after the creation, and its hello was no resume.
        const { from, to, isOver } = spells.at(-1)!
        expect(device.notRecovered).toBe(0)
        if (isOver) expect([...had.keys()]).toContain(to)
        else expect(device.holes(conversationId, Math.max(from, 1), to)).toEqual([])
      }
    }
    expect(this.#world.violations()).toEqual([])
  }
}

describe('whatever happens, and wherever lines break, nobody misses a fact of its own or sees one that is not', () => {
  const runs = { numRuns: Number(process.env['RESUME_RUNS'] ?? 8), endOnFailure: true }
  const property = (world: () => World) =>
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 60, size: 'max' }), async (steps) => {
      const scene = new Scene(world())
      await scene.begin()
      for (const one of steps) await scene.take(one)
      await scene.end()
      await scene.judge()
    })

  describe('in small conversations', () => {
    const world = useServer()
    test('as events', () => fc.assert(property(world), runs))
  })

  describe('in large ones', () => {
    const world = useServer({ env: { FANOUT_ON_WRITE_MAX: '3' } })
    test('as events, or announced', () => fc.assert(property(world), runs))
  })
})
