/**
 * `Idempotency-Key` of `POST /conversations`. The group's id is made of it, so that a repeat meets the same stream:
 * nothing is stored, and a key holds for ever.
 */
import { createHash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'
import { LRUCache } from 'lru-cache'
import { canonicalJson, isSameJson } from '../domain/canonical-json.js'
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

const DIRECT_CHARACTERS_MAX = 16 << 20
const DIRECT_KEY_MS = 24 * 60 * 60 * 1_000

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
  const isSame =
    isDeepStrictEqual(members, new Set(data.members.map(({ userId }) => userId))) &&
    group.name === data.name &&
    (group.joinPolicy ?? 'invite') === data.joinPolicy &&
    isSameJson(group.custom, data.custom)
  if (!isSame) throw conflict()
}

export interface NewDirect {
  memberIds: readonly string[]
  custom?: JsonObject
}

/**
 * Keys that came with direct conversations, each with its body and first result. Those conversations are repeated safely
 * by their nature, whatever the key; so it is only remembered here, for a day and while this process runs.
 */
export class DirectKeys<View extends object> {
  readonly #first = new LRUCache<string, { body: string; view: View }>({
    maxSize: DIRECT_CHARACTERS_MAX,
    sizeCalculation: ({ body, view }) => body.length + JSON.stringify(view).length,
    ttl: DIRECT_KEY_MS,
  })

  /** What the key has led to. `undefined` for the body: none, another kind is asked for. @throws {Refusal} idempotency_conflict */
  find(userId: string, key: string, body: NewDirect | undefined): View | undefined {
    const first = this.#first.get(`${userId} ${key}`)
    if (first && first.body !== bodyText(body)) throw conflict()
    return first?.view
  }

  /** Keeps what the key has led to. */
  remember(userId: string, key: string, body: NewDirect, view: View): void {
    this.#first.set(`${userId} ${key}`, { body: bodyText(body), view })
  }
}

const bodyText = (body: NewDirect | undefined) => canonicalJson(body ? [body.memberIds, body.custom ?? null] : null)

export const conflict = () =>
  new Refusal(
    'idempotency_conflict',
    'This Idempotency-Key has created another conversation, whose first seq is 0: take a new key for a new one.',
  )
