/** A user as a fold of its own stream: profile, contacts, blocks, devices, and its marks on conversations. */
import { OrderedSet, Map as PersistentMap } from 'immutable'
import { isSameJson } from '../canonical-json.js'
import { type Decision, decided, unchanged } from '../decision.js'
import { invalidField, unreachable } from '../errors.js'
import type { Fact, Profile, UserEvent } from '../events.js'
import { IdSet } from '../id-map.js'

export interface InboxMarks {
  pinned: boolean
  muted: boolean
  /** The conversation's last ordinal when it was hidden, or null: a later message shows it again. */
  hiddenOrdinal: number | null
}

export interface UserState {
  profile: Profile | null
  contacts: IdSet
  blocks: IdSet
  /** In the order in which they appeared. */
  devices: OrderedSet<string>
  /** deviceId → up to which time of issue (ms) its tokens are refused. */
  refusedUpTo: PersistentMap<string, number>
  /** The same for every device that is neither on the list nor in `refusedUpTo`, which is bounded; 0: none is refused. */
  othersRefusedUpTo: number
  marks: PersistentMap<string, InboxMarks>
}

export type UserCommand =
  | { type: 'SetProfile'; profile: Profile }
  | { type: 'AddContact'; userId: string }
  | { type: 'RemoveContact'; userId: string }
  | { type: 'BlockUser'; userId: string }
  | { type: 'UnblockUser'; userId: string }
  /** `longestOffline`: devices that may leave the list where it is full, the first that is still on it. */
  | { type: 'SeeDevice'; deviceId: string; longestOffline: readonly string[] }
  /** `shownUpTo`: the time of issue (ms) of the newest token that it has shown; 0: none. */
  | { type: 'RevokeDevice'; deviceId: string; shownUpTo: number; now: number }
  | { type: 'RefuseTokens'; deviceId: string; upTo: number }
  /** Changes nothing: the answer has the state as of the stream's end. */
  | { type: 'LookUp' }
  | { type: 'MarkInbox'; conversationId: string; pinned?: boolean; muted?: boolean; hidden?: boolean; lastOrdinal: number }

export const unknownUser: UserState = {
  profile: null,
  contacts: IdSet.of(),
  blocks: IdSet.of(),
  devices: OrderedSet(),
  refusedUpTo: PersistentMap(),
  othersRefusedUpTo: 0,
  marks: PersistentMap(),
}
const noMarks: InboxMarks = { pinned: false, muted: false, hiddenOrdinal: null }

/** Devices on one user's list, and deleted ones beside it of which each is known by itself. */
export const DEVICES_MAX = 1_000
/** A deletion that is said again within this time is the same one. */
const SAME_DELETION_MS = 60_000
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
      return withDevice(state, event.data)
    case 'DeviceRevoked':
      return withoutDevice(state, event.data.deviceId, event.data.upTo ?? event.metadata.at)
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

/** A device whose own deletion may be among those that were folded into one keeps that one as its own while it is on the list. */
function withDevice(state: UserState, { deviceId, replaced }: { deviceId: string; replaced?: string }): UserState {
  const rest = replaced === undefined ? state : withoutReplaced(state, replaced)
  const upTo = refusedUpTo(rest, deviceId)
  return {
    ...rest,
    devices: rest.devices.add(deviceId),
    refusedUpTo: upTo === undefined ? rest.refusedUpTo : rest.refusedUpTo.set(deviceId, upTo),
  }
}

/** Off the list, the deletion of all others says the same as one that is kept from it: else every device that is seen would leave one. */
function withoutReplaced(state: UserState, deviceId: string): UserState {
  const isSaidByOthers = state.refusedUpTo.get(deviceId) === state.othersRefusedUpTo
  return {
    ...state,
    devices: state.devices.delete(deviceId),
    refusedUpTo: isSaidByOthers ? state.refusedUpTo.delete(deviceId) : state.refusedUpTo,
  }
}

function withoutDevice(state: UserState, deviceId: string, upTo: number): UserState {
  const devices = state.devices.delete(deviceId)
  const refused = state.refusedUpTo.set(deviceId, Math.max(upTo, refusedUpTo(state, deviceId) ?? 0))
  return { ...state, devices, ...bounded(refused, devices, state.othersRefusedUpTo) }
}

/** What is refused is never forgotten: the oldest deletion beyond the bound becomes one for all devices that are not on the list. */
function bounded(
  refused: UserState['refusedUpTo'],
  devices: UserState['devices'],
  othersRefusedUpTo: number,
): Pick<UserState, 'refusedUpTo' | 'othersRefusedUpTo'> {
  if (refused.size <= DEVICES_MAX) return { refusedUpTo: refused, othersRefusedUpTo }
  const gone = [...refused].filter(([deviceId]) => !devices.has(deviceId))
  const surplus = gone.sort(([, one], [, other]) => one - other).slice(0, Math.max(0, gone.length - DEVICES_MAX))
  return {
    refusedUpTo: refused.deleteAll(surplus.map(([deviceId]) => deviceId)),
    othersRefusedUpTo: Math.max(othersRefusedUpTo, surplus.at(-1)?.[1] ?? 0),
  }
}

/** Up to which time of issue (ms) the tokens of a device are refused; undefined: none is. */
export function refusedUpTo(state: UserState, deviceId: string): number | undefined {
  const own = state.refusedUpTo.get(deviceId)
  if (own !== undefined || state.othersRefusedUpTo === 0 || state.devices.has(deviceId)) return own
  return state.othersRefusedUpTo
}

/** The same over all devices: a token without a device may be shown by any. */
export const newestRefusedUpTo = (state: UserState): number => Math.max(state.othersRefusedUpTo, ...state.refusedUpTo.values())

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
      return seeDevice(state, command)
    case 'RevokeDevice':
      return revokeDevice(state, command)
    case 'RefuseTokens':
      if ((refusedUpTo(state, command.deviceId) ?? 0) >= command.upTo) return unchanged
      return decided({ type: 'DeviceRevoked', data: { deviceId: command.deviceId, upTo: command.upTo } })
    case 'LookUp':
      return unchanged
    case 'MarkInbox':
      return mark(state, command)
    default:
      return unreachable(command)
  }
}

function seeDevice({ devices }: UserState, { deviceId, longestOffline }: Extract<UserCommand, { type: 'SeeDevice' }>): Decision<UserEvent> {
  if (devices.has(deviceId)) return unchanged
  if (devices.size < DEVICES_MAX) return decided({ type: 'DeviceSeen', data: { deviceId } })
  const replaced = longestOffline.find((id) => devices.has(id)) ?? devices.first()!
  return decided({ type: 'DeviceSeen', data: { deviceId, replaced } })
}

function revokeDevice(state: UserState, { deviceId, shownUpTo, now }: Extract<UserCommand, { type: 'RevokeDevice' }>): Decision<UserEvent> {
  const before = state.refusedUpTo.get(deviceId)
  const isSaidAgain = before !== undefined && before >= shownUpTo && now - before < SAME_DELETION_MS
  if (isSaidAgain && !state.devices.has(deviceId)) return unchanged
  return decided({ type: 'DeviceRevoked', data: { deviceId, ...(shownUpTo > now ? { upTo: shownUpTo } : {}) } })
}

function add(list: IdSet, userId: string, selfId: string, type: 'ContactAdded' | 'UserBlocked'): Decision<UserEvent> {
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

type UserJson = Omit<UserState, 'contacts' | 'blocks' | 'devices' | 'refusedUpTo' | 'marks'> & {
  contacts: string[]
  blocks: string[]
  devices: string[]
  refusedUpTo: [string, number][]
  marks: [string, InboxMarks][]
}

export const userToJson = (state: UserState): unknown =>
  ({
    ...state,
    contacts: [...state.contacts],
    blocks: [...state.blocks],
    devices: [...state.devices],
    refusedUpTo: [...state.refusedUpTo],
    marks: [...state.marks],
  }) satisfies UserJson

export function userFromJson(value: unknown): UserState {
  const json = value as UserJson
  return {
    profile: json.profile,
    contacts: IdSet.of(json.contacts),
    blocks: IdSet.of(json.blocks),
    devices: OrderedSet(json.devices),
    refusedUpTo: PersistentMap(json.refusedUpTo),
    othersRefusedUpTo: json.othersRefusedUpTo,
    marks: PersistentMap(json.marks),
  }
}
