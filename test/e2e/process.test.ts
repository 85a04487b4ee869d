import { spawnSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { readCorpus } from '../support/corpus.js'
import type { Device } from '../support/device.js'
import { SocketSender } from '../support/senders.js'
import { ServerProcess } from '../support/server-process.js'
import { type Conversation, type User, eventually, text } from '../support/world.js'

/** By hand: CORPUS_LINES=50000. */
const LINES = Number(process.env['CORPUS_LINES'] ?? 3_000)
const AT_ONCE = 50

/** Processes that see no others, as in a container. */
const asContainer = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc']
const hasContainers = spawnSync(asContainer[0]!, [...asContainer.slice(1), 'true']).status === 0

let server: ServerProcess
beforeAll(async () => {
  server = await ServerProcess.start()
}, 150_000)
afterEach(() => server.heal(), 150_000)
afterAll(() => server?.end())

test('a second server on the same data directory stops with one sentence that says so, and the first goes on', async () => {
  const { exit, output } = await server.startAnother()
  expect(exit).toEqual({ code: 1, signal: null })
  expect(output.trim().split('\n')).toEqual([expect.stringMatching(/^DATA_DIR \S+ is in use by another server \(process \d+\): .+\.$/)])
  await server.ready()
  const user = server.world.user()
  await user.send(await user.group())
})

test.skipIf(!hasContainers)('a second server in another container is kept away from the same data directory, too', async () => {
  const { exit, output } = await server.startAnother(asContainer)
  expect(exit).toEqual({ code: 1, signal: null })
  expect(output).toMatch(/^DATA_DIR \S+ is in use by another server \(process \d+ of another container or host, .+\): .+\.$/m)
  await server.ready()
})

test(
  'real text in many scripts comes back as it was sent, to every device and from the history',
  async () => {
    const lines = readCorpus(LINES)
    expect(lines.length).toBe(LINES)
    for (const script of ['Latin', 'Cyrillic', 'Han', 'Hangul', 'Hiragana', 'Devanagari', 'Arabic', 'Hebrew', 'Thai'])
      expect(
        lines.some((line) => new RegExp(`\\p{Script=${script}}`, 'u').test(line)),
        script,
      ).toBe(true)
    expect(lines.filter((line) => /\p{Extended_Pictographic}/u.test(line)).length).toBeGreaterThan(100)

    const users = server.world.users('a', 'b', 'c', 'd', 'e', 'f')
    const group = await users[0].group(users.slice(1))
    const pairs = await Promise.all(users.map((user, n) => user.direct(users[(n + 1) % users.length]!)))
    const devices = await Promise.all(users.map((user) => user.connect()))
    // Of three lines of each, two go to the group, and one to a neighbour.
    const placeOf = (index: number) => ({
      sender: index % users.length,
      conversation: Math.floor(index / users.length) % 3 === 2 ? pairs[index % users.length]! : group,
    })
    await Promise.all(
      devices.map((device, n) =>
        sendLines(device, lines, (index) => (placeOf(index).sender === n ? placeOf(index).conversation : undefined)),
      ),
    )

    const sentTo = ({ conversationId }: Conversation) =>
      Object.fromEntries(
        lines.flatMap((line, index) => (placeOf(index).conversation.conversationId === conversationId ? [[`line-${index}`, line]] : [])),
      )
    for (const conversation of [group, ...pairs]) {
      const wanted = sentTo(conversation)
      const members = users.flatMap((_, n) =>
        conversation === group || pairs[n] === conversation || pairs[(n + users.length - 1) % users.length] === conversation ? [n] : [],
      )
      expect(members.length).toBe(conversation === group ? 6 : 2)
      for (const n of members) {
        await devices[n]!.waitForSeq(conversation.conversationId, Object.keys(wanted).length)
        const got = devices[n]!.events(conversation.conversationId).flatMap(({ type, data }) =>
          type === 'MessageSent' ? [[data.clientMessageId, (data.content as { text: string }).text]] : [],
        )
        expect(Object.fromEntries(got)).toEqual(wanted)
        expect(got.length).toBe(Object.keys(wanted).length)
      }
      expect(await history(users[members[0]!]!, conversation)).toEqual(wanted)
    }
    expect(server.world.endDevices()).toEqual([])
  },
  300_000 + LINES * 20,
)

async function sendLines(
  device: Device,
  lines: readonly string[],
  conversationOf: (index: number) => Conversation | undefined,
): Promise<void> {
  const own = lines.flatMap((line, index) => {
    const conversation = conversationOf(index)
    return conversation ? [{ conversationId: conversation.conversationId, clientMessageId: `line-${index}`, content: text(line) }] : []
  })
  for (let at = 0; at < own.length; at += AT_ONCE)
    await Promise.all(own.slice(at, at + AT_ONCE).map((message) => device.ask('message.send', message)))
}

async function history(user: User, { conversationId }: Conversation): Promise<Record<string, string>> {
  const found: [string, string][] = []
  const { head } = await user.get<{ head: number }>(`/v1/conversations/${conversationId}`)
  for (let after = 0; after < head; ) {
    const { items } = await eventually(async () => {
      const page = await user.get<{ items: { seq: number; clientMessageId: string; content: { text: string } }[] }>(
        `/v1/conversations/${conversationId}/messages?after=${after}&limit=200`,
      )
      return page.items.length > 0 && page
    }, 'the history to be there')
    found.push(...items.map(({ clientMessageId, content }): [string, string] => [clientMessageId, content.text]))
    after = items.at(-1)!.seq
  }
  expect(found.length).toBe(head)
  return Object.fromEntries(found)
}

test('SIGTERM in the middle of traffic: devices are told, the exit is clean and in time, what was acknowledged is there, and the rest can be sent again', async () => {
  const users = server.world.users('a', 'b', 'c', 'd')
  const conversation = await users[0].group(users.slice(1))
  const senders = users.map((user) => new SocketSender({ user, conversationId: conversation.conversationId, messages: 400, atOnce: 16 }))
  const listening = await users[0].connect()
  const sending = senders.map((sender) => sender.run())
  const acknowledged = () => senders.reduce((sum, sender) => sum + sender.acknowledged.size, 0)
  await eventually(async () => acknowledged() > 200, 'some to be sent')
  expect(server.postgresPid).toBeGreaterThan(0)
  server.signal('SIGTERM')
  expect(await Promise.race([server.exited, sleep(15_000, 'still there after 15 s')])).toEqual({ code: 0, signal: null })
  expect(server.output).not.toMatch(/error/i)
  await eventually(async () => server.postgresPid === undefined, 'Postgres to be gone')
  expect(await listening.waitForClose()).toBe(4000)
  expect(listening.ofType('goaway')).toEqual([{ type: 'goaway', reconnectAfterMs: expect.any(Number) }])
  expect(acknowledged()).toBeLessThan(1_600)
  await server.restart()
  await Promise.all(sending)
  const events = await users[0].events(conversation)
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, n) => n))
  for (const { user, ids, acknowledged: seqs } of senders) {
    const own = events.filter(({ actor, type }) => type === 'MessageSent' && actor.userId === user.id)
    expect(own.map(({ data }) => data.clientMessageId)).toEqual(ids)
    expect(own.map(({ seq }) => seq)).toEqual(ids.map((id) => seqs.get(id)))
  }
  expect(server.world.violations()).toEqual([])
}, 600_000)
