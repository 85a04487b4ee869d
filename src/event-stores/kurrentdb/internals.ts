import type { EventStoreDBClient } from '@eventstore/db-client'
import streamsGrpc from '@eventstore/db-client/generated/streams_grpc_pb.js'

/**
 * What of the client is not public and is used all the same, in this file alone.
 *
 * The client's own batch append can't be used: it keeps what is pending in one map for the process, an error of any stream of any client
 * fails them all, and an answer that comes for one of those later throws in the middle of an event handler and ends the process.
 * Its append call by call is safe and was measured at a quarter of the throughput.
 */
interface Internals {
  handleError: (stub: unknown, error: Error) => Promise<void>
  createChannel: () => Promise<{ close(): void }>
  GRPCStreamCreator(
    service: typeof streamsGrpc.StreamsClient,
    name: string,
    create: (stub: InstanceType<typeof streamsGrpc.StreamsClient>) => BatchAppendCall,
  ): () => Promise<BatchAppendCall>
  callArguments(options: { requiresLeader: boolean }, callOptions: { deadline: number }): Parameters<BatchAppendMethod>
}
type BatchAppendMethod = (
  metadata: Parameters<InstanceType<typeof streamsGrpc.StreamsClient>['batchAppend']>[0],
  options: object,
) => BatchAppendCall
export type BatchAppendCall = ReturnType<InstanceType<typeof streamsGrpc.StreamsClient>['batchAppend']>

const openChannels = new WeakMap<EventStoreDBClient, Set<{ close(): void }>>()
const endPatienceMs = 1000

/** Opens the call that carries appends, by the client's own channel, credentials and node. */
export function openBatchAppend(client: EventStoreDBClient, requiresLeader: boolean): Promise<BatchAppendCall> {
  const internals = client as unknown as Internals
  return internals.GRPCStreamCreator(streamsGrpc.StreamsClient, 'batchAppend', (stub) => {
    const batchAppend = stub.batchAppend.bind(stub) as BatchAppendMethod
    return batchAppend(...internals.callArguments({ requiresLeader }, { deadline: Infinity }))
  })()
}

/**
 * Makes a new client fit to be given up: its `dispose` ends its calls and leaves its channels, and so its sockets, open;
 * and where a call fails while it looks for a node in vain, nobody catches that, which ends the process.
 */
export function prepareClient(client: EventStoreDBClient): void {
  const internals = client as unknown as Internals
  const handleError = internals.handleError
  internals.handleError = (stub, error) => handleError(stub, error).catch(() => {})
  const channels = new Set<{ close(): void }>()
  openChannels.set(client, channels)
  const createChannel = internals.createChannel
  internals.createChannel = async () => {
    const channel = await createChannel()
    // The client was closed while it looked for a node.
    if (openChannels.get(client) !== channels) channel.close()
    channels.add(channel)
    return channel
  }
}

export async function closeClient(client: EventStoreDBClient): Promise<void> {
  const channels = openChannels.get(client) ?? new Set()
  openChannels.delete(client)
  await Promise.race([client.dispose().catch(() => {}), new Promise((resolve) => setTimeout(resolve, endPatienceMs).unref())])
  for (const channel of channels) channel.close()
}
