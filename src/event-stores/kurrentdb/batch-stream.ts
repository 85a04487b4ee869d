import shared from '@eventstore/db-client/generated/shared_pb.js'
import type streams from '@eventstore/db-client/generated/streams_pb.js'
import { NO_STREAM } from '../../domain/event-store.js'
import { isNotSent } from './errors.js'
import type { BatchAppendCall } from './internals.js'
import { findPlace } from './positions.js'

/** How the server answered an append, or why it did not. */
export type Reply =
  /** Committed, now or before; `place` is the last event's, where the server tells it. */
  | { kind: 'committed'; place: string | undefined }
  | { kind: 'conflict'; actualRevision: number }
  /** Never: the server says no to this very append. */
  | { kind: 'refused'; reason: string }
  /** Nothing was written; later it may work. */
  | { kind: 'notNow'; reason: unknown }
  | { kind: 'unknown'; reason: unknown }

type Settle = (reply: Reply) => void

const refusals = new Set(
  ['AccessDenied', 'StreamDeleted', 'MaximumAppendSizeExceeded', 'BadRequest'].map((name) => `event_store.client.${name}`),
)
const notNow = /^(Server Is Not Ready|Server Is Busy|No leader info|Unknown NotHandledReason)/

/** One gRPC call that carries the appends of all streams; each answer comes by itself, in any order. */
export class BatchStream {
  readonly #call: BatchAppendCall
  readonly #pending = new Map<string, Settle>()
  readonly #onAnswer: () => void
  #last = 0
  #ended: unknown

  constructor(call: BatchAppendCall, { onAnswer, onEnd }: { onAnswer: () => void; onEnd: (error: unknown) => void }) {
    this.#call = call
    this.#onAnswer = onAnswer
    const end = (error: unknown): void => {
      if (this.#ended !== undefined) return
      this.#ended = error
      onEnd(error)
      for (const settle of this.#pending.values()) settle({ kind: isNotSent(error) ? 'notNow' : 'unknown', reason: error })
      this.#pending.clear()
    }
    call.on('data', (response: streams.BatchAppendResp) => this.#answered(response))
    call.on('error', end)
    call.on('end', () => end(new Error('The server ended the call')))
    call.on('close', () => end(new Error('The call was closed')))
  }

  /** Sends an append and waits for so long. Never rejects. */
  send(request: streams.BatchAppendReq, deadlineMs: number): Promise<Reply> {
    if (this.#ended !== undefined) return Promise.resolve({ kind: 'notNow', reason: this.#ended })
    const id = String(++this.#last)
    request.setCorrelationId(
      new shared.UUID().setStructured(new shared.UUID.Structured().setMostSignificantBits('0').setLeastSignificantBits(id)),
    )
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id)
        resolve({ kind: 'unknown', reason: new Error(`No answer within ${deadlineMs} ms`) })
      }, deadlineMs)
      this.#pending.set(id, (reply) => {
        clearTimeout(timer)
        resolve(reply)
      })
      this.#call.write(request)
    })
  }

  #answered(response: streams.BatchAppendResp): void {
    this.#onAnswer()
    const id = response.getCorrelationId()?.getStructured()?.getLeastSignificantBits() ?? ''
    // Absent where it was given up meanwhile.
    this.#pending.get(id)?.(toReply(response))
    this.#pending.delete(id)
  }
}

function toReply(response: streams.BatchAppendResp): Reply {
  const success = response.getSuccess()
  const at = success?.getPosition()
  if (success !== undefined) return { kind: 'committed', place: at && findPlace(at.getCommitPosition(), at.getPreparePosition()) }
  const error = response.getError()
  const details = error?.getDetails()
  const type = details?.getTypeName() ?? ''
  const reason = `${type} ${error?.getMessage() ?? ''}`.trim()
  if (type === 'event_store.client.WrongExpectedVersion')
    return { kind: 'conflict', actualRevision: actualRevision(details!.getValue_asU8()) }
  if (notNow.test(error?.getMessage() ?? '')) return { kind: 'notNow', reason: new Error(reason) }
  // What is not known to be a no (a time-out in the middle of a commit) may have been written.
  return refusals.has(type) ? { kind: 'refused', reason } : { kind: 'unknown', reason: new Error(reason) }
}

function actualRevision(bytes: Uint8Array): number {
  const details = shared.WrongExpectedVersion.deserializeBinary(bytes)
  return details.hasCurrentStreamRevision() ? Number(details.getCurrentStreamRevision()) : NO_STREAM
}
