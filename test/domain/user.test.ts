import { isDeepStrictEqual } from 'node:util'
import { describe, expect, test } from 'vitest'
import type { UserEvent } from '../../src/domain/events.js'
import {
  DEVICES_MAX,
  RELATIONS_MAX,
  type UserCommand,
  evolveUser,
  refusedUpTo,
  userFromJson,
  userToJson,
} from '../../src/domain/user/user.js'
import { givenAnna, userAfter } from '../support/given-user.js'

const profile = { name: 'Anna', avatarUrl: null, custom: { team: { x: 1, y: 2 } } }
const registered: UserEvent = { type: 'UserRegistered', data: profile }
const contact: UserEvent = { type: 'ContactAdded', data: { userId: 'ben' } }
const noContact: UserEvent = { type: 'ContactRemoved', data: { userId: 'ben' } }
const blocked: UserEvent = { type: 'UserBlocked', data: { userId: 'ben' } }
const unblocked: UserEvent = { type: 'UserUnblocked', data: { userId: 'ben' } }
const seen: UserEvent = { type: 'DeviceSeen', data: { deviceId: 'phone' } }
const revoked: UserEvent = { type: 'DeviceRevoked', data: { deviceId: 'phone' } }
const marked = (marks: object, ordinal = 3): UserEvent => ({ type: 'InboxMarked', data: { conversationId: 'c', ...marks, ordinal } })
const mark = (marks: { pinned?: boolean; muted?: boolean; hidden?: boolean }, lastOrdinal = 3): UserCommand => ({
  type: 'MarkInbox',
  conversationId: 'c',
  ...marks,
  lastOrdinal,
})

describe('a profile', () => {
  test('the first registers the user', () => givenAnna().when({ type: 'SetProfile', profile }).thenEvents(registered))
  test('another changes it, as a whole', () => {
    const other = { name: null, avatarUrl: 'https://a.b/c', custom: {} }
    givenAnna(registered).when({ type: 'SetProfile', profile: other }).thenEvents({ type: 'ProfileChanged', data: other })
    expect(userAfter(registered, { type: 'ProfileChanged', data: other }).profile).toEqual(other)
  })
  test('the same is unchanged, whatever the order of its keys', () =>
    givenAnna(registered)
      .when({ type: 'SetProfile', profile: { custom: { team: { y: 2, x: 1 } }, avatarUrl: null, name: 'Anna' } })
      .thenUnchanged())
  test('a contact before it does not register the user', () =>
    givenAnna(contact).when({ type: 'SetProfile', profile }).thenEvents(registered))
})

describe.each([
  { what: 'a contact', on: 'AddContact', off: 'RemoveContact', added: contact, removed: noContact },
  { what: 'a block', on: 'BlockUser', off: 'UnblockUser', added: blocked, removed: unblocked },
] as const)('$what', ({ on, off, added, removed }) => {
  test('is set', () => givenAnna().when({ type: on, userId: 'ben' }).thenEvents(added))
  test('that is there is unchanged', () => givenAnna(added).when({ type: on, userId: 'ben' }).thenUnchanged())
  test('is taken away', () => givenAnna(added).when({ type: off, userId: 'ben' }).thenEvents(removed))
  test('that is not there is unchanged', () => givenAnna(added, removed).when({ type: off, userId: 'ben' }).thenUnchanged())
  test('is set again', () => givenAnna(added, removed).when({ type: on, userId: 'ben' }).thenEvents(added))
  test('of oneself is refused', () => givenAnna().when({ type: on, userId: 'anna' }).thenRefused('invalid_request', 'userId'))
  test('is one of so many', () => {
    const many = Array.from({ length: RELATIONS_MAX }, (_, i): UserEvent => ({ ...added, data: { userId: `u${i}` } }))
    givenAnna(...many)
      .when({ type: on, userId: 'ben' })
      .thenRefused('invalid_request', 'userId')
    givenAnna(...many)
      .when({ type: on, userId: 'u7' })
      .thenUnchanged()
    givenAnna(...many.slice(1))
      .when({ type: on, userId: 'ben' })
      .thenAccepted()
  })
})

test('a block and a contact are of no concern to each other', () => {
  givenAnna(contact).when({ type: 'BlockUser', userId: 'ben' }).thenEvents(blocked)
  const { contacts, blocks } = userAfter(contact, blocked, noContact)
  expect([[...contacts], [...blocks]]).toEqual([[], ['ben']])
})

describe('a device', () => {
  const see = (deviceId: string, ...longestOffline: string[]): UserCommand => ({ type: 'SeeDevice', deviceId, longestOffline })
  /** Events of these tests happen at 1,000, 1,001, … ms. */
  const revoke = (more: { deviceId?: string; shownUpTo?: number; now?: number } = {}): UserCommand => ({
    type: 'RevokeDevice',
    deviceId: 'phone',
    shownUpTo: 0,
    now: 1_002,
    ...more,
  })
  const revokedUpTo = (upTo: number): UserEvent => ({ type: 'DeviceRevoked', data: { deviceId: 'phone', upTo } })
  const many = (count: number, type: 'DeviceSeen' | 'DeviceRevoked' = 'DeviceSeen', name = 'd') =>
    Array.from({ length: count }, (_, i): UserEvent => ({ type, data: { deviceId: `${name}${i}` } }))

  test('is seen once', () => {
    givenAnna().when(see('phone')).thenEvents(seen)
    givenAnna(seen).when(see('phone')).thenUnchanged()
  })
  test('is revoked, on the list or not', () => {
    givenAnna(seen).when(revoke()).thenEvents(revoked)
    givenAnna().when(revoke()).thenEvents(revoked)
    expect(refusedUpTo(userAfter(seen, revoked), 'phone')).toBe(1_001)
    expect(refusedUpTo(userAfter(revoked), 'tablet')).toBeUndefined()
  })
  test('that is revoked again at once is unchanged, unless it has come back or shown a newer token', () => {
    givenAnna(seen, revoked).when(revoke()).thenUnchanged()
    givenAnna(seen, revoked, seen).when(revoke()).thenEvents(revoked)
    givenAnna(seen, revoked)
      .when(revoke({ shownUpTo: 1_500, now: 1_600 }))
      .thenEvents(revoked)
    givenAnna(seen, revoked)
      .when(revoke({ now: 61_002 }))
      .thenEvents(revoked)
  })
  test('is refused up to the newest token that it has shown, whatever clock dated it', () => {
    givenAnna(seen)
      .when(revoke({ shownUpTo: 5_000 }))
      .thenEvents(revokedUpTo(5_000))
    expect(refusedUpTo(userAfter(seen, revokedUpTo(5_000)), 'phone')).toBe(5_000)
    givenAnna(seen, revoked).when({ type: 'RefuseTokens', deviceId: 'phone', upTo: 5_000 }).thenEvents(revokedUpTo(5_000))
    givenAnna(seen, revoked).when({ type: 'RefuseTokens', deviceId: 'phone', upTo: 1_001 }).thenUnchanged()
    expect(refusedUpTo(userAfter(revokedUpTo(5_000), revoked), 'phone')).toBe(5_000)
  })
  test('comes back with a new token; older ones stay revoked', () => {
    givenAnna(seen, revoked).when(see('phone')).thenEvents(seen)
    expect(refusedUpTo(userAfter(seen, revoked, seen), 'phone')).toBe(1_001)
  })
  test('takes the place of the one that was offline longest, whose tokens stay valid', () => {
    const replacing = (replaced: string): UserEvent => ({ type: 'DeviceSeen', data: { deviceId: 'phone', replaced } })
    const full = many(DEVICES_MAX)
    givenAnna(...full)
      .when(see('phone', 'gone', 'd7', 'd8'))
      .thenEvents(replacing('d7'))
    givenAnna(...full)
      .when(see('phone'))
      .thenEvents(replacing('d0'))
    givenAnna(...full)
      .when(see('d7'))
      .thenUnchanged()
    const state = userAfter(...full, replacing('d7'))
    expect([state.devices.size, state.devices.has('d7'), refusedUpTo(state, 'd7')]).toEqual([DEVICES_MAX, false, undefined])
  })
  test('stays revoked however many others are, and what is kept of them is bounded', () => {
    const others = many(DEVICES_MAX + 5, 'DeviceRevoked', 'made-up')
    // The phone has come back before, and is on the list.
    const state = userAfter(revoked, seen, { type: 'DeviceRevoked', data: { deviceId: 'old' } }, ...others)
    expect(state.refusedUpTo.size).toBe(DEVICES_MAX + 1)
    expect(refusedUpTo(state, 'phone')).toBe(1_000)
    for (const gone of ['old', 'made-up0', 'made-up4']) expect(refusedUpTo(state, gone)).toBeGreaterThanOrEqual(1_002)
    expect(refusedUpTo(state, `made-up${DEVICES_MAX}`)).toBe(1_003 + DEVICES_MAX)
    // A device whose deletion was folded comes back with a newer token, and its older ones stay refused.
    const back = evolveUser(state, { ...others[0]!, type: 'DeviceSeen', data: { deviceId: 'old' } } as never)
    expect(refusedUpTo(back, 'old')).toBe(state.othersRefusedUpTo)
  })
  test('that comes and goes leaves nothing behind, where deletions were folded into one for all others', () => {
    const passing = Array.from(
      { length: 4 * DEVICES_MAX },
      (_, i): UserEvent => ({
        type: 'DeviceSeen',
        data: { deviceId: `p${i}`, ...(i < DEVICES_MAX ? {} : { replaced: `p${i - DEVICES_MAX}` }) },
      }),
    )
    const state = userAfter(...many(DEVICES_MAX + 5, 'DeviceRevoked', 'made-up'), ...passing)
    expect(state.devices.size).toBe(DEVICES_MAX)
    expect(state.refusedUpTo.size).toBe(2 * DEVICES_MAX)
    for (const id of ['p0', `p${4 * DEVICES_MAX - 1}`]) expect(refusedUpTo(state, id)).toBe(state.othersRefusedUpTo)
  })
})

describe('a mark on a conversation', () => {
  test('tells only what changes', () =>
    givenAnna(marked({ pinned: true }))
      .when(mark({ pinned: true, muted: true }))
      .thenEvents(marked({ muted: true })))
  test.each([{ pinned: false, muted: false, hidden: false }, {}])('that changes nothing is unchanged: %j', (marks) =>
    givenAnna().when(mark(marks)).thenUnchanged(),
  )
  test('hides up to the last message', () =>
    givenAnna()
      .when(mark({ hidden: true }, 5))
      .thenEvents(marked({ hidden: true }, 5)))
  test('that hides what is hidden is unchanged', () =>
    givenAnna(marked({ hidden: true }, 5))
      .when(mark({ hidden: true }, 5))
      .thenUnchanged())
  test('hides again what a message has shown', () =>
    givenAnna(marked({ hidden: true }, 5))
      .when(mark({ hidden: true }, 6))
      .thenEvents(marked({ hidden: true }, 6)))
  test('that shows what a message has shown is unchanged', () =>
    givenAnna(marked({ hidden: true }, 5))
      .when(mark({ hidden: false }, 6))
      .thenUnchanged())
  test('shows what is hidden', () =>
    givenAnna(marked({ hidden: true }, 5))
      .when(mark({ hidden: false }, 5))
      .thenEvents(marked({ hidden: false }, 5)))
  test('leaves the others as they are', () =>
    expect(userAfter(marked({ pinned: true, hidden: true }, 5), marked({ muted: true }, 7)).marks.get('c')).toEqual({
      pinned: true,
      muted: true,
      hiddenOrdinal: 5,
    }))
  test('is of one conversation', () =>
    givenAnna({ type: 'InboxMarked', data: { conversationId: 'other', pinned: true, ordinal: 1 } })
      .when(mark({ pinned: true }))
      .thenEvents(marked({ pinned: true })))
})

test('a user comes back from a snapshot as it was', () => {
  const events = [
    registered,
    contact,
    blocked,
    seen,
    revoked,
    seen,
    marked({ pinned: true, hidden: true }),
    noContact,
    { type: 'DeviceSeen', data: { deviceId: 'laptop' } } as UserEvent,
  ]
  for (const count of events.keys()) {
    const state = userAfter(...events.slice(0, count + 1))
    const back = userFromJson(JSON.parse(JSON.stringify(userToJson(state))))
    expect(back.profile).toEqual(state.profile)
    expect(
      isDeepStrictEqual(new Set(back.contacts), new Set(state.contacts)) &&
        isDeepStrictEqual(new Set(back.blocks), new Set(state.blocks)) &&
        back.devices.equals(state.devices) &&
        back.refusedUpTo.equals(state.refusedUpTo) &&
        back.othersRefusedUpTo === state.othersRefusedUpTo,
    ).toBe(true)
    expect(back.marks.toJS()).toEqual(state.marks.toJS())
  }
})
