/** All devices of a node that is killed come at once to one other, which knows none of them and has to resume each. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Cluster } from './cluster.js'
import { type Row, milliseconds } from './figures.js'
import { NodeDevice, newTally } from './node-device.js'

const MEMBERS_PER_GROUP = 10
const CONNECT_AT_ONCE = 50
const MISSED = 5
const PATIENCE_MS = 120_000

export async function measureStorm({ nodes, createGroup, token, transactions, cpuMs }: Cluster, deviceCount: number): Promise<Row[]> {
  const [dying, other] = [nodes[1]!, nodes[2]!]
  const tally = newTally()
  const urls = [dying.url]
  const groups: NodeDevice[][] = []
  for (let group = 0; group * MEMBERS_PER_GROUP < deviceCount; group += 1) {
    const users = Array.from({ length: MEMBERS_PER_GROUP }, (_, i) => `storm-${group}-${i}`)
    const conversationId = await createGroup(users[0]!, users.slice(1))
    // One of each group is elsewhere, and speaks meanwhile.
    groups.push(
      users.map(
        (userId, i) => new NodeDevice({ userId, token: token(userId), urls: i === 0 ? [nodes[0]!.url] : urls, tally, conversationId }),
      ),
    )
  }
  const devices = groups.flat()
  for (let at = 0; at < devices.length; at += CONNECT_AT_ONCE)
    await Promise.all(devices.slice(at, at + CONNECT_AT_ONCE).map((device) => device.connect()))
  urls[0] = other.url
  const before = { transactions: await transactions(), cpuMs: cpuMs(other) }
  const startedAt = performance.now()
  await dying.kill()
  for (const [speaker] of groups) for (let n = 0; n < MISSED; n += 1) speaker!.say()
  while (!devices.every((device) => device.isSettled && device.last === MISSED)) {
    if (performance.now() - startedAt > PATIENCE_MS) throw new Error('not all devices have come back')
    await sleep(20)
  }
  const tookMs = performance.now() - startedAt
  const after = { transactions: await transactions(), cpuMs: cpuMs(other) }
  for (const device of devices) device.stop()
  await dying.start()
  const { count } = tally.recoveries
  return [
    {
      what: `${count} devices of a killed node come to one other`,
      figure: `all whole after ${milliseconds(tookMs)}, each ${String(tally.recoveries)}`,
    },
    {
      what: '    a device',
      figure: `${((after.transactions - before.transactions) / count).toFixed(1)} transactions of Postgres, CPU ${((after.cpuMs.node - before.cpuMs.node) / count).toFixed(2)} ms of the node, ${((after.cpuMs.postgres - before.cpuMs.postgres) / count).toFixed(2)} ms of Postgres`,
    },
    { what: '    holes, not recovered', figure: `${tally.holes}, ${tally.notRecovered}`, goal: '0' },
  ]
}
