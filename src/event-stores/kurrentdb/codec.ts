import type { AllStreamRecordedEvent, RecordedEvent as StoredEvent } from '@eventstore/db-client'
import shared from '@eventstore/db-client/generated/shared_pb.js'
import streams from '@eventstore/db-client/generated/streams_pb.js'
import { type Append, type EventMetadata, NO_STREAM, type ProposedEvent, RecordedEvent } from '../../domain/event-store.js'
import { toPlace } from './positions.js'

/**
 * Data and metadata are JSON, but are sent as opaque bytes: as "JSON" the client would serialise and parse them itself,
 * and what comes back would not be the text that was hashed.
 */
const contentType = 'application/octet-stream'

const { BatchAppendReq } = streams

/** One append as one message. It can be sent more than once, each time with another correlation id. */
export function encodeAppend({ stream, expectedRevision, events }: Append, streamPrefix: string): streams.BatchAppendReq {
  const options = new BatchAppendReq.Options()
  options.setStreamIdentifier(new shared.StreamIdentifier().setStreamName(bytesOf(streamPrefix + stream)))
  // Always an explicit revision: the only case in which the server knows a retry for certain.
  if (expectedRevision === NO_STREAM) options.setNoStream(new shared.Empty())
  else options.setStreamPosition(String(expectedRevision))
  // No deadline: it would be a point in time by our clock, and the server's may differ. It has a limit of its own.
  const request = new BatchAppendReq()
  request.setOptions(options)
  request.setProposedMessagesList(events.map(encodeEvent))
  request.setIsFinal(true)
  return request
}

function encodeEvent(event: ProposedEvent): streams.BatchAppendReq.ProposedMessage {
  const message = new BatchAppendReq.ProposedMessage()
  message.setId(new shared.UUID().setString(event.id))
  message.getMetadataMap().set('type', event.type).set('content-type', contentType)
  message.setData(bytesOf(event.dataJson))
  message.setCustomMetadata(bytesOf(JSON.stringify(event.metadata)))
  return message
}

/** What the server counts against its limit. */
export function sizeOf(request: streams.BatchAppendReq): number {
  let bytes = 0
  for (const message of request.getProposedMessagesList()) {
    const type = message.getMetadataMap().get('type') ?? ''
    bytes += message.getData().length + message.getCustomMetadata().length + type.length * 2
  }
  return bytes
}

export function decodeEvent(event: StoredEvent | AllStreamRecordedEvent, streamPrefix: string): RecordedEvent {
  const { position } = event
  if (position === undefined) throw new Error('This server does not tell positions with the events of a stream; 22.6 and later do')
  return new RecordedEvent(
    {
      id: event.id,
      type: event.type,
      stream: event.streamId.slice(streamPrefix.length),
      revision: Number(event.revision),
      dataJson: textOf(event.data),
    },
    toPlace(position.commit, position.prepare),
    '',
    // The client has parsed the metadata already. An event of another writer may have none.
    { data: undefined, metadata: (event.metadata ?? {}) as unknown as EventMetadata },
  )
}

/** An event of another writer may be "JSON": parsed already. */
function textOf(data: unknown): string {
  if (!(data instanceof Uint8Array)) return JSON.stringify(data)
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('utf8')
}

function bytesOf(text: string): Uint8Array {
  return Buffer.from(text, 'utf8')
}
