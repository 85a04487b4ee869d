import { describe, expect, test } from 'vitest'
import type { UserEvent } from '../../src/domain/events.js'
import { DEVICES_MAX, RELATIONS_MAX, type UserCommand, userFromJson, userToJson } from '../../src/domain/user/user.js'
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
  expect([contacts.toArray(), blocks.toArray()]).toEqual([[], ['ben']])
})

describe('a device', () => {
  test('is seen once', () => {
    givenAnna().when({ type: 'SeeDevice', deviceId: 'phone' }).thenEvents(seen)
    givenAnna(seen).when({ type: 'SeeDevice', deviceId: 'phone' }).thenUnchanged()
  })
  test('is revoked', () => {
    givenAnna(seen).when({ type: 'RevokeDevice', deviceId: 'phone' }).thenEvents(revoked)
    expect(userAfter(seen, revoked).revokedAt.get('phone')).toBe(1_001)
  })
  test('that is not there is not found', () => givenAnna().when({ type: 'RevokeDevice', deviceId: 'phone' }).thenRefused('not_found'))
  test('that was revoked is not found', () =>
    givenAnna(seen, revoked).when({ type: 'RevokeDevice', deviceId: 'phone' }).thenRefused('not_found'))
  test('comes back with a new token; older ones stay revoked', () => {
    givenAnna(seen, revoked).when({ type: 'SeeDevice', deviceId: 'phone' }).thenEvents(seen)
    expect(userAfter(seen, revoked, seen).revokedAt.get('phone')).toBe(1_001)
  })
  test('is one of so many', () => {
    const many = Array.from({ length: DEVICES_MAX }, (_, i): UserEvent => ({ type: 'DeviceSeen', data: { deviceId: `d${i}` } }))
    givenAnna(...many)
      .when({ type: 'SeeDevice', deviceId: 'phone' })
      .thenRefused('invalid_request', 'deviceId')
    givenAnna(...many)
      .when({ type: 'SeeDevice', deviceId: 'd7' })
      .thenUnchanged()
    givenAnna(...many, { type: 'DeviceRevoked', data: { deviceId: 'd7' } })
      .when({ type: 'SeeDevice', deviceId: 'phone' })
      .thenAccepted()
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
      back.contacts.equals(state.contacts) &&
        back.blocks.equals(state.blocks) &&
        back.devices.equals(state.devices) &&
        back.revokedAt.equals(state.revokedAt),
    ).toBe(true)
    expect(back.marks.toJS()).toEqual(state.marks.toJS())
  }
})
