/**
 * `npm run bench -- nodes [--devices 2000] [--seconds 60] [--rate 200] [--eventstore esdb://…]`: three nodes on one Postgres and one
 * Redis, with the log in Postgres or in the KurrentDB that is named. First how long a message takes from a device on one node to a
 * device on another; then how soon the devices of a killed node are whole on one other; then traffic, while one node after the
 * other is killed and started again every 10 s (`--seconds 0`: none). Every device's sequence is held against the log at the end.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Latencies, type Row, milliseconds, printTable, times } from './figures.js'
import { NodeDevice, type Tally, newTally } from './node-device.js'
import { type Cluster, type ClusterNode, startCluster } from './cluster.js'
import { measureStorm } from './storm.js'

const KILL_EVERY_MS = 10_000
const MEMBERS_PER_GROUP = 10
const CONNECT_AT_ONCE = 50
const SETTLE_MS_MAX = 60_000
const LATENCY_MESSAGES = 1_000
const FOLLOW_SENDERS = 50
const FOLLOW_AT_ONCE = 8
const FOLLOW_ROUNDS = 50

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: { devices: { type: 'string' }, seconds: { type: 'string' }, rate: { type: 'string' }, eventstore: { type: 'string' } },
})
const deviceCount = Number(values.devices ?? 2_000)
const trafficMs = Number(values.seconds ?? 60) * 1_000
const messagesPerSecond = Number(values.rate ?? 200)

const cluster = await startCluster(3, values.eventstore)
try {
  const rows = [await measureLatency(cluster), await measureFollowing(cluster), ...(await measureStorm(cluster, deviceCount))]
  if (trafficMs > 0) rows.push(...(await measureFaults(cluster)))
  printTable(rows)
} finally {
  await cluster.stop()
}
process.exit(process.exitCode ?? 0)

/** One message at a time: how long it takes to a device on the same node, and to one on another. */
async function measureLatency({ nodes, createGroup, token }: Cluster): Promise<Row> {
  const users = ['latency-0', 'latency-1', 'latency-2']
  const urls = [nodes[1]!, nodes[1]!, nodes[2]!].map(({ url }) => url)
  const conversationId = await createGroup(users[0]!, users.slice(1))
  const [sender, near, far] = users.map(
    (userId, i) => new NodeDevice({ userId, token: token(userId), urls: [urls[i]!], tally: newTally(), conversationId }),
  )
  await Promise.all([sender!, near!, far!].map((device) => device.connect()))
  const [toNear, toFar] = [new Latencies(), new Latencies()]
  for (let n = 0; n < LATENCY_MESSAGES; n += 1) {
    const sentAt = performance.now()
    const arrivals = [
      near!.next().then(() => toNear.add(performance.now() - sentAt)),
      far!.next().then(() => toFar.add(performance.now() - sentAt)),
    ]
    sender!.say()
    await Promise.all(arrivals)
    await sleep(2)
  }
  for (const device of [sender!, near!, far!]) device.stop()
  return {
    what: 'from a device to one on another node (raw: on the same node)',
    figure: String(toFar),
    raw: String(toNear),
    ratio: times(toFar.at(0.5) / toNear.at(0.5)),
    goal: 'p50 10 ms',
  }
}

/** Every node follows the whole log: what an event costs a node on which it concerns nobody. */
async function measureFollowing({ nodes, createGroup, token, cpuMs }: Cluster): Promise<Row> {
  const senders: NodeDevice[] = []
  for (let n = 0; n < FOLLOW_SENDERS; n += 1) {
    const userId = `follow-${n}`
    const conversationId = await createGroup(userId, [])
    senders.push(new NodeDevice({ userId, token: token(userId), urls: [nodes[1]!.url], tally: newTally(), conversationId }))
  }
  await Promise.all(senders.map((device) => device.connect()))
  const [here, there] = [nodes[1]!, nodes[2]!]
  const before = { here: cpuMs(here).node, there: cpuMs(there).node }
  for (let round = 0; round < FOLLOW_ROUNDS; round += 1) {
    for (const device of senders) for (let n = 0; n < FOLLOW_AT_ONCE; n += 1) device.say()
    while (!senders.every((device) => device.isSettled)) await sleep(1)
  }
  const events = FOLLOW_SENDERS * FOLLOW_ROUNDS * FOLLOW_AT_ONCE
  const perEvent = (node: ClusterNode, cpuBefore: number) => `${(((cpuMs(node).node - cpuBefore) / events) * 1_000).toFixed(1)} µs`
  const row = {
    what: 'CPU of an event on a node where it concerns nobody (raw: where it was sent)',
    figure: perEvent(there, before.there),
    raw: perEvent(here, before.here),
  }
  for (const device of senders) device.stop()
  return row
}

async function measureFaults(running: Cluster): Promise<Row[]> {
  const tally = newTally()
  const devices = await connectAll(running, tally)
  console.log(`${devices.length} devices are connected, ${messagesPerSecond} messages/s into groups of ${MEMBERS_PER_GROUP}`)
  const stopped = new AbortController()
  const killing = killInTurn(running, stopped.signal)
  for (const endsAt = performance.now() + trafficMs; performance.now() < endsAt; await sleep(50)) {
    for (let n = 0; n < messagesPerSecond / 20; n += 1) devices[Math.floor(Math.random() * devices.length)]!.say()
  }
  stopped.abort()
  const kills = await killing
  await settle(devices)
  const verdict = await judge(running, devices)
  if (verdict.lost + verdict.doubled + tally.reordered + tally.holes + tally.repeated > 0) process.exitCode = 1
  return [
    { what: 'devices, nodes, kills', figure: `${devices.length}, ${running.nodes.length}, ${kills}` },
    { what: 'messages acknowledged', figure: tally.acknowledged.toLocaleString('en') },
    { what: 'facts delivered', figure: tally.delivered.toLocaleString('en') },
    { what: 'lost', figure: String(verdict.lost), goal: '0' },
    { what: 'doubled in the log', figure: String(verdict.doubled), goal: '0' },
    { what: 'repeated on one connection', figure: String(tally.repeated), goal: '0' },
    { what: 'reordered', figure: String(tally.reordered), goal: '0' },
    { what: 'holes', figure: String(tally.holes), goal: '0' },
    { what: 'repeated at the seam of a resume, dropped by seq', figure: String(tally.seam) },
    { what: 'reconnects, of them not recovered', figure: `${tally.recoveries.count}, ${tally.notRecovered}` },
    {
      what: 'recovery (socket lost to hello answered)',
      figure: `${String(tally.recoveries)}, longest ${milliseconds(tally.recoveries.at(1))}`,
    },
    { what: 'send to acknowledgement', figure: `${String(tally.acks)}, longest ${milliseconds(tally.acks.at(1))}` },
  ]
}

async function connectAll({ nodes, createGroup, token }: Cluster, tally: Tally): Promise<NodeDevice[]> {
  const urls = nodes.map(({ url }) => url)
  const devices: NodeDevice[] = []
  for (let group = 0; group * MEMBERS_PER_GROUP < deviceCount; group += 1) {
    const [owner = '', ...others] = Array.from({ length: MEMBERS_PER_GROUP }, (_, i) => `user-${group}-${i}`)
    const conversationId = await createGroup(owner, others)
    for (const userId of [owner, ...others]) devices.push(new NodeDevice({ userId, token: token(userId), urls, tally, conversationId }))
  }
  for (let at = 0; at < devices.length; at += CONNECT_AT_ONCE)
    await Promise.all(devices.slice(at, at + CONNECT_AT_ONCE).map((device) => device.connect()))
  return devices
}

/** Kills one node after the other, each with SIGKILL, and starts it again at once. Gives how many were. */
async function killInTurn({ nodes }: Cluster, signal: AbortSignal): Promise<number> {
  let kills = 0
  for (;;) {
    await sleep(KILL_EVERY_MS, undefined, { signal }).catch(() => {})
    if (signal.aborted) return kills
    const node = nodes[kills % nodes.length]!
    const killedAt = performance.now()
    await node.kill()
    await node.start()
    kills += 1
    console.log(`node ${(kills - 1) % nodes.length} was killed, and is ready again after ${milliseconds(performance.now() - killedAt)}`)
  }
}

/** All that was sent is acknowledged, and all devices have what the furthest of their group has. */
async function settle(devices: readonly NodeDevice[]): Promise<void> {
  for (const giveUpAt = performance.now() + SETTLE_MS_MAX; performance.now() < giveUpAt; await sleep(100)) {
    const heads = new Map<string, number>()
    for (const { conversationId, last } of devices) heads.set(conversationId, Math.max(last, heads.get(conversationId) ?? 0))
    const waiting = devices.filter((device) => !device.isSettled || device.last < heads.get(device.conversationId)!)
    if (waiting.length === 0) return
  }
  console.log('not all devices have settled')
}

/** Holds what devices saw and what was acknowledged against the log. */
async function judge({ events }: Cluster, devices: readonly NodeDevice[]): Promise<{ lost: number; doubled: number }> {
  let [lost, doubled] = [0, 0]
  const groups = new Map<string, NodeDevice[]>()
  for (const device of devices) groups.set(device.conversationId, [...(groups.get(device.conversationId) ?? []), device])
  for (const [conversationId, members] of groups) {
    const log = await events(members[0]!.userId, conversationId)
    const seqOf = new Map<string, number>()
    for (const { seq, clientMessageId } of log) {
      if (clientMessageId === undefined) continue
      if (seqOf.has(clientMessageId)) doubled += 1
      seqOf.set(clientMessageId, seq)
    }
    const head = log.at(-1)?.seq ?? 0
    for (const device of members) {
      lost += Math.max(0, head - device.last)
      for (const [id, seq] of device.acknowledged) if (seqOf.get(id) !== seq) lost += 1
    }
  }
  return { lost, doubled }
}
