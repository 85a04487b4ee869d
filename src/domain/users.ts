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
  weightOf: ({ contacts, blocks, devices, revokedAt, marks }) =>
    STATE_BYTES + (contacts.size + blocks.size + devices.size + revokedAt.size + marks.size) * ENTRY_BYTES,
  snapshotVersion: 1,
  toJson: userToJson,
  fromJson: userFromJson,
}

/** Users: profiles, contacts, blocks, devices and their marks on conversations. */
export class Users {
  readonly #streams: Streams<UserState, { userId: string; wanted: UserCommand }, typeof nothing, UserEvent>
  readonly #store: EventStore

  constructor(options: { store: EventStore; snapshots: SnapshotStore; logger: Logger; cacheWeightMax: number; isShared?: boolean }) {
    this.#store = options.store
    this.#streams = new Streams({ ...options, decider: userDecider, prepare: () => nothing })
  }

  /** What is known of a user; everybody is a user, also one that nothing was ever said of. @throws {Refusal} unavailable */
  load(userId: string): Folded<UserState> | Promise<Folded<UserState>> {
    return this.#streams.load(userId)
  }

  /** Decides a user's command on itself; `position` is where reads can wait for it. @throws {Refusal} */
  async execute(
    userId: string,
    command: UserCommand,
    requester: Requester,
  ): Promise<{ position: Position; unchanged: boolean; state: UserState }> {
    const { kind, folded } = await this.#streams.execute(userId, { userId, wanted: command }, requester)
    return { position: folded.position || (await this.#head()), unchanged: kind === 'unchanged', state: folded.state }
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
  }

  close(): Promise<void> {
    return this.#streams.close()
  }
}

const hasBlock = (left: Folded<UserState>, right: Folded<UserState>, one: string, other: string) =>
  left.state.blocks.has(other) || right.state.blocks.has(one)
