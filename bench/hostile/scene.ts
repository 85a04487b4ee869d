/** The conversations of the bench, made over REST, so that any version of the server can be measured. */
import { type Convolog, inParallel, later } from '../convolog.js'
import { kinds, largestContent } from './kinds.js'
import type { Hostile, OrdinaryJob, Scene } from './messages.js'

const LARGE_CONVERSATIONS = 8
/** A page's worth. */
const LARGE_MESSAGES = 200
const GROUP_OF = 5
const AT_ONCE = 16
const CATCH_UP_MS_MAX = 120_000

export interface SceneOptions {
  ordinary: number
  hostile: number
  kinds: readonly string[]
  /** In how many conversations those are who are in many. */
  many: number
}

export interface Made {
  scene: Scene
  ordinary: OrdinaryJob['users']
  hostile: readonly Hostile[]
}

/** Names of the apps with a key of their own. */
export const hostileAppKeys = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ name: `hostile${i}`, secret: `hostile-secret-${1e9 + i}` }))

export async function makeScene(convolog: Convolog, options: SceneOptions): Promise<Made> {
  const { position: firstPosition } = await later(() => convolog.call<{ position: string }>('nobody', 'GET', '/inbox'))
  const hostile = hostileClients(convolog, options)
  const ordinary = await ordinaryUsers(convolog, options.ordinary)
  const namesOf = (need: 'large' | 'many') => hostile.filter(({ kind }) => kinds[kind]!.needs === need).map(({ userId }) => userId)
  const largeConversationIds = await inParallel(Array.from({ length: LARGE_CONVERSATIONS }), 2, () => makeLarge(convolog, namesOf('large')))
  const last = await makeMany(convolog, namesOf('many'), options.many)
  if (last !== undefined) await convolog.caughtUp('nobody', last, CATCH_UP_MS_MAX)
  return { scene: { url: convolog.url, largeConversationIds, firstPosition }, ordinary, hostile }
}

function hostileClients(convolog: Convolog, { hostile, kinds: names }: SceneOptions): Hostile[] {
  const apps = hostileAppKeys(hostile)
  return Array.from({ length: hostile }, (_, i) => {
    const kind = names[i % names.length]!
    const userId = `hostile-${kind}-${i}`
    const token = kind === 'apps' ? apps[i]!.secret : convolog.token(userId)
    return { kind, userId, token, localAddress: `127.1.${i >> 8}.${i & 255}` }
  })
}

/** Each is in a direct conversation with its neighbour, and in a group of five. */
async function ordinaryUsers(convolog: Convolog, count: number): Promise<OrdinaryJob['users']> {
  const names = Array.from({ length: count }, (_, i) => `ordinary-${i}`)
  const directs = await inParallel(everyNth(names, 2), AT_ONCE, ([one = '', other = one]) =>
    later(() => convolog.createDirect(one, other === one ? 'ordinary-guest' : other)),
  )
  const groups = await inParallel(everyNth(names, GROUP_OF), AT_ONCE, ([owner = '', ...memberIds]) =>
    later(() => convolog.call<{ conversationId: string }>(owner, 'POST', '/conversations', { type: 'group', memberIds })),
  )
  return names.map((userId, i) => ({
    userId,
    token: convolog.token(userId),
    conversationIds: [directs[i >> 1]!.conversationId, groups[Math.floor(i / GROUP_OF)]!.conversationId],
  }))
}

async function makeLarge(convolog: Convolog, memberIds: readonly string[]): Promise<string> {
  const owner = 'owner-of-large'
  const { conversationId } = await later(() =>
    convolog.call<{ conversationId: string }>(owner, 'POST', '/conversations', { type: 'group', memberIds }),
  )
  const messages = Array.from({ length: LARGE_MESSAGES }, (_, i) => ({ clientMessageId: `m${i}`, content: largestContent() }))
  await inParallel(messages, AT_ONCE, (message) =>
    later(() => convolog.call(owner, 'POST', `/conversations/${conversationId}/messages`, message)),
  )
  return conversationId
}

/** Each made for another of them: what a user may do in a second is bounded. Gives the position of the last. */
async function makeMany(convolog: Convolog, memberIds: readonly string[], count: number): Promise<string | undefined> {
  if (memberIds.length === 0) return undefined
  const made = await inParallel(
    Array.from({ length: count }, (_, i) => memberIds[i % memberIds.length]!),
    AT_ONCE,
    (owner) =>
      later(() =>
        convolog.call<{ position: string }>(owner, 'POST', '/conversations', {
          type: 'group',
          memberIds: memberIds.filter((userId) => userId !== owner),
        }),
      ),
  )
  return made
    .map(({ position }) => position)
    .sort()
    .at(-1)
}

const everyNth = <Item>(items: readonly Item[], n: number): Item[][] =>
  Array.from({ length: Math.ceil(items.length / n) }, (_, i) => items.slice(i * n, (i + 1) * n))
