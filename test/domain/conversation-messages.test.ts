import { describe, expect, test } from 'vitest'
import type { ConversationCommand } from '../../src/domain/conversation/commands.js'
import { DIFFERENT_REACTIONS_MAX } from '../../src/domain/conversation/decide.js'
import type { ConversationEvent } from '../../src/domain/events.js'
import {
  became,
  created,
  type Deed,
  direct,
  edit,
  edited,
  frozen,
  given,
  joined,
  left,
  pin,
  pinned,
  react,
  reacted,
  recall,
  recalled,
  removed,
  send,
  sending,
  sent,
  team,
  text,
  unfrozen,
  unpin,
  unpinned,
  unreact,
  unreacted,
  update,
} from '../support/given.js'

const message = (more: object = {}): ConversationEvent => ({
  type: 'MessageSent',
  data: { clientMessageId: 'new', ordinal: 1, content: text('hello'), ...more },
})

/** Ben's message is seq 4. */
const said: readonly Deed[] = [...team, sent('ben')]
/** Ben's message is seq 1. */
const saidDirectly: readonly Deed[] = [direct, sent('ben')]

const ofAMessage: ConversationCommand[] = [edit(4), recall(4), react(4), unreact(4), pin(4), unpin(4)]

describe('sending', () => {
  test.each(['anna', 'ada', 'ben'])('is for every member: %s', (userId) => given(team).when(userId, send).thenEvents(message()))
  test.each([send, ...ofAMessage])('$type by a stranger is not found', (command) =>
    given(said).when('zoe', command).thenRefused('not_found'),
  )
  test.each([send, ...ofAMessage])('$type by one who left is not found', (command) =>
    given(said, left('ben')).when('ben', command).thenRefused('not_found'),
  )
  test.each([send, ...ofAMessage])('$type by one who was removed is not found', (command) =>
    given(said, removed('ben')).when('ben', command).thenRefused('not_found'),
  )
  test('to what does not exist is not found', () => given().when('anna', send).thenRefused('not_found'))
  test('counts messages only', () =>
    given(said, reacted('anna', 4), sent('cleo', 'second'), pinned('anna', 4))
      .when('ben', send)
      .thenEvents(message({ ordinal: 3 })))
  test('keeps content as it is', () => {
    const content = { type: 'custom' as const, data: { z: 1, a: [null, { 'ü ': '😀' }] } }
    given(team).when('ben', sending({ content })).thenEvents(message({ content }))
  })
  test('mentions each once', () =>
    given(team)
      .when('ben', sending({ mentions: ['cleo', 'anna', 'cleo'] }))
      .thenEvents(message({ mentions: ['cleo', 'anna'] })))
  test('mentions nobody where the list is empty', () =>
    given(team)
      .when('ben', sending({ mentions: [] }))
      .thenEvents(message()))
  test('replies to a message', () =>
    given(said)
      .when('anna', sending({ replyToSeq: 4 }))
      .thenEvents(message({ ordinal: 2, replyToSeq: 4 })))
  test('replies to a recalled message', () =>
    given(said, recalled('ben', 4))
      .when('anna', sending({ replyToSeq: 4 }))
      .thenAccepted())
  test.each([0, 3, 5, 99])('replies to no other fact: %i', (replyToSeq) =>
    given(said).when('anna', sending({ replyToSeq })).thenRefused('invalid_request', 'replyToSeq'),
  )
  test('moves the last ordinal, seq and cursor of the sender', () =>
    given(said, sent('cleo', 'second')).thenState((state) =>
      expect([state.lastOrdinal, state.lastMessageSeq, Object.fromEntries(state.lastSent)]).toEqual([2, 5, { ben: 4, cleo: 5 }]),
    ))
})

describe('sending again', () => {
  const again = sending({ clientMessageId: 'first' })
  test('gives the first seq', () => given(said).when('ben', again).thenResent(4))
  test('with the id of somebody else is a new message', () =>
    given(said)
      .when('cleo', again)
      .thenEvents(message({ clientMessageId: 'first', ordinal: 2 })))
  test('in a frozen conversation gives the first seq', () => given(said, frozen).when('ben', again).thenResent(4))
  test('with a block between the two gives the first seq', () => given(saidDirectly).when('ben', again, { blocked: true }).thenResent(1))
  test('after an edit gives the first seq', () =>
    given(said, edited('ben', 4, 'better'))
      .when('ben', again)
      .thenResent(4))
  test('after a recall gives the first seq', () => given(said, recalled('ada', 4)).when('ben', again).thenResent(4))
  test('with a reply that is none gives the first seq: the content is compared elsewhere', () =>
    given(said)
      .when('ben', sending({ clientMessageId: 'first', replyToSeq: 99 }))
      .thenResent(4))
  test('what only the history remembers gives the first seq', () => given(team).when('ben', send, { sentBefore: 2 }).thenResent(2))
  test('by one who left is not found', () => given(said, left('ben')).when('ben', again).thenRefused('not_found'))
  test('by one who left and came back gives the first seq', () => given(said, left('ben'), joined('ben')).when('ben', again).thenResent(4))
})

describe('in a frozen conversation', () => {
  const frozenTeam = [...team, sent('ben'), frozen]
  test('a member is refused to send', () => given(created, joined('ben'), frozen).when('ben', send).thenRefused('conversation_frozen'))
  test.each([send, edit(4), react(4), unreact(4)])('a member is refused: $type', (command) =>
    given(frozenTeam).when('ben', command).thenRefused('conversation_frozen'),
  )
  test.each(['anna', 'ada'])('%s sends, reacts and pins', (userId) => {
    const it = given(frozenTeam)
    for (const command of [send, react(4), pin(4)]) it.when(userId, command).thenAccepted()
  })
  test('an admin edits its own', () => given(team, sent('ada'), frozen).when('ada', edit(4)).thenAccepted())
  test('a member recalls its own', () =>
    given(frozenTeam)
      .when('ben', recall(4))
      .thenEvents({ type: 'MessageRecalled', data: { messageSeq: 4 } }))
  test('one who lost its role is refused', () =>
    given(frozenTeam, became('ada', 'member')).when('ada', send).thenRefused('conversation_frozen'))
  test('that is thawed everybody speaks', () => given(frozenTeam, unfrozen).when('ben', send).thenAccepted())
})

describe('with a block between the two', () => {
  const directly = [send, edit(1), react(1), unreact(1), pin(1), unpin(1)]
  test.each(directly)('$type is refused', (command) => given(saidDirectly).when('ben', command, { blocked: true }).thenRefused('blocked'))
  test('recalling stays', () => given(saidDirectly).when('ben', recall(1), { blocked: true }).thenAccepted())
  test('custom of the conversation stays', () =>
    given(saidDirectly)
      .when('ben', update({ custom: { a: 1 } }), { blocked: true })
      .thenAccepted())
  test.each(directly)('and without one $type is not', (command) => given(saidDirectly).when('ben', command).thenNotRefused())
})

describe('a message that is none', () => {
  test.each([0, 3, 5, 99].flatMap((seq) => [edit(seq), recall(seq), react(seq), unreact(seq), pin(seq), unpin(seq)]))(
    '$type of $seq is not found',
    (command) => given(said).when('anna', command).thenRefused('not_found'),
  )
})

describe('editing', () => {
  test('is for the sender', () =>
    given(said)
      .when('ben', edit(4))
      .thenEvents({ type: 'MessageEdited', data: { messageSeq: 4, content: text('better') } }))
  test.each(['anna', 'ada', 'cleo'])('is not for %s', (userId) => given(said).when(userId, edit(4)).thenRefused('forbidden'))
  test('to the same content is unchanged', () => given(said).when('ben', edit(4, 'hello')).thenUnchanged())
  test('to the content of the last edit is unchanged', () =>
    given(said, edited('ben', 4, 'better'))
      .when('ben', edit(4, 'better'))
      .thenUnchanged())
  test('back to the first content is a change', () =>
    given(said, edited('ben', 4, 'better'))
      .when('ben', edit(4, 'hello'))
      .thenAccepted())
  test('what was recalled is refused', () => given(said, recalled('ben', 4)).when('ben', edit(4)).thenRefused('already_recalled'))
  test('what was recalled is refused even to the same content', () =>
    given(said, recalled('ben', 4)).when('ben', edit(4, 'hello')).thenRefused('already_recalled'))
})

describe('recalling', () => {
  const isRecalled: ConversationEvent = { type: 'MessageRecalled', data: { messageSeq: 4 } }
  test.each(['ben', 'anna', 'ada'])('is for the sender, owner and admins: %s', (userId) =>
    given(said).when(userId, recall(4)).thenEvents(isRecalled),
  )
  test('is not for other members', () => given(said).when('cleo', recall(4)).thenRefused('forbidden'))
  test("an admin recalls the owner's message", () => given(team, sent('anna')).when('ada', recall(4)).thenAccepted())
  test('in a direct conversation is for the sender alone', () => {
    given(saidDirectly).when('ben', recall(1)).thenAccepted()
    given(saidDirectly).when('anna', recall(1)).thenRefused('forbidden')
  })
  test('twice is unchanged, whoever did it first', () => given(said, recalled('anna', 4)).when('ben', recall(4)).thenUnchanged())
})

describe('reacting', () => {
  test('is for every member', () =>
    given(said)
      .when('cleo', react(4))
      .thenEvents({ type: 'ReactionAdded', data: { messageSeq: 4, emoji: '👍' } }))
  test('twice with the same is unchanged', () => given(said, reacted('cleo', 4)).when('cleo', react(4)).thenUnchanged())
  test('with another as well is accepted', () => given(said, reacted('cleo', 4)).when('cleo', react(4, '🎉')).thenAccepted())
  test('as somebody else did is accepted', () => given(said, reacted('cleo', 4)).when('ben', react(4)).thenAccepted())
  test('to what was recalled is refused', () => given(said, recalled('ben', 4)).when('cleo', react(4)).thenRefused('already_recalled'))
  test('taken away is gone', () =>
    given(said, reacted('cleo', 4))
      .when('cleo', unreact(4))
      .thenEvents({ type: 'ReactionRemoved', data: { messageSeq: 4, emoji: '👍' } }))
  test('taken away twice is unchanged', () =>
    given(said, reacted('cleo', 4), unreacted('cleo', 4)).when('cleo', unreact(4)).thenUnchanged())
  test('of somebody else can not be taken away', () => given(said, reacted('cleo', 4)).when('ben', unreact(4)).thenUnchanged())
  test('again after taking it away is accepted', () =>
    given(said, reacted('cleo', 4), unreacted('cleo', 4)).when('cleo', react(4)).thenAccepted())

  const emoji = (count: number) => Array.from({ length: count }, (_, i) => `e${i}`)
  const full = [...said, ...emoji(DIFFERENT_REACTIONS_MAX).map((e) => reacted('cleo', 4, e))]
  test('allows fifty different ones', () => expect(DIFFERENT_REACTIONS_MAX).toBe(50))
  test('with the fiftieth is accepted', () => given(full.slice(0, -1)).when('ben', react(4, 'new')).thenAccepted())
  test('with a fifty-first is refused', () => given(full).when('ben', react(4, 'new')).thenRefused('invalid_request', 'emoji'))
  test('with one of the fifty is accepted', () => given(full).when('ben', react(4, 'e7')).thenAccepted())
  test('with one of the fifty again is unchanged', () => given(full).when('cleo', react(4, 'e7')).thenUnchanged())
  test('finds room when the last of one kind is taken away', () =>
    given(full, unreacted('cleo', 4, 'e7'))
      .when('ben', react(4, 'new'))
      .thenAccepted())
  test('finds no room while another still has it', () =>
    given(full, reacted('ben', 4, 'e7'), unreacted('cleo', 4, 'e7'))
      .when('ben', react(4, 'new'))
      .thenRefused('invalid_request'))
  test('to another message has its own fifty', () =>
    given(full, sent('ben', 'second')).when('ben', react(full.length, 'new')).thenAccepted())
})

describe('pinning', () => {
  test.each(['anna', 'ada'])('in a group is for owner and admins: %s', (userId) =>
    given(said)
      .when(userId, pin(4))
      .thenEvents({ type: 'MessagePinned', data: { messageSeq: 4 } }),
  )
  test.each([pin(4), unpin(4)])('in a group is not for members: $type', (command) =>
    given(said, pinned('anna', 4)).when('ben', command).thenRefused('forbidden'),
  )
  test.each(['anna', 'ben'])('in a direct conversation is for both: %s', (userId) =>
    given(saidDirectly).when(userId, pin(1)).thenAccepted(),
  )
  test('twice is unchanged', () => given(said, pinned('anna', 4)).when('ada', pin(4)).thenUnchanged())
  test('taken away', () =>
    given(said, pinned('anna', 4))
      .when('ada', unpin(4))
      .thenEvents({ type: 'MessageUnpinned', data: { messageSeq: 4 } }))
  test('taken away twice is unchanged', () => given(said, pinned('anna', 4), unpinned('anna', 4)).when('ada', unpin(4)).thenUnchanged())
  test('what was recalled is refused', () => given(said, recalled('ben', 4)).when('anna', pin(4)).thenRefused('already_recalled'))
})

describe('on a look-up that is behind', () => {
  test.each([
    ['an edit', edited('ben', 4, 'better'), 'ben', edit(4, 'better'), 'unchanged'],
    ['a recall', recalled('ben', 4), 'ben', edit(4), 'already_recalled'],
    ['a pin', pinned('anna', 4), 'anna', pin(4), 'unchanged'],
    ['a reaction', reacted('cleo', 4), 'cleo', react(4), 'unchanged'],
    ["somebody else's reaction", reacted('ben', 4), 'cleo', react(4), 'accepted'],
    ['a reaction with another emoji', reacted('cleo', 4, '🎉'), 'cleo', react(4), 'accepted'],
    ['a change to another message', recalled('ada', 5), 'ben', edit(4), 'accepted'],
  ] as const)('%s since then counts', (_, since, userId, command, outcome) => {
    const behind = given(said, sent('ada', 'second'), since).when(userId, command, given(said).contextOf(userId, command))
    if (outcome === 'accepted') behind.thenAccepted()
    else if (outcome === 'unchanged') behind.thenUnchanged()
    else behind.thenRefused(outcome)
  })
})
