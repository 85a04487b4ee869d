/** What hostile clients do, each in rounds that are repeated for as long as the bench runs. */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Attacker } from './attacker.js'

/** One content of nearly 32 KiB, so that each of them is another. */
export const largestContent = () => ({ type: 'custom', data: { id: randomUUID(), filling: 'y'.repeat(30_000) } })

interface Kind {
  what: string
  /** How many rounds run beside each other, for each client. */
  lanes: number
  attack: (attacker: Attacker, lane: number) => Promise<void>
  /** Whether it reads the large conversations, and is in the many ones. */
  needs?: 'large' | 'many'
}

const UNREAD_MS = 20_000
const MEMBERS_AT_ONCE = 1_000
const COLLIDING_GROUPS_MAX = 5
const PRESENCE_IDS = 500
const FRAMES_IN_FLIGHT = 16
const STORM_SOCKETS = 60
const STORM_MS = 11_000

export const kinds: Record<string, Kind> = {
  pages: {
    what: 'the largest pages, not read',
    lanes: 4,
    needs: 'large',
    attack: (attacker, lane) => attacker.restUnread(`${largeOf(attacker)}/${lane % 2 === 0 ? 'events' : 'messages'}?limit=200`, UNREAD_MS),
  },
  frames: { what: 'the largest events.get, not read', lanes: 1, needs: 'large', attack: readFramesUnread },
  slow: { what: 'a busy group, not read', lanes: 1, needs: 'large', attack: readSlowly },
  edits: { what: 'edits of the largest content', lanes: 1, attack: edit },
  colliding: { what: 'members with colliding ids', lanes: 1, attack: addColliding },
  groups: { what: 'groups of 1,000', lanes: 2, attack: createGroups },
  hellos: { what: 'hello in many conversations', lanes: 2, needs: 'many', attack: sayHelloAgain },
  storm: { what: 'sockets without a hello', lanes: STORM_SOCKETS, attack: storm },
  presence: { what: 'presence of 500 unknown ids', lanes: 1, attack: askPresence },
  inbox: { what: 'the inbox of many conversations', lanes: 2, needs: 'many', attack: readInbox },
  apps: { what: "an app's key at full speed", lanes: 4, attack: callAsApp },
}

function largeOf({ scene: { largeConversationIds } }: Attacker): string {
  return `/conversations/${largeConversationIds[Math.floor(Math.random() * largeConversationIds.length)]!}`
}

async function readFramesUnread(attacker: Attacker): Promise<void> {
  const socket = await attacker.welcome({ deviceId: 'reader' })
  socket.pause()
  const { largeConversationIds } = attacker.scene
  for (let n = 0; socket.isOpen; n++)
    await socket.say({ type: 'events.get', conversationId: largeConversationIds[n % largeConversationIds.length], after: -1, limit: 200 })
}

/** Comes back from before everything, reads nothing of it, and writes to the same conversation. */
async function readSlowly(attacker: Attacker): Promise<void> {
  const { largeConversationIds, firstPosition } = attacker.scene
  const socket = await attacker.welcome({ deviceId: 'slow', position: firstPosition })
  socket.pause()
  const conversationId = largeConversationIds[0]
  for (let n = 0; n < 100 && socket.isOpen; n++) {
    await socket.say({ type: 'message.send', conversationId, clientMessageId: randomUUID(), content: largestContent() })
    await sleep(100)
  }
  socket.end()
}

async function edit(attacker: Attacker): Promise<void> {
  const socket = await attacker.welcome({ deviceId: 'editor' })
  const conversationId = await ownGroup(attacker)
  const sent = await socket.ask({ type: 'message.send', conversationId, clientMessageId: randomUUID(), content: largestContent() })
  while (sent.seq !== undefined && socket.isOpen)
    await Promise.all(
      Array.from({ length: FRAMES_IN_FLIGHT }, () =>
        socket.ask({ type: 'message.edit', conversationId, seq: sent.seq, content: largestContent() }),
      ),
    )
  socket.end()
}

async function addColliding(attacker: Attacker): Promise<void> {
  const conversationId = await ownGroup(attacker)
  for (let n = 0; n < COLLIDING_GROUPS_MAX; n++)
    await attacker.rest('POST', `/conversations/${conversationId}/members`, {
      userIds: collidingIds(COLLIDING_GROUPS_MAX * MEMBERS_AT_ONCE).slice(n * MEMBERS_AT_ONCE, (n + 1) * MEMBERS_AT_ONCE),
    })
}

async function createGroups(attacker: Attacker): Promise<void> {
  const tag = randomUUID()
  await attacker.rest('POST', '/conversations', {
    type: 'group',
    memberIds: Array.from({ length: MEMBERS_AT_ONCE }, (_, i) => `${tag}-${i}`),
  })
}

async function sayHelloAgain(attacker: Attacker, lane: number): Promise<void> {
  const position = lane % 2 === 0 ? {} : { position: attacker.scene.firstPosition }
  const socket = await attacker.welcome({ deviceId: `again-${lane}`, ...position })
  socket.end()
}

/** Half of them say nothing, half a token that is none. */
async function storm(attacker: Attacker, lane: number): Promise<void> {
  const socket = await attacker.connect()
  if (lane % 2 === 0) attacker.count('no hello')
  else await socket.askAtOnce({ type: 'hello', token: `none.of.${randomUUID()}` })
  await Promise.race([socket.closed, sleep(STORM_MS)])
  socket.end()
}

async function askPresence(attacker: Attacker): Promise<void> {
  const socket = await attacker.welcome({ deviceId: 'curious' })
  while (socket.isOpen) {
    await Promise.all([
      socket.ask({ type: 'presence.query', userIds: unknownIds() }),
      socket.ask({ type: 'presence.query', userIds: unknownIds() }),
    ])
    await attacker.rest('POST', '/presence/query', { userIds: unknownIds() })
  }
}

async function readInbox(attacker: Attacker): Promise<void> {
  let cursor = ''
  do {
    const { code, text } = await attacker.rest('GET', `/inbox?limit=200${cursor && `&cursor=${encodeURIComponent(cursor)}`}`)
    cursor = code === '2xx' ? ((JSON.parse(text) as { nextCursor: string | null }).nextCursor ?? '') : ''
  } while (cursor !== '')
}

async function callAsApp(attacker: Attacker): Promise<void> {
  const userId = `of-app-${randomUUID()}`
  await attacker.rest('GET', `${largeOf(attacker)}/events?limit=200`)
  await attacker.rest('POST', '/tokens', { userId })
  await attacker.rest('PUT', `/users/${userId}`, { name: 'x'.repeat(200), custom: { filling: 'y'.repeat(3_900) } })
  await attacker.rest('POST', '/conversations', { type: 'group', memberIds: unknownIds() }, { 'on-behalf-of': userId })
}

const unknownIds = () => {
  const tag = randomUUID()
  return Array.from({ length: PRESENCE_IDS }, (_, i) => `${tag}-${i}`)
}

async function ownGroup(attacker: Attacker): Promise<string> {
  const { text, code } = await attacker.rest('POST', '/conversations', { type: 'group', memberIds: [] })
  if (code !== '2xx') throw new Error(code)
  return (JSON.parse(text) as { conversationId: string }).conversationId
}

const colliding: string[] = []

/** Ids that fall into one place of every table by FNV-1a of up to 4,096 places. */
function collidingIds(count: number): string[] {
  for (let n = 0; colliding.length < count; n++) {
    const id = n.toString(36)
    if (fnv1a(id) % 4_096 === 0) colliding.push(id)
  }
  return colliding
}

function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash >>> 0
}
