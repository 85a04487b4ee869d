import { randomUUID } from 'node:crypto'
import type { IncomingMessage, Server } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { type Authenticator, type Identity, TokenRefusal } from '../domain/caller.js'
import type { Conversations } from '../domain/conversations.js'
import { Refusal, invalidField, isOutage, unavailable, unreachable } from '../domain/errors.js'
import type { EventStore, Position } from '../domain/event-store.js'
import type { Logger } from '../domain/logger.js'
import type { Users } from '../domain/users.js'
import { Origins } from '../origins.js'
import { withDeadline } from '../domain/waits.js'
import type { Account } from '../load/account.js'
import { REQUEST_UNITS, frameUnits, helloUnits, waitingFrameBytes } from '../load/costs.js'
import type { Load } from '../load/load.js'
import type { Turn } from '../load/turns.js'
import type { ReadQueries } from '../projections/read-models.js'
import { FRAGMENTS_MAX, FRAME_BYTES_MAX, PAGE_DEFAULT } from '../schemas/common.js'
import { Alarm } from './alarm.js'
import { type Answer, Connection, type FrameInHand, nobody } from './connection.js'
import { Cursors } from './cursors.js'
import { DeviceSocket } from './device-socket.js'
import type { Audience, LocalUser } from './audience.js'
import { type ClientFrame, type ClientFrames, closeCodes, eventsFrame, headFrame, textFrame } from './frames.js'
import { Handshakes, type HandshakesOptions } from './handshakes.js'
import { Hub } from './hub.js'
import { Outbox } from './outbox.js'
import { cuts } from './deliver.js'
import type { OnlineDevices, Session } from './online-devices.js'
import { LivePresence } from './presence.js'
import { type Missed, Resume } from './resume.js'
import type { Signals } from './signals.js'
import { TIMES, type Times } from './times.js'
import { Typing } from './typing.js'
import { UnackedEvents } from './unacked-events.js'
import { UNSENT_LOOK_MS, relieve } from './unsent.js'
import { refusalOfUpgrade, refuseUpgrade, serveWithoutUpgrade, wantsWebSocket } from './upgrade.js'

export const CONNECTIONS_PER_USER_MAX = 20
/** With its turn and all its look-ups; each of them has a deadline of its own. */
const HELLO_MS_MAX = 6_000
/** Looks for what is due, in a part of the time after which it is. */
const HEARTBEAT_TICKS = 30
const REPUSH_TICKS = 10
/** What an answer with facts has at most, so that no frame fills a socket by itself; the client asks for the rest. */
const ANSWER_BYTES_MAX = 256 * 1024
/** Devices are asked to leave one after the other over this time. */
const GOAWAY_SPREAD_MS = 2_000
/** A log that does not answer keeps no socket open when the server leaves. */
const CURSORS_FLUSH_MS_MAX = 1_000

export interface GatewayOptions {
  store: EventStore
  conversations: Conversations
  users: Users
  readModels: ReadQueries
  authenticator: Authenticator
  logger: Logger
  /** Budgets and turns, which the sockets share with REST. */
  load: Load
  /** Of this node, or of all. */
  online: OnlineDevices
  /** To and from other nodes. */
  signals: Signals
  fanoutOnWriteMembersMax: number
  framesPerSecond: number | undefined
  /** Bounds of sockets whose hello is not answered yet. */
  handshakes: HandshakesOptions
  /** Origins of browsers that may connect beside those of the request's host, see origins.ts. */
  allowedOrigins: readonly string[]
  /** Where clients reach the server, where it is said. */
  publicUrl?: string | undefined
  /** Where not the usual ones. */
  times?: Partial<Times> | undefined
}

type FrameAfterHello = Exclude<ClientFrame, { type: 'hello' }>

/** The WebSocket side: takes connections, answers their frames, and lets the hub deliver. */
export class Gateway {
  readonly hub: Hub
  readonly presence: LivePresence
  readonly #options: GatewayOptions
  readonly #times: Times
  readonly #server = new WebSocketServer({
    noServer: true,
    maxPayload: FRAME_BYTES_MAX,
    maxFragments: FRAGMENTS_MAX,
    WebSocket: DeviceSocket,
    perMessageDeflate: false,
    clientTracking: false,
    skipUTF8Validation: false,
  })
  readonly #origins: Origins
  readonly #connections = new Set<Connection>()
  readonly #outbox = new Outbox()
  readonly #handshakes: Handshakes
  readonly #cursors: Cursors
  readonly #resume: Resume
  readonly #typing: Typing
  readonly #expiries = new Map<Connection, Alarm>()
  readonly #timers: NodeJS.Timeout[] = []
  #isDraining = false

  constructor(options: GatewayOptions) {
    const { store, conversations, users, readModels, logger, online, signals, fanoutOnWriteMembersMax } = options
    this.#options = options
    this.#origins = new Origins(options.allowedOrigins)
    this.#times = { ...TIMES, ...options.times }
    this.hub = new Hub({
      store,
      readModels,
      logger,
      fanoutOnWriteMembersMax,
      loadState: (id) => conversations.stateOf(id),
      isMuted: async (userId, id) => (await users.load(userId)).state.marks.get(id)?.muted ?? false,
      isStillMember: (id, userId, joinedSeq) => conversations.reads.isStillMember(id, userId, joinedSeq),
      recallsAhead: conversations.recallsAhead,
    })
    this.presence = new LivePresence({
      online,
      users,
      readModels,
      connectionsOf: (userId) => this.hub.users.get(userId)?.connections ?? [],
      shareHere: (userId, otherId) => this.hub.shareConversation(userId, otherId),
      onError: (err) => logger.warn({ err }, 'a change of presence was not told'),
    })
    online.onReplaced = (session) => this.#makeWay(session)
    this.#server.on('wsClientError', (error, socket) =>
      refuseUpgrade(
        socket,
        { code: 'invalid_request', detail: `${error.message}.`, headers: { 'Sec-WebSocket-Version': '13' } },
        options.publicUrl,
      ),
    )
    this.#handshakes = new Handshakes(options.handshakes)
    this.#cursors = new Cursors(conversations, logger, this.#times.cursorsMs)
    this.#resume = new Resume({ store, conversations, readModels, hub: this.hub, fanoutOnWriteMembersMax })
    this.#typing = new Typing({ hub: this.hub, users, conversations, signals })
    this.hub.onUserEvent = (userId, event, at) => {
      if (event.type === 'DeviceRevoked') this.#closeDevice(userId, event.data.deviceId, event.data.upTo ?? at)
      else if (event.type === 'UserBlocked' || event.type === 'UserUnblocked') this.presence.blockChanged(userId, event.data.userId)
    }
  }

  get connectionCount(): number {
    return this.#connections.size
  }

  /** Begins to follow the log. */
  async start(): Promise<void> {
    await this.hub.start()
    const { heartbeatMs, repushAfterMs, stalledMs } = this.#times
    this.#timers.push(
      setInterval(() => this.#heartbeat(), heartbeatMs / HEARTBEAT_TICKS),
      setInterval(() => this.#repush(), repushAfterMs / REPUSH_TICKS),
      setInterval(() => relieve(this.#connections, performance.now(), stalledMs), UNSENT_LOOK_MS),
    )
  }

  /** Takes over the HTTP connections of a server that want to become WebSockets. */
  listen(server: Server): void {
    server.on('upgrade', (request, socket, head) => {
      if (wantsWebSocket(request)) this.#upgrade(request, socket, head)
      else serveWithoutUpgrade(server, request, socket, head)
    })
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    socket.on('error', () => socket.destroy())
    const refusal = refusalOfUpgrade(request, this.#origins)
    if (refusal) return refuseUpgrade(socket, refusal, this.#options.publicUrl)
    if (this.#isDraining)
      return refuseUpgrade(socket, { code: 'unavailable', detail: 'This node is leaving: connect again.' }, this.#options.publicUrl)
    const endHandshake = this.#handshakes.begin(this.#handshakes.addressOf(request))
    if (!endHandshake) {
      const detail = 'Too many connections here have not said hello yet: connect again in a moment.'
      return refuseUpgrade(socket, { code: 'rate_limited', detail }, this.#options.publicUrl)
    }
    socket.once('close', endHandshake)
    this.#server.handleUpgrade(request, socket, head, (ws) => this.open(ws, socket, endHandshake))
  }

  /** Tells every device to go, spread over a moment, and closes the sockets. The cursors that they moved are written if that can be done now. */
  async leave(): Promise<void> {
    this.#isDraining = true
    for (const timer of this.#timers) clearInterval(timer)
    const connections = [...this.#connections]
    for (const connection of connections)
      connection.sendJson({ type: 'goaway', reconnectAfterMs: Math.floor(Math.random() * GOAWAY_SPREAD_MS) })
    await this.#flushCursors()
    const pauseMs = connections.length > 1_000 ? GOAWAY_SPREAD_MS / 20 : 0
    for (let at = 0; at < connections.length; at += Math.ceil(connections.length / 20)) {
      for (const connection of connections.slice(at, at + Math.ceil(connections.length / 20)))
        connection.close(closeCodes.leaving, 'the server is leaving')
      if (pauseMs > 0) await delay(pauseMs)
    }
    await this.#flushCursors()
    // Their close frames have a moment to be answered.
    for (let waitedMs = 0; this.#connections.size > 0 && waitedMs < 1_000; waitedMs += 50) await delay(50)
    for (const connection of this.#connections) connection.terminate()
  }

  /** Ends the live feed. Who waits for it is told so. */
  async stop(): Promise<void> {
    this.#isDraining = true
    for (const timer of this.#timers) clearInterval(timer)
    await this.hub.stop()
  }

  async #flushCursors(): Promise<void> {
    await withDeadline(this.#cursors.flushAll(), CURSORS_FLUSH_MS_MAX, () => new Error('late')).catch(() => undefined)
  }

  // --- connections ---

  /** Serves a WebSocket whose upgrade is done. `onHello` is called when it is known who it is. */
  open(ws: WebSocket, socket: Duplex, onHello: () => void = () => {}): void {
    const { logger, framesPerSecond, conversations } = this.#options
    const connection = new Connection(ws, socket, {
      sessionId: randomUUID(),
      outbox: this.#outbox,
      logger,
      framesPerSecond,
      recallsAhead: conversations.recallsAhead,
      turns: this.#options.load.turns,
      handle: (from, frame, inHand) => this.#handle(from, frame, inHand),
    })
    this.#connections.add(connection)
    connection.onHello = onHello
    this.#expectHello(connection, this.#times.helloWithinMs)
    connection.onClose = () => this.#left(connection)
    ws.once('close', () => this.#connections.delete(connection))
  }

  #expectHello(connection: Connection, withinMs: number): void {
    if (connection.isOpen) this.#expireAt(connection, Date.now() + withinMs, closeCodes.noHello, 'hello must come within 10 s.')
  }

  /** One alarm a connection: first for `hello`, then for its token. */
  #expireAt(connection: Connection, at: number, closeCode: number, message: string): void {
    this.#expiries.get(connection)?.stop()
    this.#expiries.set(connection, new Alarm(at, () => connection.refuse(closeCode, { code: 'unauthenticated', message })))
  }

  #left(connection: Connection): void {
    this.#expiries.get(connection)?.stop()
    this.#expiries.delete(connection)
    if (connection.userId === '') return
    this.#cursors.flushOf(connection)
    this.hub.leave(connection)
    this.presence.disconnected(connection)
  }

  /** A socket whose token is newer was let in after the deletion. */
  #closeDevice(userId: string, deviceId: string, refusedUpTo: number): void {
    for (const connection of this.hub.users.get(userId)?.connections ?? []) {
      if (connection.deviceId === deviceId && (connection.issuedAt ?? 0) <= refusedUpTo)
        connection.refuse(closeCodes.deviceRevoked, { code: 'unauthenticated', message: 'This device was revoked.' })
    }
  }

  /** Each is pinged by its own clock, which began when it came: not all at once. */
  #heartbeat(): void {
    const now = performance.now()
    for (const connection of this.#connections) {
      connection.heartbeat(now, this.#times.heartbeatMs)
      connection.answerLate(now)
    }
  }

  #repush(): void {
    for (const connection of this.#connections) {
      if (!connection.unacked) continue
      const { events, heads } = connection.unacked.takeDue()
      for (const [conversationId, due] of events) void this.#sendAgain(connection, conversationId, due)
      for (const conversationId of heads.keys()) {
        const audience = this.hub.users.get(connection.userId)?.conversations.get(conversationId)?.audience
        if (audience) connection.send(headFrame(conversationId, audience.head, connection.resume))
      }
    }
  }

  /** Blanks what was recalled since. A former member gets again no more than that it is none. */
  async #sendAgain(connection: Connection, conversationId: string, due: readonly string[]): Promise<void> {
    try {
      const events = await this.#options.conversations.reads.encodedFor(connection.userId, conversationId, due)
      if (events.length === 0) return
      for (const { from, to } of cuts(events)) connection.send(eventsFrame(events.slice(from, to), connection.resume, true))
    } catch (error) {
      // It comes again when it is due again.
      if (!isOutage(error)) this.#options.logger.warn({ err: error, conversationId }, 'events were not sent again')
    }
  }

  // --- frames ---

  #handle(connection: Connection, frame: ClientFrame, inHand: FrameInHand): Answer {
    if (frame.type === 'hello') return this.#hello(connection, frame)
    const greeting = this.#greetings.get(connection)
    if (greeting) return greeting.then(() => this.#handle(connection, frame, inHand))
    const { account } = connection
    if (connection.userId === '' || !account) throw new Refusal('unauthenticated', 'hello must come first.')
    const units = frameUnits(frame, inHand.bytes)
    if (units === 0) return this.#work(connection, frame)
    this.#admitFrame(account, frame, units)
    inHand.turn = this.#options.load.turns.tryBegin(account, units)
    if (inHand.turn) return this.#work(connection, frame)
    return this.#waitForTurn(account, { units, bytes: inHand.bytes, isGone: () => !connection.isOpen }).then((turn) => {
      inHand.turn = turn
      return this.#work(connection, frame)
    })
  }

  /** The bound on frames counts small ones; what a frame weighs beyond that is charged, and a look at who is online wholly. */
  #admitFrame(account: Account, { type }: ClientFrame, units: number): void {
    const { load, framesPerSecond } = this.#options
    const isWeighed = type === 'presence.query' || type === 'presence.subscribe'
    const charged = isWeighed ? units : framesPerSecond === undefined ? 0 : units - REQUEST_UNITS
    if (charged > 0) return load.admit(account, charged)
    account.note(units)
    if (framesPerSecond !== undefined) load.requireCalm(account)
  }

  #work(connection: Connection, frame: FrameAfterHello): Answer {
    switch (frame.type) {
      case 'message.send':
        return this.#send(connection, frame)
      case 'message.edit':
        return this.#change(connection, frame.conversationId, { type: 'EditMessage', seq: frame.seq, content: frame.content })
      case 'message.recall':
        return this.#change(connection, frame.conversationId, { type: 'RecallMessage', seq: frame.seq })
      case 'reaction.add':
        return this.#change(connection, frame.conversationId, { type: 'AddReaction', seq: frame.seq, emoji: frame.emoji })
      case 'reaction.remove':
        return this.#change(connection, frame.conversationId, { type: 'RemoveReaction', seq: frame.seq, emoji: frame.emoji })
      case 'read':
        return this.#read(connection, frame)
      case 'ack':
        return this.#ack(connection, frame)
      case 'events.get':
        return this.#getEvents(connection, frame)
      case 'typing':
        return this.#typing.relay(connection, frame.conversationId, frame.on).then(() => undefined)
      case 'active':
        return this.#setActive(connection, frame)
      case 'presence.query':
        return this.presence.query(connection.userId, frame.userIds).then((items) => ({ items }))
      case 'presence.subscribe':
        return this.presence.subscribe(connection, frame.userIds ?? [], frame.contacts ?? false).then((items) => ({ items }))
      case 'ping':
        return undefined
      default:
        return unreachable(frame)
    }
  }

  #send({ actor, sessionId }: Connection, frame: ClientFrames['message.send']): Promise<object> {
    const { conversationId, clientMessageId, content, replyToSeq, mentions } = frame
    const command = {
      type: 'SendMessage' as const,
      clientMessageId,
      content,
      ...(replyToSeq === undefined ? {} : { replyToSeq }),
      ...(mentions === undefined ? {} : { mentions }),
    }
    return this.#options.conversations.send(conversationId, command, { actor, correlationId: `${sessionId}:${frame.ref}` })
  }

  async #change(
    { actor, sessionId }: Connection,
    conversationId: string,
    command: Parameters<Conversations['execute']>[1],
  ): Promise<object> {
    const { seq, position, unchanged } = await this.#options.conversations.execute(conversationId, command, {
      actor,
      correlationId: sessionId,
    })
    return unchanged ? { seq, position, unchanged } : { seq, position }
  }

  async #read(connection: Connection, { ref, conversationId, seq }: ClientFrames['read']): Promise<object | undefined> {
    const { actor, sessionId } = connection
    if (ref === undefined) {
      const { joinedSeq } = await this.#options.conversations.openUpTo(conversationId, actor.userId, seq)
      this.#cursors.read(connection, conversationId, seq, joinedSeq)
      return undefined
    }
    const { readSeq, position, unchanged, head } = await this.#options.conversations.markRead(conversationId, seq, {
      actor,
      correlationId: sessionId,
    })
    return unchanged ? { readSeq, position, unchanged, seq: head } : { readSeq, position }
  }

  async #ack(connection: Connection, { conversationId, seq }: ClientFrames['ack']): Promise<undefined> {
    const wasAwaited = connection.unacked?.acknowledge(conversationId, seq) ?? false
    // That it is no member any more arrives too, and is acknowledged: then there is no cursor to move.
    if (wasAwaited && !this.hub.users.get(connection.userId)?.conversations.has(conversationId)) return
    const { joinedSeq } = await this.#options.conversations.openUpTo(conversationId, connection.userId, seq)
    this.#cursors.delivered(connection, conversationId, seq, joinedSeq)
  }

  /** The facts are JSON text already: the answer is put together, not encoded anew. */
  async #getEvents(connection: Connection, { ref, conversationId, after, limit }: ClientFrames['events.get']): Promise<undefined> {
    const { items, head, more } = await this.#options.conversations.reads.events(
      conversationId,
      { userId: connection.userId },
      { after: after ?? -1, limit: limit ?? PAGE_DEFAULT, bytesMax: ANSWER_BYTES_MAX },
    )
    connection.send(textFrame(`{"type":"ok","ref":${ref},"events":[${items.join(',')}],"head":${head},"more":${more}}`))
  }

  #setActive(connection: Connection, { conversationId }: ClientFrames['active']): undefined | Promise<undefined> {
    const before = connection.activeConversationId
    connection.activeConversationId = conversationId
    if (conversationId === null) return
    const member = this.hub.users.get(connection.userId)?.conversations.get(conversationId)
    if (member) return this.#announceWhereLarge(connection, member.audience)
    return this.#requireMember(connection, conversationId).catch((error: unknown) => {
      if (connection.activeConversationId === conversationId) connection.activeConversationId = before
      throw error
    })
  }

  #announceWhereLarge(connection: Connection, audience: Audience): undefined {
    if (this.hub.isLarge(audience)) this.hub.announceHead(connection, audience)
  }

  /** Who has just joined may say so before the feed does. */
  async #requireMember(connection: Connection, conversationId: string): Promise<undefined> {
    const { position } = await this.#options.conversations.open(conversationId, { userId: connection.userId })
    await this.hub.reached(position)
    const audience = this.hub.audienceOf(conversationId)
    if (audience) this.#announceWhereLarge(connection, audience)
  }

  // --- hello ---

  /** Frames that come while a hello is still being answered wait for it. */
  readonly #greetings = new Map<Connection, Promise<void>>()
  /** Hellos that were refused because they took too long, and are being worked on: nothing may come of them any more. */
  readonly #lateHellos = new Set<Connection>()

  #hello(connection: Connection, frame: ClientFrames['hello']): Promise<undefined> {
    if (this.#lateHellos.has(connection)) throw unavailable('The last hello is not over yet: say it again in a moment.')
    if (connection.userId !== '' || this.#greetings.has(connection))
      throw new Refusal('invalid_request', 'hello was said already on this connection.')
    const greeting = this.#admit(connection, frame).finally(() => {
      this.#greetings.delete(connection)
      this.#lateHellos.delete(connection)
    })
    this.#greetings.set(
      connection,
      greeting.catch(() => {}),
    )
    return withDeadline(
      greeting.then(() => undefined),
      HELLO_MS_MAX,
      () => {
        this.#lateHellos.add(connection)
        return unavailable('hello can not be answered now: say it again.')
      },
    )
  }

  async #greet(connection: Connection, frame: ClientFrames['hello']): Promise<void> {
    // Before its turn: the keys of tokens may be another host's, and nobody else waits for that.
    const identity = await this.#authenticate(connection, frame)
    if (!identity) return
    const account = this.#options.load.ofUser(identity.userId)
    // A user who is connected here already has been looked up.
    const wasHere = this.hub.users.has(identity.userId)
    const units = helloUnits(wasHere ? 0 : account.conversations)
    this.#options.load.admit(account, units)
    const isGone = () => !connection.isOpen || this.#lateHellos.has(connection)
    const turn = this.#options.load.turns.tryBegin(account, units) ?? (await this.#waitForTurn(account, { units, bytes: 0, isGone }))
    try {
      await this.#greetUser(connection, frame, identity, account)
    } finally {
      this.#options.load.turns.end(turn)
      const user = this.hub.users.get(identity.userId)
      if (user) account.conversations = user.conversations.size
      if (!wasHere) this.#options.load.charge(account, helloUnits(account.conversations) - units)
    }
  }

  /** Waits for the turn of a frame of so many bytes. @throws {Refusal} it did not come in time, or nobody waits for it any more */
  #waitForTurn(account: Account, { units, bytes, isGone }: { units: number; bytes: number; isGone: () => boolean }): Promise<Turn> {
    return new Promise((resolve, reject) =>
      this.#options.load.turns.wait(account, { units, bytes: waitingFrameBytes(bytes), begin: resolve, isGone, drop: reject }),
    )
  }

  async #greetUser(
    connection: Connection,
    frame: ClientFrames['hello'],
    identity: Extract<Identity, { kind: 'user' }>,
    account: Account,
  ): Promise<void> {
    const { userId, issuedAt } = identity
    const deviceId = deviceOf(identity, frame.deviceId)
    if (await this.#options.authenticator.isRevoked(userId, deviceId, issuedAt)) return this.#refuseRevoked(connection, frame.ref)
    // One that has gone meanwhile is not worth remembering.
    if (!connection.isOpen) return
    if (frame.deviceId !== undefined || identity.deviceId !== null)
      await this.#options.users.devices.use(userId, deviceId, issuedAt, { actor: { userId }, correlationId: connection.sessionId })
    const position = frame.position !== undefined && (await this.#resume.isOfThisLog(frame.position)) ? frame.position : undefined
    Object.assign(connection, { actor: { userId }, account, deviceId, issuedAt })
    try {
      await this.#welcome(connection, frame, position)
    } catch (error) {
      // Nothing of it has happened: hello may be said again.
      this.hub.leave(connection)
      connection.turnAway()
      connection.actor = nobody
      throw error
    }
    if (connection.isOpen)
      this.#expireAt(connection, identity.expiresAt, closeCodes.tokenExpired, 'The token has expired: connect again with a new one.')
  }

  /**
   * When a node is lost, thousands say hello to the others at once. Each takes a few look-ups: more of them at once would only make
   * all late, so they take turns, and who has given up meanwhile is not worked for.
   */
  async #admit(connection: Connection, frame: ClientFrames['hello']): Promise<void> {
    // It has come in time; how long the answer takes is not the client's doing, but one that is refused wins no time.
    const expiry = this.#expiries.get(connection)
    const leftMs = (expiry?.at ?? 0) - Date.now()
    expiry?.stop()
    try {
      await this.#greet(connection, frame)
    } catch (error) {
      if (error instanceof Refusal && !error.temporary) return this.#refuseHello(connection, frame.ref, error)
      this.#expectHello(connection, leftMs)
      throw error
    }
  }

  /** The same `hello` would be refused again: the close code says what the client lacks. */
  #refuseHello(connection: Connection, ref: number, refusal: Refusal): void {
    const reason = refusal instanceof TokenRefusal ? refusal.reason : undefined
    const closeCode =
      reason === 'expired' ? closeCodes.tokenExpired : reason === 'revoked' ? closeCodes.deviceRevoked : closeCodes.tokenRefused
    connection.refuse(closeCode, { ref, code: refusal.code, message: refusal.message })
  }

  /** Undefined where the token cannot be verified now: the client comes back. @throws {Refusal} that would be met again */
  async #authenticate(
    connection: Connection,
    { ref, token }: ClientFrames['hello'],
  ): Promise<Extract<Identity, { kind: 'user' }> | undefined> {
    try {
      const identity = await this.#options.authenticator.authenticate(token)
      if (identity.kind === 'user') return identity
    } catch (error) {
      if (!(error instanceof Refusal && error.temporary)) throw error
      connection.refuse(closeCodes.leaving, { ref, code: error.code, message: error.message })
      return undefined
    }
    throw new Refusal('unauthenticated', "A WebSocket takes a user's token, not an app's secret.")
  }

  /** Attaches to the live feed and holds it back, answers, sends what was missed, lets go. */
  async #welcome(
    connection: Connection,
    { ref, position: asked, acks }: ClientFrames['hello'],
    position: Position | undefined,
  ): Promise<void> {
    connection.hold()
    const user = await this.hub.enter(connection)
    const missed = position === undefined ? undefined : await this.#resume.find(connection, user, position)
    // From `enter` on a revocation closes this socket; one before that is seen here.
    if (await this.#options.authenticator.isRevoked(connection.userId, connection.deviceId, connection.issuedAt))
      return this.#refuseRevoked(connection, ref)
    if (!connection.isOpen) return this.hub.leave(connection)
    if (this.#lateHellos.has(connection)) throw unavailable('It took too long.')
    if (missed) connection.skipResumed(connection.attached.merging)
    if (acks) connection.unacked = new UnackedEvents(this.#times.repushAfterMs)
    this.presence.connected(connection)
    this.#makeRoom(connection)
    const { sessionId, userId, deviceId, attached } = connection
    connection.resume = missed && position !== undefined ? position : attached.resume
    connection.onHello()
    connection.welcome({
      type: 'ok',
      ref,
      sessionId,
      userId,
      deviceId,
      position: connection.resume,
      recovered: asked === undefined || missed !== undefined,
      ...(asked === undefined || missed !== undefined ? {} : { reason: position === undefined ? 'other_log' : 'too_far' }),
      heartbeatMs: this.#times.heartbeatMs,
    })
    // Frames of the client are taken from here on; what was missed goes out beside their answers.
    if (missed && position !== undefined) void this.#sendMissed(connection, user, missed, position)
    else connection.release()
  }

  async #sendMissed(connection: Connection, user: LocalUser, missed: Missed, position: Position): Promise<void> {
    try {
      await this.#resume.send(connection, user, missed, position, connection.attached)
      connection.release()
    } catch (error) {
      if (!isOutage(error)) this.#options.logger.warn({ err: error, sessionId: connection.sessionId }, 'a resume broke off')
      connection.refuse(closeCodes.tooSlow, { code: 'unavailable', message: 'What was missed can not be read now: connect again.' })
    }
  }

  #refuseRevoked(connection: Connection, ref: number): void {
    connection.refuse(closeCodes.deviceRevoked, { ref, code: 'unauthenticated', message: 'This device was revoked: take a new token.' })
  }

  /** One connection a device, and a bounded number a user: the older ones make room. */
  #makeRoom(connection: Connection): void {
    const others = [...(this.hub.users.get(connection.userId)?.connections ?? [])].filter((other) => other !== connection)
    const sameDevice = others.filter((other) => other.deviceId === connection.deviceId)
    const rest = others.filter((other) => other.deviceId !== connection.deviceId)
    const surplus = rest.slice(0, Math.max(0, rest.length + 1 - CONNECTIONS_PER_USER_MAX))
    for (const old of [...sameDevice, ...surplus]) refuseReplaced(old)
  }

  /** The same, where the newer one is on another node. */
  #makeWay({ userId, sessionId }: Session): void {
    for (const connection of this.hub.users.get(userId)?.connections ?? [])
      if (connection.sessionId === sessionId) refuseReplaced(connection)
  }
}

function refuseReplaced(connection: Connection): void {
  connection.refuse(closeCodes.replaced, { code: 'invalid_request', message: 'A newer connection has taken the place of this one.' })
}

function deviceOf(identity: Extract<Identity, { kind: 'user' }>, asked: string | undefined): string {
  if (asked !== undefined && identity.deviceId !== null && asked !== identity.deviceId)
    throw invalidField('deviceId', "does not agree with the token's")
  return asked ?? identity.deviceId ?? `d-${randomUUID()}`
}
