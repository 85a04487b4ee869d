/** `Idempotency-Key` of `POST /conversations`. The group's id is made of it, so that a repeat meets the same stream: nothing is stored, and a key holds for ever. */
import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { Refusal, invalidField } from '../domain/errors.js'
import type { RecordedEvent } from '../domain/event-store.js'
import { type ConversationEvent, type JoinPolicy, type JsonObject, factOf } from '../domain/events.js'

type Created = Extract<ConversationEvent, { type: 'ConversationCreated' }>

export interface NewGroup {
  memberIds: readonly string[]
  name?: string
  joinPolicy?: JoinPolicy
  custom?: JsonObject
}

const keyForm = /^[ -~]{1,128}$/

/** The key of a request, checked. @throws {Refusal} invalid_request */
export function idempotencyKeyOf(header: string | string[] | undefined): string | undefined {
  if (header === undefined) return undefined
  if (typeof header !== 'string' || !keyForm.test(header)) throw invalidField('Idempotency-Key', 'has 1 to 128 printable ASCII characters')
  return header
}

/** No user id contains a space. */
export const keyedGroupId = (userId: string, key: string) => `g-${createHash('sha256').update(`${userId} ${key}`).digest('base64url')}`

/** @throws {Refusal} idempotency_conflict where the key has made something else */
export function requireSameGroup(first: RecordedEvent, group: NewGroup): void {
  const { data, metadata } = factOf<Created>(first)
  const members = new Set([metadata.actor.userId, ...group.memberIds])
  const isSame = isDeepStrictEqual(members, new Set(data.members.map(({ userId }) => userId)))
    && group.name === data.name && (group.joinPolicy ?? 'invite') === data.joinPolicy && isDeepStrictEqual(group.custom, data.custom)
  if (!isSame) throw conflict()
}

export const conflict = () => new Refusal('idempotency_conflict', 'This Idempotency-Key has created another conversation, whose first seq is 0: take a new key for a new one.')
