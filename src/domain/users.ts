import { type DevicePresenceSource, Devices } from './devices.js'
import { unavailable } from './errors.js'
import type { EventStore, Position, RecordedEvent } from './event-store.js'
import type { UserEvent } from './events.js'
import { userStream } from './ids.js'
import type { Logger } from './logger.js'
import type { SnapshotStore } from './snapshot-store.js'
import { type UserCommand, type UserState, decideUser, evolveUser, unknownUser, userFromJson, userToJson } from './user/user.js'
import { type Decider, type Folded, type Requester, Streams } from './write-path/streams.js'

const nothing = {}

/** A profile with its `custom` of up to 4 KiB is seldom that large. */
const STATE_BYTES = 1_024
/** An id in a persistent set or map, with what stands beside it. */
const ENTRY_BYTES = 200

const userDecider: Decider<UserState, { userId: string; wanted: UserCommand }, typeof nothing, UserEvent> = {
  initial: unknownUser,
  streamOf: userStream,
  evolve: evolveUser,
  decide: (state, { userId, wanted }) => decideUser(state, wanted, userId),
  isCurrent: () => true,
  weightOf: ({ contacts, blocks, devices, refusedUpTo, marks }) =>
    STATE_BYTES + (contacts.size + blocks.size + devices.size + refusedUpTo.size + marks.size) * ENTRY_BYTES,
  snapshotVersion: 2,
  toJson: userToJson,
  fromJson: userFromJson,
}

export interface UsersOptions {
  store: EventStore
  snapshots: SnapshotStore
  logger: Logger
  cacheWeightMax: number
  isShared?: boolean
  /** Which devices have been offline longest. Default: in the order in which they appeared. */
  presence?: DevicePresenceSource
  now?: () => number
}

/** Users: profiles, contacts, blocks, devices and their marks on conversations. */
export class Users {
  readonly #streams: Streams<UserState, { userId: string; wanted: UserCommand }, typeof nothing, UserEvent>
  readonly #store: EventStore
  readonly #isShared: boolean
  readonly devices: Devices

  constructor({ presence, now = Date.now, ...options }: UsersOptions) {
    this.#store = options.store
    this.#isShared = options.isShared ?? false
    this.#streams = new Streams({ ...options, now, decider: userDecider, prepare: () => nothing })
    this.devices = new Devices({ users: this, presence, logger: options.logger, now })
  }

  /** What is known of a user; everybody is a user, also one that nothing was ever said of. @throws {Refusal} unavailable */
  load(userId: string): Folded<UserState> | Promise<Folded<UserState>> {
    return this.#streams.load(userId)
  }

  /** The same as of the end of its stream, whoever wrote there. @throws {Refusal} unavailable */
  async loadLatest(userId: string): Promise<Folded<UserState>> {
    if (!this.#isShared) return this.load(userId)
    const requester = { actor: { userId }, correlationId: '' }
    return (await this.#streams.execute(userId, { userId, wanted: { type: 'LookUp' } }, requester)).folded
  }

  /** Decides a user's command on itself; `position` is where reads can wait for it. @throws {Refusal} */
  async execute(
    userId: string,
    command: UserCommand,
    requester: Requester,
  ): Promise<{ position: Position; unchanged: boolean; state: UserState; revision: number }> {
    const { kind, folded } = await this.#streams.execute(userId, { userId, wanted: command }, requester)
    return {
      position: folded.position || (await this.#head()),
      unchanged: kind === 'unchanged',
      state: folded.state,
      revision: folded.revision,
    }
  }

  async #head(): Promise<Position> {
    try {
      return await this.#store.head()
    } catch (error) {
      throw unavailable('The log can not be read now: send the same again.', error)
    }
  }

  /** Whether one of the two has blocked the other; at once where both are in memory. */
  isBlockBetween(one: string, other: string): boolean | Promise<boolean> {
    const [left, right] = [this.load(one), this.load(other)]
    if (left instanceof Promise || right instanceof Promise) return Promise.all([left, right]).then(([a, b]) => hasBlock(a, b, one, other))
    return hasBlock(left, right, one, other)
  }

  /** Keeps what is in memory current with other nodes. */
  follow(userId: string, event: RecordedEvent): void {
    this.#streams.follow(userId, event)
    if (event.type === 'DeviceRevoked') this.devices.followRevocation(userId, event)
  }

  close(): Promise<void> {
    this.devices.close()
    return this.#streams.close()
  }
}

const hasBlock = (left: Folded<UserState>, right: Folded<UserState>, one: string, other: string) =>
  left.state.blocks.has(other) || right.state.blocks.has(one)
