/** A user as a fold of its own stream: profile, contacts, blocks, devices, and its marks on conversations. */
import { Map as PersistentMap, Set as PersistentSet } from 'immutable'
import { isSameJson } from '../canonical-json.js'
import { type Decision, decided, unchanged } from '../decision.js'
import { invalidField, notFound, unreachable } from '../errors.js'
import type { Fact, Profile, UserEvent } from '../events.js'

export interface InboxMarks {
  pinned: boolean
  muted: boolean
  /** The conversation's last ordinal when it was hidden, or null: a later message shows it again. */
  hiddenOrdinal: number | null
}

export interface UserState {
  profile: Profile | null
  contacts: PersistentSet<string>
  blocks: PersistentSet<string>
  devices: PersistentSet<string>
  /** deviceId → when it was revoked (ms): tokens issued before are refused. */
  revokedAt: PersistentMap<string, number>
  marks: PersistentMap<string, InboxMarks>
}

export type UserCommand =
  | { type: 'SetProfile'; profile: Profile }
  | { type: 'AddContact'; userId: string }
  | { type: 'RemoveContact'; userId: string }
  | { type: 'BlockUser'; userId: string }
  | { type: 'UnblockUser'; userId: string }
  | { type: 'SeeDevice'; deviceId: string }
  | { type: 'RevokeDevice'; deviceId: string }
  | { type: 'MarkInbox'; conversationId: string; pinned?: boolean; muted?: boolean; hidden?: boolean; lastOrdinal: number }

export const unknownUser: UserState = {
  profile: null,
  contacts: PersistentSet(),
  blocks: PersistentSet(),
  devices: PersistentSet(),
  revokedAt: PersistentMap(),
  marks: PersistentMap(),
}
const noMarks: InboxMarks = { pinned: false, muted: false, hiddenOrdinal: null }

/** Devices of one user; more are refused, so that a client that makes a new id at every start is found out. */
export const DEVICES_MAX = 1_000
/** Contacts and blocks of one user, each. */
export const RELATIONS_MAX = 10_000
/** Conversations that one user has pinned, muted or hidden. */
export const MARKED_CONVERSATIONS_MAX = 50_000

/** The state after one more event. */
export function evolveUser(state: UserState, event: Fact<UserEvent>): UserState {
  switch (event.type) {
    case 'UserRegistered':
    case 'ProfileChanged':
      return { ...state, profile: event.data }
    case 'ContactAdded':
      return { ...state, contacts: state.contacts.add(event.data.userId) }
    case 'ContactRemoved':
      return { ...state, contacts: state.contacts.delete(event.data.userId) }
    case 'UserBlocked':
      return { ...state, blocks: state.blocks.add(event.data.userId) }
    case 'UserUnblocked':
      return { ...state, blocks: state.blocks.delete(event.data.userId) }
    case 'DeviceSeen':
      return { ...state, devices: state.devices.add(event.data.deviceId) }
    case 'DeviceRevoked':
      return {
        ...state,
        devices: state.devices.delete(event.data.deviceId),
        revokedAt: state.revokedAt.set(event.data.deviceId, event.metadata.at),
      }
    case 'InboxMarked':
      return { ...state, marks: withMarks(state, event.data) }
    default:
      return unreachable(event)
  }
}

/** A conversation without any mark is not kept. */
function withMarks(state: UserState, data: Extract<UserEvent, { type: 'InboxMarked' }>['data']): UserState['marks'] {
  const marks = marked(state, data)
  const isMarked = marks.pinned || marks.muted || marks.hiddenOrdinal !== null
  return isMarked ? state.marks.set(data.conversationId, marks) : state.marks.delete(data.conversationId)
}

function marked(state: UserState, data: Extract<UserEvent, { type: 'InboxMarked' }>['data']): InboxMarks {
  const before = state.marks.get(data.conversationId) ?? noMarks
  return {
    pinned: data.pinned ?? before.pinned,
    muted: data.muted ?? before.muted,
    hiddenOrdinal: data.hidden === undefined ? before.hiddenOrdinal : data.hidden ? data.ordinal : null,
  }
}

/**
 * Decides one command of a user on itself.
 * @throws {Refusal}
 */
export function decideUser(state: UserState, command: UserCommand, selfId: string): Decision<UserEvent> {
  switch (command.type) {
    case 'SetProfile':
      if (isSameJson(command.profile, state.profile)) return unchanged
      return decided({ type: state.profile === null ? 'UserRegistered' : 'ProfileChanged', data: command.profile })
    case 'AddContact':
      return add(state.contacts, command.userId, selfId, 'ContactAdded')
    case 'RemoveContact':
      return state.contacts.has(command.userId) ? decided({ type: 'ContactRemoved', data: { userId: command.userId } }) : unchanged
    case 'BlockUser':
      return add(state.blocks, command.userId, selfId, 'UserBlocked')
    case 'UnblockUser':
      return state.blocks.has(command.userId) ? decided({ type: 'UserUnblocked', data: { userId: command.userId } }) : unchanged
    case 'SeeDevice':
      if (state.devices.has(command.deviceId)) return unchanged
      if (state.devices.size >= DEVICES_MAX)
        throw invalidField('deviceId', `a user has at most ${DEVICES_MAX} devices: delete old ones, and let each device keep its id`)
      return decided({ type: 'DeviceSeen', data: { deviceId: command.deviceId } })
    case 'RevokeDevice':
      if (!state.devices.has(command.deviceId)) throw notFound('device')
      return decided({ type: 'DeviceRevoked', data: { deviceId: command.deviceId } })
    case 'MarkInbox':
      return mark(state, command)
    default:
      return unreachable(command)
  }
}

function add(list: PersistentSet<string>, userId: string, selfId: string, type: 'ContactAdded' | 'UserBlocked'): Decision<UserEvent> {
  if (userId === selfId) throw invalidField('userId', 'must be somebody else')
  if (list.has(userId)) return unchanged
  if (list.size >= RELATIONS_MAX) throw invalidField('userId', `at most ${RELATIONS_MAX} are kept`)
  return decided({ type, data: { userId } })
}

function mark(state: UserState, command: Extract<UserCommand, { type: 'MarkInbox' }>): Decision<UserEvent> {
  const { conversationId, pinned, muted, hidden, lastOrdinal } = command
  const now = state.marks.get(conversationId) ?? noMarks
  const isHidden = now.hiddenOrdinal !== null && now.hiddenOrdinal >= lastOrdinal
  const changes = {
    ...(pinned === undefined || pinned === now.pinned ? {} : { pinned }),
    ...(muted === undefined || muted === now.muted ? {} : { muted }),
    ...(hidden === undefined || hidden === isHidden ? {} : { hidden }),
  }
  if (Object.keys(changes).length === 0) return unchanged
  if (state.marks.size >= MARKED_CONVERSATIONS_MAX && !state.marks.has(conversationId))
    throw invalidField('body', `at most ${MARKED_CONVERSATIONS_MAX} conversations are pinned, muted or hidden`)
  return decided({ type: 'InboxMarked', data: { conversationId, ...changes, ordinal: lastOrdinal } })
}

type UserJson = Omit<UserState, 'contacts' | 'blocks' | 'devices' | 'revokedAt' | 'marks'> & {
  contacts: string[]
  blocks: string[]
  devices: string[]
  revokedAt: [string, number][]
  marks: [string, InboxMarks][]
}

export const userToJson = (state: UserState): unknown =>
  ({
    ...state,
    contacts: [...state.contacts],
    blocks: [...state.blocks],
    devices: [...state.devices],
    revokedAt: [...state.revokedAt],
    marks: [...state.marks],
  }) satisfies UserJson

export function userFromJson(value: unknown): UserState {
  const json = value as UserJson
  return {
    profile: json.profile,
    contacts: PersistentSet(json.contacts),
    blocks: PersistentSet(json.blocks),
    devices: PersistentSet(json.devices),
    revokedAt: PersistentMap(json.revokedAt),
    marks: PersistentMap(json.marks),
  }
}
