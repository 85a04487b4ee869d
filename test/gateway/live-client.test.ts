import { readFile } from 'node:fs/promises'
import { describe, expect, onTestFinished, test } from 'vitest'
import { WebSocket } from 'ws'
import { LiveClient, type LiveEvent } from '../../examples/live-client.js'
import { useServer } from '../support/app-server.js'
import { type User, eventually, sign } from '../support/world.js'

test('docs/websocket.md shows the client that is tested here', async () => {
  const read = (path: string) => readFile(new URL(`../../${path}`, import.meta.url), 'utf8')
  const [page, client] = await Promise.all([read('docs/websocket.md'), read('examples/live-client.ts')])
  expect(page.split('```ts\n')[1]?.split('```')[0]).toBe(client)
})

describe('the client of the documentation', () => {
  const world = useServer({ env: { FANOUT_ON_WRITE_MAX: '3' }, times: { repushAfterMs: 200 } })

  /** Its sockets, so that a test can cut the line. */
  function clientOf(user: User, getToken = async () => user.token) {
    const sockets: WebSocket[] = []
    const events: LiveEvent[] = []
    const refused: number[] = []
    let resets = 0
    class Watched extends WebSocket {
      constructor(url: string) {
        super(url)
        sockets.push(this)
        this.on('error', () => {})
      }
    }
    const client = new LiveClient({
      url: `${world().url.replace('http', 'ws')}/v1/ws`,
      deviceId: 'phone',
      getToken,
      WebSocket: Watched,
      onEvent: (event) => events.push(event),
      onReset: () => {
        resets += 1
      },
      onRefused: (code) => refused.push(code),
    })
    onTestFinished(() => client.stop())
    return { client, sockets, events, refused, resets: () => resets, cut: () => sockets.at(-1)!.terminate() }
  }
  async function deliveredTo(user: User, asking: User, { conversationId }: { conversationId: string }): Promise<number | null> {
    const { items } = await asking.get<{ items: { userId: string; deliveredSeq: number | null }[] }>(
      `/v1/conversations/${conversationId}/receipts`,
    )
    return items.find(({ userId }) => userId === user.id)!.deliveredSeq
  }
  /** Its hello was answered: facts are live from here on. */
  const welcomed = (user: User) =>
    eventually(async () => (await user.get<{ items: { online: boolean }[] }>('/v1/devices')).items[0]?.online, 'an answer to hello')
  const seqsOf = (events: LiveEvent[], { conversationId }: { conversationId: string }) =>
    events.filter((event) => event.conversationId === conversationId).map(({ seq }) => seq)
  const from0To = (last: number) => Array.from({ length: last + 1 }, (_, seq) => seq)

  test('has every fact once and in order, whatever breaks meanwhile', async () => {
    const [alice, bob] = world().users('alice', 'bob')
    const { client, events, sockets, cut } = clientOf(alice)
    await welcomed(alice)
    const group = await alice.group([bob])
    await client.send(group.conversationId, 'Hello')
    for (let round = 0; round < 3; round += 1) {
      await bob.sendMany(group, 5)
      cut()
      await bob.sendMany(group, 5)
      // It waits for the next connection.
      await client.send(group.conversationId, `still here ${round}`)
    }
    const head = (await bob.events(group)).at(-1)!.seq
    await eventually(async () => events.at(-1)?.seq === head, 'the last fact')
    expect(seqsOf(events, group)).toEqual(from0To(head))
    expect(sockets.length).toBeGreaterThan(3)
    await eventually(async () => (await deliveredTo(alice, bob, group)) === head, 'its acknowledgement')
  })

  test('sends once what it sends again because the line broke', async () => {
    const alice = world().user('alice')
    const { client, events, cut } = clientOf(alice)
    await welcomed(alice)
    const group = await alice.group()
    await client.send(group.conversationId, 'first')
    const sending = client.send(group.conversationId, 'once')
    cut()
    const { seq } = await sending
    await eventually(async () => events.at(-1)?.seq === seq, 'the fact')
    expect((await alice.events(group)).filter(({ type }) => type === 'MessageSent')).toHaveLength(2)
  })

  test('pulls what a large conversation only announces', async () => {
    const [alice, ...others] = world().users('alice', 'bob', 'carol', 'dave')
    const { events } = clientOf(alice)
    await welcomed(alice)
    const group = await others[0].group([alice, ...others.slice(1)])
    const { seq } = await others[0].sendMany(group, 20)
    await eventually(async () => seqsOf(events, group).at(-1) === seq, 'the last fact')
    const seqs = seqsOf(events, group)
    expect(seqs).toEqual(from0To(seq).slice(-seqs.length))
  })

  test('takes a new token where the old one has expired, and stops where it is told to', async () => {
    const alice = world().user('alice')
    const tokens = [sign({ sub: alice.id, exp: 1 }), alice.token, 'no token']
    const { refused, sockets, cut } = clientOf(alice, async () => tokens.shift()!)
    await eventually(async () => sockets.length === 2 && sockets[1]!.readyState === WebSocket.OPEN, 'a second connection')
    cut()
    await eventually(async () => refused.length > 0, 'a refusal')
    expect(refused).toEqual([4501])
  })
})
