/** What each frame is for, with an example. The compiler counts them, and a test holds them to the schemas. */
import type { ConversationEvent } from '../../domain/events.js'
import type { ClientFrames } from '../frames.js'
import type { serverFrames } from '../server-frames.js'

const conversationId = 'g-Zm9vYmFyYmF6cXV4MTIzNA'
const at = '2026-05-04T09:30:00.125Z'
const position = '0000000000004711.Ab3dE_9x'
const content = { type: 'text', text: 'Hello Bob' }

interface Documented {
  summary: string
  description?: string
  example: object
}

type AsClientFrame = Documented & { /** The `ok`, where there is one. */ answer?: object }

export const clientFrameNotes: Record<keyof ClientFrames, AsClientFrame> = {
  hello: {
    summary: 'Says who is there; comes first, within 10 s',
    description:
      "Without `position`: from now on. With one: everything of one's conversations after it, then live, nothing missing and nothing twice; then the receipts that moved. " +
      'After more than 10,000 missed events, or with a position of another log, `ok` has `recovered: false` and says why in `reason`. With `acks: true` what is not acknowledged within 5 s comes again, at most three times. ' +
      "The token's `deviceId` must agree with one given here; without both the server makes one.",
    example: {
      type: 'hello',
      ref: 1,
      token: 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln',
      deviceId: 'phone',
      position: '0000000000004700.f0Qk-2Lm',
      acks: true,
    },
    answer: {
      type: 'ok',
      ref: 1,
      sessionId: '7b0c9d6e-3f3a-4c55-9d0a-1c2f5a6b7c8d',
      userId: 'alice',
      deviceId: 'phone',
      position: '0000000000004700.f0Qk-2Lm',
      recovered: true,
      heartbeatMs: 30_000,
    },
  },
  'message.send': {
    summary: 'Sends a message',
    description:
      '`ok` means durable. A resend of any age with the same `clientMessageId` and content is answered with the first result and `duplicate: true`, other content with `idempotency_conflict`.',
    example: { type: 'message.send', ref: 2, conversationId, clientMessageId: '3f1c-1', content, mentions: ['bob'] },
    answer: { type: 'ok', ref: 2, conversationId, seq: 17, ordinal: 9, position, sentAt: at },
  },
  'message.edit': {
    summary: 'Edits a message; its sender',
    example: { type: 'message.edit', ref: 3, conversationId, seq: 17, content: { type: 'text', text: 'Hello Bob!' } },
    answer: { type: 'ok', ref: 3, seq: 18, position: '0000000000004712.p7Rt1aZ_' },
  },
  'message.recall': {
    summary: 'Recalls a message; its sender, the owner and admins',
    description: 'Its content, and that of its edits, is then served by no read.',
    example: { type: 'message.recall', ref: 4, conversationId, seq: 17 },
    answer: { type: 'ok', ref: 4, seq: 19, position: '0000000000004713.p7Rt1aZ_' },
  },
  'reaction.add': {
    summary: 'Reacts to a message',
    description: 'At most 50 different ones a message.',
    example: { type: 'reaction.add', ref: 5, conversationId, seq: 17, emoji: '👍' },
    answer: { type: 'ok', ref: 5, seq: 20, position: '0000000000004714.p7Rt1aZ_' },
  },
  'reaction.remove': {
    summary: "Takes one's own reaction away",
    example: { type: 'reaction.remove', ref: 6, conversationId, seq: 17, emoji: '👍' },
    answer: { type: 'ok', ref: 6, seq: 20, position: '0000000000004714.p7Rt1aZ_', unchanged: true },
  },
  read: {
    summary: "Moves one's own read cursor",
    description: 'Everything up to `seq` is read. Without `ref` nothing is answered, and it may be coalesced for a second.',
    example: { type: 'read', ref: 7, conversationId, seq: 17 },
    answer: { type: 'ok', ref: 7, readSeq: 17, position: '0000000000004715.p7Rt1aZ_' },
  },
  ack: {
    summary: 'All up to `seq` has arrived on this device',
    description: "The highest over a user's devices is its `deliveredSeq`.",
    example: { type: 'ack', conversationId, seq: 17 },
  },
  'events.get': {
    summary: 'Reads facts in seq order: what fills a gap',
    description: '`after` is exclusive; left out or -1: from 0. Go on with the last seq as long as there is `more`.',
    example: { type: 'events.get', ref: 8, conversationId, after: 16, limit: 50 },
    answer: {
      type: 'ok',
      ref: 8,
      events: [
        {
          conversationId,
          seq: 17,
          type: 'MessageSent',
          at,
          actor: { userId: 'alice' },
          data: { clientMessageId: '3f1c-1', ordinal: 9, content },
          position,
          head: 17,
        },
      ],
      head: 17,
      more: false,
    },
  },
  typing: {
    summary: 'Tells the other members that one is typing',
    description:
      'Holds for 6 s: say it again while it goes on. `on: true` is relayed once a second at most. `blocked` in a direct conversation with a block.',
    example: { type: 'typing', conversationId, on: true },
  },
  active: {
    summary: 'Which conversation is open on this device',
    description:
      'In a large one (above `FANOUT_ON_WRITE_MAX` members, 500) a device that is not active gets `head` in place of the events. `null`: none.',
    example: { type: 'active', conversationId },
  },
  'presence.query': {
    summary: 'Who is online now, as far as one may see it',
    example: { type: 'presence.query', ref: 9, userIds: ['bob'] },
    answer: { type: 'ok', ref: 9, items: [{ userId: 'bob', online: true, lastSeenAt: null }] },
  },
  'presence.subscribe': {
    summary: 'Asks for `presence` of these users, and of contacts',
    description: 'A new subscription replaces the old; without users and contacts there is none.',
    example: { type: 'presence.subscribe', ref: 10, userIds: ['bob'], contacts: true },
    answer: { type: 'ok', ref: 10, items: [{ userId: 'bob', online: false, lastSeenAt: at }] },
  },
  ping: {
    summary: 'Asks for a `pong`',
    description: 'All frames before it have been handled when the `pong` comes.',
    example: { type: 'ping', ref: 11 },
  },
}

export const serverFrameNotes: Record<keyof typeof serverFrames, Documented> = {
  events: {
    summary: 'Facts',
    description:
      'To every connected device of the members, the sending one too. `resume` is never ahead of what was sent or announced by `head` on this connection; it may lag, so a client drops by `seq` what it has. ' +
      'Only frames with `again` repeat on one connection.',
    example: {
      type: 'events',
      events: [
        {
          conversationId,
          seq: 17,
          type: 'MessageSent',
          at,
          actor: { userId: 'alice' },
          data: { clientMessageId: '3f1c-1', ordinal: 9, content },
          position,
          head: 17,
        },
      ],
      resume: position,
    },
  },
  head: {
    summary: 'There is more up to here: pull it with `events.get`',
    description: 'In place of events; and before the `MemberJoined` of who comes back, up to what it missed in between.',
    example: { type: 'head', conversationId, seq: 42, resume: '0000000000004790.p7Rt1aZ_' },
  },
  receipt: {
    summary: "A member's cursor moved, one's own too",
    description: 'Not pushed in conversations above 500 members.',
    example: { type: 'receipt', conversationId, userId: 'bob', readSeq: 17 },
  },
  unread: { summary: "One's own counts changed", example: { type: 'unread', conversationId, unread: 1, mentions: 1, total: 4 } },
  presence: {
    summary: 'Somebody came or went',
    description:
      'Of subscribed users, and to those who have the user as a contact. A block makes either look offline to the other, at once.',
    example: { type: 'presence', userId: 'bob', online: false, lastSeenAt: at },
  },
  typing: {
    summary: 'Somebody else is typing, or has stopped',
    description: 'In conversations above 500 members to devices that are active there.',
    example: { type: 'typing', conversationId, userId: 'bob', on: true },
  },
  goaway: { summary: 'This node is leaving: a close with 4000 follows', example: { type: 'goaway', reconnectAfterMs: 350 } },
  pong: { summary: 'The answer to `ping`', example: { type: 'pong', ref: 11 } },
  error: {
    summary: 'A frame was refused, or a close follows',
    example: {
      type: 'error',
      ref: 5,
      code: 'not_found',
      message: 'There is no such conversation, or you are not a member of its conversation.',
      temporary: false,
    },
  },
}

/** `data` of each event type. */
export const eventExamples: Record<ConversationEvent['type'], object> = {
  ConversationCreated: {
    type: 'group',
    name: 'Crew',
    joinPolicy: 'invite',
    members: [
      { userId: 'alice', role: 'owner' },
      { userId: 'bob', role: 'member' },
    ],
  },
  ConversationUpdated: { name: 'The crew' },
  ConversationFrozen: {},
  ConversationUnfrozen: {},
  MemberJoined: { userId: 'carol', role: 'member' },
  MemberLeft: { userId: 'carol' },
  MemberRemoved: { userId: 'carol' },
  MemberRoleChanged: { userId: 'bob', role: 'admin' },
  MessageSent: { clientMessageId: '3f1c-1', ordinal: 9, content, replyToSeq: 12, mentions: ['bob'] },
  MessageEdited: { messageSeq: 17, content: { type: 'text', text: 'Hello Bob!' } },
  MessageRecalled: { messageSeq: 17 },
  ReactionAdded: { messageSeq: 17, emoji: '👍' },
  ReactionRemoved: { messageSeq: 17, emoji: '👍' },
  MessagePinned: { messageSeq: 17 },
  MessageUnpinned: { messageSeq: 17 },
}

/** A whole event of a type. */
export const eventExample = (type: string, data: object) => ({
  conversationId,
  seq: 17,
  type,
  at,
  actor: { userId: 'alice' },
  data,
  position,
  head: 17,
})
