import { evolve, noConversation, SNAPSHOT_VERSION, stateToJson } from '../../src/domain/conversation/state.js'
import type { EventStore } from '../../src/domain/event-store.js'
import type { ConversationEvent, Fact } from '../../src/domain/events.js'
import { conversationStream } from '../../src/domain/ids.js'
import { AnswerCheck, type Kind, type Request } from './answer-check.js'
import { Checks } from './checks.js'
import type { SimulatedDevice } from './device.js'
import { SimulatedNode } from './node.js'
import { OLD_CONVERSATION, addOldConversation } from './old-conversation.js'
import { Random } from './random.js'
import { SimulatedUser } from './user.js'
import { type Violation, World } from './world.js'

export interface RunOptions {
  seed: number
  /** Keeps what happened, line by line. */
  isTraced?: boolean
  /** Steps that are left out: for shrinking. */
  skipped?: ReadonlySet<number>
  /** Breaks the nodes' stores, to show that it is found. */
  sabotage?: (store: EventStore) => EventStore
}

export interface RunResult {
  seed: number
  steps: number
  /** Of the log. */
  events: number
  jobs: number
  virtualMs: number
  violations: readonly Violation[]
  trace: readonly string[]
}

/** Nobody waits for longer than this for anything. */
const RUN_MS_MAX = 20 * 60_000
/** What was asked last has its answer by then. */
const ANSWERS_WITHIN_MS = 40_000
const CALM_MS = 12_000
const CROWD = 1_000

type Deed =
  | Kind
  | 'connect'
  | 'cut'
  | 'resend'
  | 'conflict'
  | 'quietRead'
  | 'active'
  | 'slowReader'
  | 'burst'
  | 'logAway'
  | 'tablesStand'
  | 'tablesAway'
  | 'feedStands'
  | 'slowReads'
  | 'crash'
  | 'stop'
  | 'snapshot'

/** How often each thing happens. */
const weights: Record<Deed, number> = {
  send: 16,
  edit: 4,
  recall: 5,
  react: 2,
  unreact: 1,
  pin: 0.5,
  read: 6,
  add: 5,
  remove: 5,
  join: 2,
  leave: 2,
  update: 1,
  mark: 1,
  events: 9,
  messages: 6,
  message: 4,
  inbox: 5,
  unread: 2,
  receipts: 2,
  members: 1.5,
  conversation: 2,
  connect: 9,
  cut: 4,
  resend: 2,
  conflict: 0.7,
  quietRead: 4,
  active: 1,
  slowReader: 2,
  burst: 2,
  logAway: 1,
  tablesStand: 2.5,
  tablesAway: 0.7,
  feedStands: 2.5,
  slowReads: 3,
  crash: 0.8,
  stop: 0.4,
  snapshot: 1,
}

const deeds = Object.entries(weights) as [Deed, number][]

/**
 * Invariants that are not held yet, and why. `npm run simulate -- --with <kind>` holds them all the same.
 */
export const switchedOff: Readonly<Record<string, string>> = {
  'receipt-back': 'A resume sends the rows of receipts after newer live pushes.',
}

/** Which violations count: all but those of kinds that are switched off, unless they are asked for. */
export const isHeld =
  (asked: readonly string[] = []) =>
  ({ kind }: Violation): boolean =>
    !(kind in switchedOff) || asked.includes(kind) || asked.includes('all')

/** Runs one seed: the same seed gives the same run, to the last event. */
export async function run(options: RunOptions): Promise<RunResult> {
  const simulation = new Simulation(options)
  return simulation.run()
}

class Simulation {
  readonly #options: RunOptions
  readonly #world: World
  readonly #random: Random
  readonly #checks: Checks
  readonly #answers: AnswerCheck
  readonly #nodes: SimulatedNode[] = []
  readonly #users: SimulatedUser[] = []
  readonly #conversationIds: string[] = []
  readonly #fanoutOnWriteMembersMax: number
  readonly #slowness: number
  readonly #steps: number
  readonly #hasCrowd: boolean
  readonly #isOld: boolean
  #nodesMade = 0
  #messages = 0

  constructor(options: RunOptions) {
    this.#options = options
    this.#world = new World(options.seed, options.isTraced ?? false)
    this.#checks = new Checks(this.#world)
    this.#answers = new AnswerCheck(this.#world, this.#checks)
    const random = new Random(options.seed, 3)
    this.#random = random
    this.#hasCrowd = random.chance(0.02)
    this.#isOld = !this.#hasCrowd && random.chance(0.03)
    this.#fanoutOnWriteMembersMax = this.#hasCrowd ? 10 * CROWD : random.chance(0.15) ? 2 : 500
    this.#slowness = random.pick([0.02, 0.1, 0.3])
    this.#steps = 25 + random.int(45)
  }

  async run(): Promise<RunResult> {
    const world = this.#world
    world.clock.install()
    try {
      let isDone = false
      const playing = this.#play().then(
        () => {
          isDone = true
        },
        (error: unknown) => {
          isDone = true
          world.report('uncaught', String((error as Error).stack))
        },
      )
      if (!(await world.clock.run(() => isDone, RUN_MS_MAX))) world.report('stuck', 'the run did not come to its end')
      else await playing
    } finally {
      world.clock.uninstall()
    }
    return {
      seed: this.#options.seed,
      steps: this.#steps,
      events: world.log.events.length,
      jobs: world.clock.jobs,
      virtualMs: world.clock.now,
      violations: world.violations,
      trace: world.trace ?? [],
    }
  }

  async #play(): Promise<void> {
    await this.#prepare()
    for (let step = 0; step < this.#steps; step++) {
      // Each step has its own chance, so that one can be left out and the others stay as they are.
      const random = new Random(this.#options.seed, 100 + step)
      await this.#world.clock.delay(pauseMs(random))
      if (!this.#options.skipped?.has(step)) this.#step(random, step)
    }
    await this.#end()
  }

  // --- the beginning ---

  async #prepare(): Promise<void> {
    const { clock } = this.#world
    this.#world.onApplied = (position) => {
      for (const node of this.#nodes)
        clock.at(clock.now + this.#world.random.between(0, 5), () => {
          if (position > node.readModels.position) node.readModels.applied.set(position)
        })
    }
    if (this.#isOld) {
      addOldConversation(this.#world)
      this.#conversationIds.push(OLD_CONVERSATION)
      this.#world.tablesStandUntil = this.#random.between(1_000, 10_000)
    }
    const [first] = await Promise.all([this.#startNode(), this.#startNode()])
    const userCount = 3 + this.#random.int(2)
    for (let i = 0; i < userCount; i++) this.#users.push(this.#makeUser(`u${i}`))
    const memberIds = this.#users.slice(1).map(({ userId }) => userId)
    for (const joinPolicy of ['open', 'invite']) {
      const body = { type: 'group', memberIds: memberIds.filter(() => this.#random.chance(0.8)), joinPolicy }
      await this.#create(first, body)
    }
    if (this.#random.chance(0.3)) await this.#create(first, { type: 'direct', memberIds: [memberIds[0]!] })
    for (const node of this.#nodes) node.weather.isCalm = false
    for (const user of this.#users)
      for (const device of user.devices) if (this.#random.chance(0.7)) this.#connect(user, device, this.#random)
  }

  async #create(node: SimulatedNode, body: object): Promise<void> {
    const created = await node.rest.call({ method: 'POST', path: '/conversations', body, userId: 'u0' })
    this.#conversationIds.push((created as { conversationId: string }).conversationId)
  }

  #makeUser(userId: string): SimulatedUser {
    const parts = { world: this.#world, checks: this.#checks, answers: this.#answers }
    const user = new SimulatedUser(userId, 1 + this.#random.int(2), parts, this.#world.random, () => this.#pickNode(this.#world.random))
    for (const device of user.devices) device.isLazy = this.#hasCrowd || this.#random.chance(0.25)
    return user
  }

  async #startNode(): Promise<SimulatedNode> {
    this.#nodesMade += 1
    const { sabotage = (store) => store } = this.#options
    const options = { fanoutOnWriteMembersMax: this.#fanoutOnWriteMembersMax, slowness: this.#slowness, sabotage }
    const node = new SimulatedNode(`n${this.#nodesMade}`, this.#world, options)
    if (this.#users.length === 0) node.weather.isCalm = true
    this.#nodes.push(node)
    await node.start()
    return node
  }

  #pickNode(random: Random): SimulatedNode | undefined {
    const up = this.#nodes.filter(({ isUp }) => isUp)
    return up.length === 0 ? undefined : random.pick(up)
  }

  // --- steps ---

  #step(random: Random, step: number): void {
    const user = random.pick(this.#users)
    const device = random.pick(user.devices)
    const node = this.#pickNode(random)
    if (!node) return
    if (this.#hasCrowd && step === Math.floor(this.#steps / 2)) return this.#crowd(node)
    const deed = random.weighted(deeds)
    switch (deed) {
      case 'connect':
        return this.#connect(user, device, random)
      case 'cut':
        return device.cut(random.chance(0.8))
      case 'slowReader':
        return device.pause(random.between(10, 3_000))
      case 'active':
        return device.sayActive(random.chance(0.7) ? this.#pickConversation(user, random) : null)
      case 'quietRead': {
        const conversationId = this.#pickConversation(user, random)
        const seq = Math.max(0, this.#world.truth.headOf(conversationId) - (random.chance(0.5) ? 0 : random.int(4)))
        if (device.state === 'on') device.sayUnnumbered({ type: 'read', conversationId, seq })
        return
      }
      case 'burst': {
        const conversationId = this.#pickConversation(user, random)
        for (let left = 2 + random.int(6); left > 0; left--) this.#ask('send', user, device, node, random, conversationId)
        return
      }
      case 'logAway':
      case 'tablesStand':
      case 'tablesAway':
      case 'feedStands':
      case 'slowReads':
        return this.#changeWeather(deed, node, random)
      case 'crash':
        return this.#replace(node, false)
      case 'stop':
        return this.#replace(node, true)
      case 'snapshot':
        return this.#saveSnapshot(random)
      case 'resend':
      case 'conflict':
        return this.#resend(user, device, node, random, deed === 'conflict')
      default:
        return this.#ask(deed, user, device, node, random)
    }
  }

  #pickConversation(user: SimulatedUser, random: Random): string {
    const own = this.#conversationIds.filter((id) => this.#world.truth.isMember(id, user.userId))
    return random.pick(own.length === 0 || random.chance(0.15) ? this.#conversationIds : own)
  }

  #connect(user: SimulatedUser, device: SimulatedDevice, random: Random): void {
    const node = this.#pickNode(random)
    if (!node) return
    const position = random.chance(0.15) ? undefined : random.chance(0.7) ? device.positions.at(-1) : device.positions[0]
    device.connect(node, { position, acks: this.#hasCrowd || random.chance(0.5) })
    void user
  }

  #ask(
    kind: Kind,
    user: SimulatedUser,
    device: SimulatedDevice,
    node: SimulatedNode,
    random: Random,
    conversationId = this.#pickConversation(user, random),
  ): void {
    const { truth, clock } = this.#world
    const bySocket = device.state === 'on' && random.chance(0.6)
    const asked: Request = {
      kind,
      userId: user.userId,
      conversationId,
      at: clock.now,
      node: bySocket ? device.node! : node,
      way: bySocket ? 'socket' : 'rest',
    }
    const messages = truth.messagesOf(conversationId)
    const message = messages.length === 0 ? undefined : random.chance(0.5) ? messages.at(-1)! : random.pick(messages)
    const own = messages.filter(({ metadata }) => metadata.actor.userId === user.userId)
    const head = truth.headOf(conversationId)
    if (user.lastPosition !== undefined && random.chance(0.4)) asked.minPosition = user.lastPosition
    switch (kind) {
      case 'send':
        this.#messages += 1
        asked.clientMessageId = `m${this.#messages}`
        asked.content = { type: 'text', text: `${user.userId} says ${this.#messages}` }
        break
      case 'edit':
        if (own.length === 0) return
        asked.seq = random.pick(own).revision
        asked.content = { type: 'text', text: `edited ${random.int(1_000)}` }
        break
      case 'recall':
        if (own.length === 0) return
        asked.seq = random.chance(0.6) ? own.at(-1)!.revision : random.pick(own).revision
        break
      case 'react':
      case 'unreact':
      case 'pin':
      case 'message':
        if (!message) return
        asked.seq = message.revision
        break
      case 'read':
        asked.seq = random.chance(0.6) ? head : random.chance(0.9) ? random.int(head + 1) : head + 1 + random.int(3)
        break
      case 'add':
      case 'remove': {
        const others = this.#users.filter(({ userId }) => userId !== 'u0' && truth.isMember(conversationId, userId) === (kind === 'remove'))
        if (others.length === 0) return
        asked.subject = random.pick(others).userId
        asked.userId = 'u0'
        asked.way = 'rest'
        asked.node = node
        return this.#users[0]!.ask(asked)
      }
      case 'leave':
        if (user.userId === 'u0') return
        break
      case 'update':
        asked.clientMessageId = `note ${random.int(1_000)}`
        break
      case 'mark':
        asked.seq = random.int(2)
        break
      case 'events':
        asked.after = random.chance(0.3) ? -1 : Math.max(-1, head - 1 - random.int(8))
        asked.limit = random.chance(0.2) ? 3 : 200
        break
      case 'messages':
        asked.limit = random.chance(0.3) ? 3 : 200
        asked.bounds = boundsOf(random, head)
        break
      default:
    }
    if (bySocket && ['send', 'edit', 'recall', 'react', 'unreact', 'read', 'events'].includes(kind)) {
      delete asked.minPosition
      return user.ask(asked, device)
    }
    user.ask({ ...asked, node, way: 'rest' })
  }

  /** The same message once more, or another with its id. */
  #resend(user: SimulatedUser, device: SimulatedDevice, node: SimulatedNode, random: Random, isOther: boolean): void {
    const { truth, clock } = this.#world
    const conversationId = this.#pickConversation(user, random)
    const own = truth.messagesOf(conversationId).filter(({ metadata }) => metadata.actor.userId === user.userId)
    if (own.length === 0) return
    const { clientMessageId, content } = random.pick(own).data as { clientMessageId: string; content: object }
    const bySocket = device.state === 'on' && random.chance(0.5)
    user.ask(
      {
        kind: 'send',
        userId: user.userId,
        conversationId,
        at: clock.now,
        clientMessageId,
        node: bySocket ? device.node! : node,
        way: bySocket ? 'socket' : 'rest',
        content: isOther
          ? {
              type: 'text',
              text: 'another',
            }
          : content,
      },
      bySocket ? device : undefined,
    )
  }

  #changeWeather(
    deed: 'logAway' | 'tablesStand' | 'tablesAway' | 'feedStands' | 'slowReads',
    { weather, name }: SimulatedNode,
    random: Random,
  ): void {
    const { clock } = this.#world
    const until = clock.now + random.between(20, random.chance(0.3) ? 8_000 : 1_500)
    this.#world.note(`${name}: ${deed} until ${until.toFixed(0)}`)
    if (deed === 'tablesStand') this.#world.tablesStandUntil = until
    else if (deed === 'logAway') weather.logAwayUntil = until
    else if (deed === 'tablesAway') weather.tablesAwayUntil = until
    else if (deed === 'feedStands') weather.feedStandsUntil = until
    else weather.slowReadsUntil = until
  }

  /** A node ends, and another comes a moment later. */
  #replace(node: SimulatedNode, isOrderly: boolean): void {
    const { clock, random } = this.#world
    if (this.#nodes.filter(({ isUp }) => isUp).length < 2 && random.chance(0.7)) return
    if (isOrderly) void node.stop().then(() => this.#lose(node))
    else {
      node.crash()
      this.#lose(node)
    }
    clock.at(clock.now + random.between(1, 500), () => void this.#startNode())
  }

  #lose(node: SimulatedNode): void {
    this.#nodes.splice(this.#nodes.indexOf(node), 1)
    for (const user of this.#users) user.lose(node)
  }

  /** As of any moment: some node had it in memory then. */
  #saveSnapshot(random: Random): void {
    const conversationId = random.pick(this.#conversationIds)
    const events = this.#world.truth.eventsOf(conversationId)
    const kept = events.slice(0, 1 + random.int(events.length))
    const last = kept.at(-1)!
    const state = kept.reduce((folded, event) => evolve(folded, event as unknown as Fact<ConversationEvent>), noConversation)
    this.#world.snapshots.set(conversationStream(conversationId), {
      version: SNAPSHOT_VERSION,
      revision: last.revision,
      position: last.position,
      hash: last.metadata.hash,
      state: JSON.parse(JSON.stringify(stateToJson(state))),
    })
  }

  /** Somebody is removed from one group, and so much happens in another that what it was sent falls out of its window. */
  #crowd(node: SimulatedNode): void {
    const { clock, truth } = this.#world
    const [busy, other] = this.#conversationIds
    const victim = this.#users.slice(1).find(({ userId }) => truth.isMember(busy!, userId) && truth.isMember(other!, userId))
    if (!victim) return
    this.#world.note(`a crowd comes to ${other}`)
    const base = { userId: 'u0', node, way: 'rest', at: clock.now } as const
    this.#users[0]!.ask({ ...base, kind: 'remove', conversationId: busy!, subject: victim.userId })
    const userIds = Array.from({ length: CROWD }, (_, i) => `x${i}`)
    const add = { method: 'POST', path: '/conversations/:conversationId/members', params: { conversationId: other! } } as const
    void node.rest.call({ ...add, body: { userIds }, userId: 'u0' }).catch(() => {})
  }

  // --- the end ---

  async #end(): Promise<void> {
    const { clock } = this.#world
    this.#world.note('it becomes calm')
    this.#world.calmDown()
    for (const node of this.#nodes) node.weather.isCalm = true
    while (!this.#nodes.some(({ isUp }) => isUp)) {
      await clock.delay(100)
      for (const node of this.#nodes) node.weather.isCalm = true
    }
    const until = clock.now + ANSWERS_WITHIN_MS
    const isWaiting = ({ unsettled, open, devices }: SimulatedUser) =>
      unsettled.size > 0 || open.size > 0 || devices.some(({ isGreeting }) => isGreeting)
    while (clock.now < until && this.#users.some(isWaiting)) await clock.delay(500)
    this.#requireAnswers()
    await clock.delay(CALM_MS)
    for (const node of this.#nodes) node.weather.isCalm = true
    this.#requireComplete()
    await this.#resumeAll()
    await this.#readAll()
    for (const [key, seqs] of this.#world.truth.sent)
      if (seqs.length > 1) this.#world.report('sent-twice', `${key} is at ${seqs.join(' and ')}`)
    await Promise.all(this.#nodes.map((node) => node.stop()))
  }

  #requireAnswers(): void {
    for (const user of this.#users) {
      for (const request of user.open)
        this.#world.report('unanswered', `${request.kind} of ${user.userId} on ${request.node.name}, asked at ${request.at.toFixed(0)}`)
      for (const device of user.devices)
        if (device.isGreeting) this.#world.report('unanswered', `hello of ${user.userId}/${device.deviceId}`)
    }
  }

  #requireComplete(): void {
    for (const { devices } of this.#users)
      for (const device of devices) if (device.state === 'on' && device.node?.isUp) device.check!.complete()
  }

  /** Each device comes once more with what it has, on a node that it does not choose, and is whole then. */
  async #resumeAll(): Promise<void> {
    const { clock } = this.#world
    for (const user of this.#users) for (const device of user.devices) this.#connect(user, device, this.#random)
    const devices = this.#users.flatMap((user) => user.devices)
    const until = clock.now + ANSWERS_WITHIN_MS
    while (clock.now < until && devices.some(({ state }) => state === 'greeting')) await clock.delay(50)
    await clock.delay(2_000)
    this.#requireAnswers()
    this.#requireComplete()
  }

  async #readAll(): Promise<void> {
    const { truth, clock } = this.#world
    for (const user of this.#users) {
      const node = this.#pickNode(this.#random)!
      const base = { userId: user.userId, node, way: 'rest', at: clock.now, minPosition: this.#world.log.events.at(-1)!.position } as const
      user.ask({ ...base, kind: 'inbox', conversationId: this.#conversationIds[0]! })
      const [conversationId] = truth.conversationsOf(user.userId)
      if (conversationId === undefined) continue
      user.ask({ ...base, kind: 'events', conversationId, after: -1, limit: 200 })
      user.ask({ ...base, kind: 'messages', conversationId, limit: 200 })
    }
    await clock.delay(6_000)
    this.#requireAnswers()
  }
}

function pauseMs(random: Random): number {
  const luck = random.next()
  if (luck < 0.45) return random.between(0, 3)
  if (luck < 0.75) return random.between(3, 60)
  return luck < 0.93 ? random.between(60, 600) : random.between(600, 4_000)
}

function boundsOf(random: Random, head: number): NonNullable<Request['bounds']> {
  const seq = random.int(head + 2)
  const all: NonNullable<Request['bounds']>[] = [{}, {}, {}, { before: seq }, { after: seq }, { around: seq }, { pinned: true }]
  return random.pick(all)
}
