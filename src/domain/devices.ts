/** Which devices users have, and which of their tokens are refused. */
import { setTimeout as delay } from 'node:timers/promises'
import { lruMap } from './lru-map.js'
import { isOutage } from './errors.js'
import { NO_STREAM, type Position, type RecordedEvent } from './event-store.js'
import type { UserEvent } from './events.js'
import type { Logger } from './logger.js'
import { DEVICES_MAX, type UserCommand, type UserState, newestRefusedUpTo, refusedUpTo } from './user/user.js'
import type { Folded, Requester } from './write-path/streams.js'

/** Says of each device since when it has been offline; asked only where a user has as many as there may be. */
export interface DevicePresenceSource {
  /** In the order asked. @throws {Refusal} unavailable */
  findDevices(userId: string, deviceIds: readonly string[]): Promise<{ online: boolean; lastSeenAt: number | null }[]>
}

/** What is needed of the streams of users. */
export interface UserStreams {
  load(userId: string): Folded<UserState> | Promise<Folded<UserState>>
  loadLatest(userId: string): Promise<Folded<UserState>>
  execute(userId: string, command: UserCommand, requester: Requester): Promise<{ position: Position; unchanged: boolean; revision: number }>
}

export interface DevicesOptions {
  users: UserStreams
  presence: DevicePresenceSource | undefined
  logger: Logger
  now: () => number
}

interface Shown {
  /** Of the newest token (ms). */
  issuedAt: number
  /** The user's stream as of then; undefined while that is being looked up. */
  revision: number | undefined
  noting: Promise<void> | undefined
}

/** Devices whose newest token is remembered. One that is forgotten matters only while clocks differ. */
const SHOWN_MAX = 20_000
/** Offered for leaving the list: some may have left it meanwhile. */
const CANDIDATES_MAX = 10
const FOLLOW_UP_TRIES_MAX = 10
const FOLLOW_UP_PAUSE_MS = 1_000

type Revocation = Extract<UserEvent, { type: 'DeviceRevoked' }>['data']

/**
 * Remembers the newest token that each device has shown to this node, and at which revision of the user's stream. A deletion
 * refuses tokens up to its own time; a token that came before it and claims to be newer was dated by another clock. The node
 * that deletes knows those that it has seen itself. Every other node compares the deletion with those that it has seen: what it
 * saw at an earlier revision is refused too, by a second event.
 */
export class Devices {
  readonly #options: DevicesOptions
  readonly #shown = lruMap<string, Shown>(SHOWN_MAX)
  readonly #stopping = new AbortController()

  constructor(options: DevicesOptions) {
    this.#options = options
  }

  /** Up to which time of issue (ms) the tokens of a device are refused; undefined: none is. @throws {Refusal} unavailable */
  refusedUpTo(userId: string, deviceId: string): number | undefined | Promise<number | undefined> {
    const loading = this.#options.users.load(userId)
    if (loading instanceof Promise) return loading.then(({ state }) => refusedUpTo(state, deviceId))
    return refusedUpTo(loading.state, deviceId)
  }

  /**
   * Notes that a device has shown a token, and puts it on its user's list; undefined where it is there already.
   * @throws {Refusal}
   */
  use(userId: string, deviceId: string, issuedAt: number | null, requester: Requester): Promise<void> | undefined {
    const key = keyOf(userId, deviceId)
    const known = this.#shown.get(key)
    const isNoted = known !== undefined && known.issuedAt >= (issuedAt ?? 0)
    const loading = this.#options.users.load(userId)
    const isListed = !(loading instanceof Promise) && loading.state.devices.has(deviceId)
    if (isNoted && isListed) return undefined
    if (isNoted && known.noting) return known.noting
    const shown: Shown = { issuedAt: Math.max(issuedAt ?? 0, known?.issuedAt ?? 0), revision: undefined, noting: undefined }
    this.#shown.set(key, shown)
    shown.noting = this.#note(userId, deviceId, shown, requester).finally(() => (shown.noting = undefined))
    if (!isListed) return shown.noting
    shown.noting.catch((error: unknown) => this.#report(error))
    return undefined
  }

  /** Refuses the tokens that a device has now, whether it is on the list or not. @throws {Refusal} unavailable */
  revoke(userId: string, deviceId: string, requester: Requester): ReturnType<UserStreams['execute']> {
    const shownUpTo = this.#shown.get(keyOf(userId, deviceId))?.issuedAt ?? 0
    return this.#options.users.execute(userId, { type: 'RevokeDevice', deviceId, shownUpTo, now: this.#options.now() }, requester)
  }

  /** When a token (ms) that is made now must say that it was issued, so that no deletion before refuses it. */
  async issueTime(userId: string, deviceId: string | undefined): Promise<number> {
    const now = this.#options.now()
    try {
      const { state } = await this.#options.users.loadLatest(userId)
      const upTo = deviceId === undefined ? newestRefusedUpTo(state) : refusedUpTo(state, deviceId)
      return Math.max(now, (upTo ?? 0) + 1)
    } catch (error) {
      if (!isOutage(error)) throw error
      return now
    }
  }

  /** Takes a deletion from the feed. */
  followRevocation(userId: string, event: RecordedEvent): void {
    const { deviceId, upTo } = event.data as Revocation
    const shown = this.#shown.get(keyOf(userId, deviceId))
    if (!shown || shown.issuedAt <= (upTo ?? event.metadata.at)) return
    void this.#refuseShown(userId, deviceId, shown, event)
  }

  close(): void {
    this.#stopping.abort()
  }

  async #note(userId: string, deviceId: string, shown: Shown, requester: Requester): Promise<void> {
    const { users } = this.#options
    const { state } = await users.load(userId)
    const longestOffline = await this.#findLongestOffline(userId, deviceId, state)
    const { revision } = await users.execute(userId, { type: 'SeeDevice', deviceId, longestOffline }, requester)
    shown.revision = revision
  }

  async #findLongestOffline(userId: string, deviceId: string, { devices }: UserState): Promise<readonly string[]> {
    const { presence } = this.#options
    if (presence === undefined || devices.has(deviceId) || devices.size < DEVICES_MAX) return []
    const deviceIds = [...devices]
    const states = await presence.findDevices(userId, deviceIds).catch((error: unknown) => this.#report(error))
    return deviceIds
      .map((id, i) => ({ id, online: states?.[i]?.online ?? false, lastSeenAt: states?.[i]?.lastSeenAt ?? 0 }))
      .filter(({ online }) => !online)
      .sort((one, other) => one.lastSeenAt - other.lastSeenAt)
      .slice(0, CANDIDATES_MAX)
      .map(({ id }) => id)
  }

  async #refuseShown(userId: string, deviceId: string, shown: Shown, { revision, metadata }: RecordedEvent): Promise<void> {
    await shown.noting?.catch(() => {})
    if ((shown.revision ?? NO_STREAM) >= revision) return
    const { actor, correlationId } = metadata
    const { signal } = this.#stopping
    for (let tries = 1; !signal.aborted; tries += 1) {
      try {
        await this.#options.users.execute(userId, { type: 'RefuseTokens', deviceId, upTo: shown.issuedAt }, { actor, correlationId })
        return
      } catch (error) {
        if (tries === FOLLOW_UP_TRIES_MAX)
          return this.#options.logger.error({ err: error, userId }, 'tokens of a deleted device go on working')
        await delay(FOLLOW_UP_PAUSE_MS * (0.5 + Math.random()), undefined, { signal }).catch(() => {})
      }
    }
  }

  #report(error: unknown): undefined {
    if (!isOutage(error)) this.#options.logger.warn({ err: error }, 'a device was not noted')
  }
}

const keyOf = (userId: string, deviceId: string) => `${userId} ${deviceId}`
