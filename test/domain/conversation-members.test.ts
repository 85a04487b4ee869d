import { describe, expect, test } from 'vitest'
import type { ConversationCommand } from '../../src/domain/conversation/commands.js'
import type { ConversationEvent, Role } from '../../src/domain/events.js'
import {
  add,
  became,
  created,
  createdOpen,
  direct,
  frozen,
  given,
  giveRole,
  grouped,
  join,
  joined,
  leave,
  left,
  remove,
  removed,
  sent,
  team,
  unfrozen,
  update,
} from '../support/given.js'

const create = (more: Partial<Extract<ConversationCommand, { type: 'CreateConversation' }>> = {}): ConversationCommand => ({
  type: 'CreateConversation',
  conversationType: 'group',
  memberIds: ['ben'],
  ...more,
})
const roleChanged = (userId: string, role: Role): ConversationEvent => ({ type: 'MemberRoleChanged', data: { userId, role } })
const memberJoined = (userId: string, role: Role = 'member'): ConversationEvent => ({ type: 'MemberJoined', data: { userId, role } })
const rolesOf = (state: Parameters<Parameters<ReturnType<typeof given>['thenState']>[0]>[0]) =>
  Object.fromEntries([...state.members].map(([userId, { role }]) => [userId, role]))

describe('creating', () => {
  test('a group makes its creator the owner, in one event', () =>
    given()
      .when('anna', create({ memberIds: ['ben', 'cleo'], name: 'Team', joinPolicy: 'open', custom: { a: 1 } }))
      .thenEvents({
        type: 'ConversationCreated',
        data: {
          type: 'group',
          name: 'Team',
          joinPolicy: 'open',
          custom: { a: 1 },
          members: [
            { userId: 'anna', role: 'owner' },
            { userId: 'ben', role: 'member' },
            { userId: 'cleo', role: 'member' },
          ],
        },
      }))
  test('a group by default is by invitation, and may be empty but for its creator', () =>
    given()
      .when('anna', create({ memberIds: [] }))
      .thenEvents({
        type: 'ConversationCreated',
        data: { type: 'group', joinPolicy: 'invite', members: [{ userId: 'anna', role: 'owner' }] },
      }))
  test('a group names nobody twice, and its creator once', () =>
    given()
      .when('anna', create({ memberIds: ['ben', 'anna', 'ben'] }))
      .thenEvents({
        type: 'ConversationCreated',
        data: {
          type: 'group',
          joinPolicy: 'invite',
          members: [
            { userId: 'anna', role: 'owner' },
            { userId: 'ben', role: 'member' },
          ],
        },
      }))
  test('a group up to its bound is accepted', () =>
    given()
      .when('anna', create({ memberIds: ['ben', 'cleo'] }), { membersMax: 3 })
      .thenAccepted())
  test('a group beyond its bound is refused', () =>
    given()
      .when('anna', create({ memberIds: ['ben', 'cleo'] }), { membersMax: 2 })
      .thenRefused('invalid_request', 'memberIds'))
  test('a direct conversation makes both members', () =>
    given()
      .when('anna', create({ conversationType: 'direct' }))
      .thenEvents({
        type: 'ConversationCreated',
        data: {
          type: 'direct',
          joinPolicy: 'invite',
          members: [
            { userId: 'anna', role: 'member' },
            { userId: 'ben', role: 'member' },
          ],
        },
      }))
  test('a direct conversation that is there opens it', () =>
    given(direct)
      .when('ben', create({ conversationType: 'direct', memberIds: ['anna'] }))
      .thenUnchanged())
  test('a direct conversation with a block between the two is refused', () =>
    given()
      .when('anna', create({ conversationType: 'direct' }), { blocked: true })
      .thenRefused('blocked'))
  test('a direct conversation that is there opens it in spite of a block', () =>
    given(direct)
      .when('anna', create({ conversationType: 'direct' }), { blocked: true })
      .thenUnchanged())
})

describe('what is not there, or is none of your business', () => {
  const commands: ConversationCommand[] = [update({ name: 'x' }), add('dora'), giveRole('ben', 'admin'), remove('ben'), leave, join]
  test.each(commands)('$type of a conversation that does not exist is not found', (command) =>
    given().when('anna', command).thenRefused('not_found'),
  )
  test.each(commands)('$type by a stranger is not found', (command) => given(team).when('zoe', command).thenRefused('not_found'))
  test.each(commands)('$type by one who left is not found', (command) =>
    given(team, left('cleo')).when('cleo', command).thenRefused('not_found'),
  )
  test.each(commands)('$type by one who was removed is not found', (command) =>
    given(team, removed('cleo')).when('cleo', command).thenRefused('not_found'),
  )
  test.each(commands)('$type of a direct conversation by a stranger is not found', (command) =>
    given(direct).when('zoe', command).thenRefused('not_found'),
  )
})

describe('a direct conversation', () => {
  const commands: ConversationCommand[] = [
    join,
    leave,
    add('dora'),
    remove('ben'),
    remove('anna'),
    giveRole('ben', 'admin'),
    update({ name: 'x' }),
    update({ joinPolicy: 'open' }),
    update({ frozen: true }),
  ]
  test.each(commands)('has no %j', (command) => given(direct).when('anna', command).thenRefused('direct_conversation'))
  test.each(['anna', 'ben'])('lets %s change its custom', (userId) =>
    given(direct)
      .when(userId, update({ custom: { a: 1 } }))
      .thenEvents({ type: 'ConversationUpdated', data: { custom: { a: 1 } } }),
  )
})

describe('changing a conversation', () => {
  test.each(['anna', 'ada'])('is for owner and admins: %s', (userId) =>
    given(team)
      .when(userId, update({ name: 'New' }))
      .thenEvents({ type: 'ConversationUpdated', data: { name: 'New' } }),
  )
  test.each([{ name: 'x' }, { joinPolicy: 'open' as const }, { custom: {} }, { frozen: true }])('to %j is not for members', (changes) =>
    given(team).when('ben', update(changes)).thenRefused('forbidden'),
  )
  test('only in what is so already is unchanged', () =>
    given(team)
      .when('anna', update({ name: null, joinPolicy: 'invite', custom: {}, frozen: false }))
      .thenUnchanged())
  test('tells only what changed', () =>
    given(team)
      .when('anna', update({ name: 'New', joinPolicy: 'invite' }))
      .thenEvents({ type: 'ConversationUpdated', data: { name: 'New' } }))
  test('with null clears', () => {
    const named = { by: 'anna', type: 'ConversationUpdated' as const, data: { name: 'New', custom: { a: 1 } } }
    given(team, named)
      .when('anna', update({ name: null, custom: null }))
      .thenEvents({ type: 'ConversationUpdated', data: { name: null, custom: {} } })
    const cleared = { by: 'anna', type: 'ConversationUpdated' as const, data: { name: null, custom: {} } }
    given(team, named, cleared).thenState((state) => expect(state).toMatchObject({ name: null, custom: {} }))
  })
  test('custom with other order of keys is unchanged', () =>
    given(team, { by: 'anna', type: 'ConversationUpdated', data: { custom: { a: 1, b: { c: [1], d: 2 } } } })
      .when('anna', update({ custom: { b: { d: 2, c: [1] }, a: 1 } }))
      .thenUnchanged())
  test('and freezing it are two facts', () =>
    given(team)
      .when('ada', update({ name: 'Quiet', frozen: true }))
      .thenEvents({ type: 'ConversationUpdated', data: { name: 'Quiet' } }, { type: 'ConversationFrozen', data: {} }))
  test('a frozen one can be thawed', () =>
    given(team, frozen)
      .when('ada', update({ frozen: false }))
      .thenEvents({ type: 'ConversationUnfrozen', data: {} }))
  test('a frozen one can be changed otherwise', () =>
    given(team, frozen)
      .when('anna', update({ name: 'New', frozen: true }))
      .thenEvents({ type: 'ConversationUpdated', data: { name: 'New' } }))
  test('back and forth ends where it began', () => given(team, frozen, unfrozen).thenState((state) => expect(state.frozen).toBe(false)))
})

describe('joining', () => {
  test('an open group makes a member', () => given(createdOpen).when('zoe', join).thenEvents(memberJoined('zoe')))
  test('needs an open group', () => given(created).when('zoe', join).thenRefused('not_found'))
  test('twice is unchanged', () => given(createdOpen, joined('ben')).when('ben', join).thenUnchanged())
  test('a group that one is in is unchanged, open or not', () => given(team).when('ben', join).thenUnchanged())
  test('a full group is refused', () =>
    given(createdOpen, joined('ben')).when('zoe', join, { membersMax: 2 }).thenRefused('invalid_request'))
  test('takes the last place', () => given(createdOpen, joined('ben')).when('zoe', join, { membersMax: 3 }).thenAccepted())
  test('an empty open group makes its first the owner', () =>
    given(createdOpen, left('anna')).when('zoe', join).thenEvents(memberJoined('zoe', 'owner')))
  test('again after leaving makes a new member, who stands last', () =>
    given(createdOpen, joined('ben'), joined('cleo'), left('ben'), joined('ben'))
      .when('anna', leave)
      .thenEvents({ type: 'MemberLeft', data: { userId: 'anna' } }, roleChanged('cleo', 'owner')))
  test('is remembered with when it was: unread begins there', () =>
    given(createdOpen, sent('anna', 'm1'), sent('anna', 'm2'), joined('ben')).thenState(({ members }) =>
      expect(members.get('ben')).toEqual({ role: 'member', rank: 1, joinedSeq: 3, joinedAt: 1_003, joinedOrdinal: 2 }),
    ))
  test('again after being removed is allowed where it is open', () =>
    given(createdOpen, joined('ben'), removed('ben')).when('ben', join).thenEvents(memberJoined('ben')))
})

describe('adding members', () => {
  test.each(['anna', 'ada'])('is for owner and admins: %s', (userId) =>
    given(team).when(userId, add('dora', 'emil')).thenEvents(memberJoined('dora'), memberJoined('emil')),
  )
  test('is not for members', () => given(team).when('ben', add('dora')).thenRefused('forbidden'))
  test('leaves out who is there and who is named twice', () =>
    given(team)
      .when('anna', add('ben', 'dora', 'dora', 'anna'))
      .thenEvents(memberJoined('dora')))
  test('who are all there is unchanged', () => given(team).when('anna', add('ben', 'cleo')).thenUnchanged())
  test('up to the bound is accepted, those counted who are there', () =>
    given(team).when('anna', add('dora', 'ben'), { membersMax: 5 }).thenAccepted())
  test('beyond the bound is refused as a whole', () =>
    given(team).when('anna', add('dora', 'emil'), { membersMax: 5 }).thenRefused('invalid_request', 'userIds'))
})

describe('giving roles', () => {
  test('is for the owner', () => given(team).when('anna', giveRole('ben', 'admin')).thenEvents(roleChanged('ben', 'admin')))
  test.each(['ada', 'ben'])('is not for %s', (userId) => given(team).when(userId, giveRole('cleo', 'admin')).thenRefused('forbidden'))
  test('takes an admin back to member', () => given(team).when('anna', giveRole('ada', 'member')).thenEvents(roleChanged('ada', 'member')))
  test('that one has is unchanged', () => given(team).when('anna', giveRole('ben', 'member')).thenUnchanged())
  test('to a stranger is not found', () => given(team).when('anna', giveRole('zoe', 'admin')).thenRefused('not_found'))
  test.each(['ada', 'ben'])('owner to %s makes the giver an admin', (userId) =>
    given(team).when('anna', giveRole(userId, 'owner')).thenEvents(roleChanged(userId, 'owner'), roleChanged('anna', 'admin')),
  )
  test.each(['admin', 'member'] as const)('an owner does not make itself %s', (role) =>
    given(team).when('anna', giveRole('anna', role)).thenRefused('forbidden'),
  )
  test('owner to oneself is unchanged', () => given(team).when('anna', giveRole('anna', 'owner')).thenUnchanged())
  test('owner away moves all its rights', () => {
    const handedOver = given(team, became('ben', 'owner'), became('anna', 'admin'))
    handedOver.thenState((state) =>
      expect([state.ownerId, rolesOf(state)]).toEqual(['ben', { anna: 'admin', ada: 'admin', ben: 'owner', cleo: 'member' }]),
    )
    handedOver.when('ben', remove('anna')).thenAccepted()
    handedOver.when('anna', remove('ben')).thenRefused('forbidden')
    handedOver.when('anna', giveRole('cleo', 'admin')).thenRefused('forbidden')
  })
})

describe('removing members', () => {
  const team2 = [...team, joined('abel', 'admin')]
  test.each(['ada', 'ben'])('the owner removes anyone: %s', (userId) =>
    given(team2).when('anna', remove(userId)).thenEvents({ type: 'MemberRemoved', data: { userId } }),
  )
  test('an admin removes members', () =>
    given(team2)
      .when('ada', remove('ben'))
      .thenEvents({ type: 'MemberRemoved', data: { userId: 'ben' } }))
  test.each(['anna', 'abel'])('an admin does not remove %s', (userId) => given(team2).when('ada', remove(userId)).thenRefused('forbidden'))
  test.each(['anna', 'ada', 'cleo'])('a member does not remove %s', (userId) =>
    given(team2).when('ben', remove(userId)).thenRefused('forbidden'),
  )
  test('who is none is not found', () => given(team2).when('anna', remove('zoe')).thenRefused('not_found'))
  test('who is none is no business of a member', () => given(team2).when('ben', remove('zoe')).thenRefused('forbidden'))
  test('oneself is leaving', () =>
    given(team2)
      .when('ben', remove('ben'))
      .thenEvents({ type: 'MemberLeft', data: { userId: 'ben' } }))
  test('oneself as owner hands over like leaving', () =>
    given(team2)
      .when('anna', remove('anna'))
      .thenEvents({ type: 'MemberLeft', data: { userId: 'anna' } }, roleChanged('ada', 'owner')))
  test('takes them out of the state', () =>
    given(team2, removed('ben')).thenState((state) => expect(Object.keys(rolesOf(state))).not.toContain('ben')))
})

describe('leaving', () => {
  const leaves = (userId: string): ConversationEvent => ({ type: 'MemberLeft', data: { userId } })
  test('as a member is one fact', () => given(team).when('ben', leave).thenEvents(leaves('ben')))
  test('as an admin is one fact', () => given(team).when('ada', leave).thenEvents(leaves('ada')))
  test('as owner hands over to the admin that stands longest, in the same append', () =>
    given(created, joined('ben'), joined('cleo', 'admin'), joined('ada', 'admin'))
      .when('anna', leave)
      .thenEvents(leaves('anna'), roleChanged('cleo', 'owner')))
  test('as owner, longest is by joining, not by becoming admin', () =>
    given(created, joined('ben'), joined('cleo'), became('cleo', 'admin'), became('ben', 'admin'))
      .when('anna', leave)
      .thenEvents(leaves('anna'), roleChanged('ben', 'owner')))
  test('as owner without admins hands over to the member that stands longest', () =>
    given(grouped(['ben', 'cleo']))
      .when('anna', leave)
      .thenEvents(leaves('anna'), roleChanged('ben', 'owner')))
  test('as owner who came late hands over to those before', () =>
    given(team, became('cleo', 'owner'), became('anna', 'member'), became('ada', 'member'))
      .when('cleo', leave)
      .thenEvents(leaves('cleo'), roleChanged('anna', 'owner')))
  test('as the last leaves an empty group', () => {
    given(created).when('anna', leave).thenEvents(leaves('anna'))
    given(created, left('anna')).thenState((state) => expect([state.ownerId, state.members.size]).toEqual([null, 0]))
  })
  test('is possible in a frozen group', () => given(team, frozen).when('ben', leave).thenEvents(leaves('ben')))
})
