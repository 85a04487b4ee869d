/** (e) Opening conversations that are not in memory: one of a thousand events, and a long one. */
import { Conversations } from '../../src/domain/conversations.js'
import { Users } from '../../src/domain/users.js'
import { PostgresEventStore } from '../../src/event-stores/postgres/postgres-event-store.js'
import { ReadModels } from '../../src/projections/read-models.js'
import { logger, tell, withPostgres } from './parts.js'

const SHORT = 1_000
const LONG = 100_000
const IN_FLIGHT = 512
const OPENS = 30
const CACHE_WEIGHT_MAX = 256 << 20

await withPostgres(async (connectionString) => {
  const store = await PostgresEventStore.open({ connectionString, logger })
  const readModels = await ReadModels.open({ connectionString, store, logger, fanoutOnWriteMax: 500, project: true })
  const open = () => {
    const users = new Users({ store, snapshots: readModels.snapshots, logger, cacheWeightMax: CACHE_WEIGHT_MAX })
    return new Conversations({
      store,
      snapshots: readModels.snapshots,
      history: readModels.history,
      users,
      logger,
      membersMax: 1_000,
      cacheWeightMax: CACHE_WEIGHT_MAX,
    })
  }
  const writer = open()
  await write(writer, 'g-short', SHORT)
  const startedAt = performance.now()
  await write(writer, 'g-long', LONG)
  const written = (LONG * 1_000) / (performance.now() - startedAt)
  await writer.close()
  // In turns, so that whatever else the machine does meets both.
  const took = { short: [] as number[], long: [] as number[] }
  for (let i = 0; i < OPENS; i++) {
    took.short.push(await timeToOpen(open(), 'g-short', SHORT))
    took.long.push(await timeToOpen(open(), 'g-long', LONG))
  }
  await readModels.close()
  await store.close()
  tell({ short: median(took.short), long: median(took.long), written, longEvents: LONG })
})

async function write(conversations: Conversations, id: string, count: number): Promise<void> {
  const requester = { actor: { userId: 'u1' }, correlationId: 'bench' }
  await conversations.create(
    { type: 'CreateConversation', conversationType: 'group', memberIds: ['u1', 'u2'], joinPolicy: 'invite' },
    id,
    requester,
  )
  let next = 0
  const send = async () => {
    while (next < count) {
      const n = next++
      const { seq } = await conversations.send(
        id,
        { type: 'SendMessage', clientMessageId: `m${n}`, content: { type: 'text', text: 'x'.repeat(100) } },
        requester,
      )
      if (seq !== n + 1) throw new Error(`message ${n} was given seq ${seq}`)
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, send))
}

async function timeToOpen(conversations: Conversations, id: string, head: number): Promise<number> {
  const startedAt = performance.now()
  const state = await conversations.stateOf(id)
  const ms = performance.now() - startedAt
  if (state.head !== head) throw new Error(`${id} was opened at ${state.head} instead of ${head}`)
  return ms
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
}
