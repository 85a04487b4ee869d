import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import type { Actor, EventMetadata } from '../../src/domain/event-store.js'
import { type AnyEvent, type EventType, schemaVersions } from '../../src/domain/events.js'
import { chainHash } from '../../src/domain/hash-chain.js'

type DataOf<Type extends EventType> = Extract<AnyEvent, { type: Type }>['data']
type RequiredKeys<Data> = { [Key in keyof Data]-?: object extends Pick<Data, Key> ? never : Key }[keyof Data]

/** The fields of an event as the compiler knows them: all of them, and those that are always there. */
interface Sample<Type extends EventType> {
  all: Required<DataOf<Type>>
  least: Pick<DataOf<Type>, RequiredKeys<DataOf<Type>>>
}

const [messageSeq, userId, deviceId, emoji] = [4, 'ben', 'phone', '👍']
const content = { type: 'text' as const, text: 'hello' }
const message = { clientMessageId: 'm-1', ordinal: 1, content }
const profile = { name: 'Ben', avatarUrl: null, custom: {} }
const group = { type: 'group' as const, joinPolicy: 'open' as const, members: [{ userId, role: 'owner' as const }] }
const same = <Data>(data: Data) => ({ all: data, least: data })

// A field that is new, gone or optional now is an error of the compiler here, and then of the test below.
const samples: { [Type in EventType]: Sample<Type> } = {
  ConversationCreated: { all: { ...group, name: 'Team', custom: {} }, least: group },
  ConversationUpdated: { all: { name: 'Team', joinPolicy: 'open', custom: {} }, least: {} },
  ConversationFrozen: same({}),
  ConversationUnfrozen: same({}),
  MemberJoined: same({ userId, role: 'member' }),
  MemberLeft: same({ userId }),
  MemberRemoved: same({ userId }),
  MemberRoleChanged: same({ userId, role: 'admin' }),
  MessageSent: { all: { ...message, replyToSeq: 2, mentions: [userId] }, least: message },
  MessageEdited: same({ messageSeq, content }),
  MessageRecalled: same({ messageSeq }),
  ReactionAdded: same({ messageSeq, emoji }),
  ReactionRemoved: same({ messageSeq, emoji }),
  MessagePinned: same({ messageSeq }),
  MessageUnpinned: same({ messageSeq }),
  ReadUpTo: { all: { userId, seq: 4, ordinal: 1, joinedSeq: 3 }, least: { userId, seq: 4, ordinal: 1 } },
  DeliveredUpTo: { all: { userId, seq: 4, joinedSeq: 3 }, least: { userId, seq: 4 } },
  UserRegistered: same(profile),
  ProfileChanged: same(profile),
  ContactAdded: same({ userId }),
  ContactRemoved: same({ userId }),
  UserBlocked: same({ userId }),
  UserUnblocked: same({ userId }),
  DeviceSeen: { all: { deviceId, replaced: 'old' }, least: { deviceId } },
  DeviceRevoked: { all: { deviceId, upTo: 1 }, least: { deviceId } },
  InboxMarked: {
    all: { conversationId: 'c', pinned: true, muted: true, hidden: true, ordinal: 1 },
    least: { conversationId: 'c', ordinal: 1 },
  },
}
const metadata: Required<EventMetadata> = { actor: { userId }, at: 1, correlationId: 'r', causationId: null, schemaVersion: 1, hash: 'h' }

const page = readFileSync(new URL('../../docs/events.md', import.meta.url), 'utf8')
const chapters = page.split(/^## /m).slice(1)
const entries = new Map(
  page
    .split(/^#{2,3} /m)
    .slice(1)
    .map((entry) => [entry.slice(0, entry.indexOf('\n')), entry]),
)

interface Row {
  field: string
  type: string
  meaning: string
}
function rowsOf(markdown: string): Row[] {
  const rows = [...markdown.matchAll(/^\| `([^`]+)` \| (.+?) \| (.*?) \|$/gm)]
  return rows.map(([, field, type, meaning]) => ({ field: field!, type: type!, meaning: meaning! }))
}

/** What the words of the tables mean. */
function isOf(type: string, value: unknown): boolean {
  if (type.endsWith(' or null')) return value === null || isOf(type.slice(0, -' or null'.length), value)
  if (type === 'integer') return Number.isInteger(value)
  if (type === 'string' || type === 'boolean') return typeof value === type
  if (type === 'object') return typeof value === 'object' && value !== null && !Array.isArray(value)
  if (type === 'role') return ['owner', 'admin', 'member'].includes(value as string)
  if (type === 'content') return ['text', 'image', 'voice', 'file', 'custom'].includes((value as { type: string }).type)
  if (type === 'list of strings') return Array.isArray(value) && value.every((item) => typeof item === 'string')
  const shape = /^list of `\{(.+)\}`$/.exec(type)?.[1]
  if (shape !== undefined) return Array.isArray(value) && value.every((item) => Object.keys(item as object).join(', ') === shape)
  return [...type.matchAll(/`"(\w+)"`/g)].some(([, literal]) => literal === value)
}

describe('docs/events.md', () => {
  const types = Object.keys(schemaVersions) as EventType[]

  test('names every type, and no other', () => {
    const named = [...entries.keys()].filter((heading) => /^[A-Z][A-Za-z]+$/.test(heading) && page.includes(`### ${heading}\n`))
    expect(named.sort()).toEqual([...types].sort())
  })

  test.each(types)('%s: its version, fields and their types', (type) => {
    const entry = entries.get(type)!
    const { all, least } = samples[type]
    expect(Number(/^Version (\d+)\. \S/m.exec(entry)?.[1])).toBe(schemaVersions[type])
    const expected = Object.keys(all).map((field) => (field in least ? field : `${field}?`))
    expect(
      rowsOf(entry)
        .map(({ field }) => field)
        .sort(),
    ).toEqual(expected.sort())
    for (const row of rowsOf(entry)) {
      const value = (all as Record<string, unknown>)[row.field.replace('?', '')]
      expect(isOf(row.type, value), `${row.field} is ${row.type}, but ${JSON.stringify(value)}`).toBe(true)
      expect(row.meaning).not.toBe('')
    }
    if (Object.keys(all).length === 0) expect(entry).toContain('No fields.')
  })

  test('puts every type under its stream', () => {
    const chapterOf = (type: EventType) => chapters.find((chapter) => chapter.includes(`### ${type}\n`))!.split('-')[0]
    expect(chapterOf('MessageSent')).toBe('conversation')
    for (const type of types) {
      const isOfUser = /^(User|Profile|Contact|Device|Inbox)/.test(type)
      expect(chapterOf(type), type).toBe(isOfUser ? 'user' : type.endsWith('UpTo') ? 'receipts' : 'conversation')
    }
  })

  test('names all metadata', () => {
    const rows = rowsOf(entries.get('What every event has')!.split('**Metadata**')[1]!)
    expect(rows.map(({ field }) => field)).toEqual(Object.keys(metadata))
    for (const { field, type } of rows) expect(isOf(type, metadata[field as keyof EventMetadata]), field).toBe(true)
  })

  test('has an example of the hash chain that a reader can verify, and that the code agrees with', () => {
    const examples = [...page.matchAll(/^\| (\d) \| `(\[.+\])` \| `([\w-]{43})` \|$/gm)].map(([, revision, hashed, hash]) => ({
      revision: Number(revision),
      hashed: hashed!,
      hash: hash!,
    }))
    expect(examples.map(({ revision }) => revision)).toEqual([0, 1])
    let previous = ''
    for (const { revision, hashed, hash } of examples) {
      expect(createHash('sha256').update(hashed, 'utf8').digest('base64url')).toBe(hash)
      const [before, stream, at, id, type, data, actor, time] = JSON.parse(hashed) as [
        string,
        string,
        number,
        string,
        string,
        object,
        Actor,
        number,
      ]
      expect([before, at]).toEqual([previous, revision])
      expect(chainHash(before, { stream, revision, id, type, dataJson: JSON.stringify(data), actor, at: time })).toBe(hash)
      previous = hash
    }
  })
})
