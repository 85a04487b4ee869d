import { afterEach, expect, test } from 'vitest'
import { type LogName, logNames, startLog, withoutLog } from '../support/logs.js'
import { Node } from '../support/nodes.js'
import { startTestPostgres } from '../support/postgres.js'
import { dumpTables, execute } from '../support/read-side.js'
import { type User, eventually, unique } from '../support/world.js'

const started: { stop(): Promise<void> }[] = []
afterEach(async () => {
  for (const one of started.splice(0).reverse()) await one.stop()
})

for (const name of logNames)
  test.skipIf(withoutLog(name))(
    `tables built anew from a log in ${name}, beside a server or by one that starts, are those that it kept, byte for byte`,
    { timeout: 600_000 },
    async () => {
      const { node, connectionString } = await start(name)
      await live(node)
      const kept = await dumpTables(connectionString)
      expect(Object.keys(kept).filter((table) => kept[table]!.length === 0)).toEqual([])
      // Else a replay that did nothing would pass, too.
      await execute(connectionString, 'UPDATE read.messages SET content = NULL; DELETE FROM read.inbox; DELETE FROM read.receipts')
      await node.command('replay')
      expect(await dumpTables(connectionString)).toEqual(kept)
      await node.kill()
      await execute(connectionString, 'DROP SCHEMA read CASCADE')
      await node.restart()
      const anybody = node.user()
      await eventually(async () => (await anybody.call('GET', '/v1/inbox')).status === 200, 'the read models to be built', 240_000)
      expect(await dumpTables(connectionString)).toEqual(kept)
    },
  )

async function start(name: LogName): Promise<{ node: Node; connectionString: string }> {
  const [postgres, log] = await Promise.all([startTestPostgres(), startLog(name)])
  started.push(postgres, log)
  const connectionString = await postgres.createDatabase()
  // Of the groups below one is written for each member, one is not.
  const node = await Node.start({ DATABASE_URL: connectionString, FANOUT_ON_WRITE_MAX: '3', ...log.env })
  started.push(node)
  return { node, connectionString }
}

/** Something of everything that is kept in a table; ends when the tables show all of it. */
async function live(node: Node): Promise<void> {
  const [alice, bob, carol, dave] = node.world.users('alice', 'bob', 'carol', 'dave')
  await alice.write('PUT', `/v1/users/${alice.id}`, { name: 'Alice', custom: { team: 'blue' } })
  await alice.write('PUT', `/v1/contacts/${bob.id}`)
  await bob.write('PUT', `/v1/blocks/${dave.id}`)
  const phone = await alice.connect({ deviceId: 'phone', acks: true })
  const [small, large, direct] = [await alice.group([bob]), await alice.group([bob, carol, dave]), await alice.direct(carol)]
  for (const conversation of [small, large, direct]) await talk(alice, bob, conversation)
  await carol.leave(large)
  await alice.remove(large, dave)
  await alice.add(large, carol)
  await bob.write('PATCH', `/v1/inbox/${large.conversationId}`, { pinned: true, muted: true })
  const { seq } = await alice.send(large, 'for bob', { mentions: [bob.id] })
  await phone.waitForSeq(large.conversationId, seq)
  phone.send({ type: 'ack', conversationId: large.conversationId, seq })
  await eventually(async () => (await deliveredTo(alice, bob, large)) === seq, 'what the phone has acknowledged to be known')
  node.world.endDevices()
  const { position } = await alice.send(small, 'the last')
  await alice.get(`/v1/inbox?minPosition=${position}`)
}

/** Messages, and what becomes of them. */
async function talk(alice: User, bob: User, conversation: { conversationId: string }): Promise<void> {
  const path = `/v1/conversations/${conversation.conversationId}`
  const { seq } = await alice.sendMany(conversation, 12)
  await alice.write('PATCH', `${path}/messages/${seq}`, { content: { type: 'text', text: 'edited' } })
  await alice.recall(conversation, seq - 1)
  await alice.write('PUT', `${path}/messages/${seq - 2}/pin`)
  await alice.write('PUT', `${path}/messages/${seq - 3}/reactions/${encodeURIComponent('👍')}`)
  await alice.write('POST', `${path}/read`, { seq })
  const reply = { clientMessageId: unique('m'), content: { type: 'text', text: 'yes' }, replyToSeq: seq }
  if ((await bob.call('POST', `${path}/messages`, reply)).status !== 201) return
  await bob.write('POST', `${path}/read`, { seq: seq - 4 })
}

async function deliveredTo(user: User, asking: User, { conversationId }: { conversationId: string }): Promise<number | null | undefined> {
  const { items } = await asking.get<{ items: { userId: string; deliveredSeq: number | null }[] }>(
    `/v1/conversations/${conversationId}/receipts`,
  )
  return items.find(({ userId }) => userId === user.id)?.deliveredSeq
}
