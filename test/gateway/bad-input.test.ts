import { afterAll, beforeAll, expect, test } from 'vitest'
import { clientFrameNotes } from '../../src/gateway/asyncapi/examples.js'
import { clientFrames } from '../../src/gateway/frames.js'
import { useServer } from '../support/app-server.js'
import type { Device, Frame } from '../support/device.js'
import type { User } from '../support/world.js'
import { type Schema, wrongValues } from '../support/wrong-values.js'

/**
 * Each frame with each of its fields missing, of another type, out of bounds, or unknown: `invalid_request` that names the field, and
 * the connection stays; after a `hello` that would be refused again it is closed with 4501.
 */

interface Case {
  what: string
  frame: Record<string, unknown>
  field: string
}

const world = useServer()
let alice: User
let device: Device
let conversationId: string
let count = 0

beforeAll(async () => {
  alice = world().user('alice')
  ;({ conversationId } = await alice.group())
})
afterAll(() => console.log(`bad frames: ${count} cases`))

test.each(Object.entries(clientFrames) as unknown as [string, Schema][])('%s', async (type, schema) => {
  const isHello = type === 'hello'
  device = isHello ? await alice.open() : await alice.connect()
  const good = goodFrame(type)
  for (const one of casesOf(type, schema, good)) {
    await refuse(one)
    if (!isHello) continue
    expect(await device.waitForClose(), one.what).toBe(4501)
    device = await alice.open()
  }
  count += casesOf(type, schema, good).length
  // All of them have done no harm: the same frame without a fault is taken.
  if (isHello) expect(await device.sayHello({ token: alice.token })).toMatchObject({ type: 'ok' })
  else await device.settled()
  expect(device.closeCode).toBeUndefined()
})

test('a frame of no known type is refused with its ref, and the connection stays', async () => {
  device = await alice.connect()
  for (const type of ['', 'Hello', 'message', 'ok', 'events', '__proto__', 'constructor', 'x'.repeat(1_000)]) {
    await refuse({ what: `type ${type.slice(0, 20)}`, frame: { type, ref: 0 }, field: 'type' })
    count += 1
  }
})

/** The documented example, in a conversation that is there. */
function goodFrame(type: string): Record<string, unknown> {
  const { example } = clientFrameNotes[type as keyof typeof clientFrames]
  return {
    ...(example as { type: string }),
    ...('conversationId' in example ? { conversationId } : {}),
    ...(type === 'hello' ? { token: alice.token } : {}),
  }
}

function casesOf(type: string, schema: Schema, good: Record<string, unknown>): Case[] {
  const cases: Case[] = [{ what: `${type}: an unknown field`, frame: { ...good, surprise: 1 }, field: 'surprise' }]
  for (const name of schema.required ?? [])
    if (name !== 'type') cases.push({ what: `${type}: ${name} missing`, frame: { ...good, [name]: undefined }, field: name })
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    if (name === 'type') continue
    for (const [why, value] of wrongValues(property))
      cases.push({ what: `${type}: ${name} ${why}`, frame: { ...good, [name]: value }, field: name })
    for (const variant of property.oneOf ?? []) cases.push(...contentCases(type, name, variant, good))
  }
  return cases
}

/** The kinds of content: with each of their own fields missing or wrong. */
function contentCases(type: string, name: string, { properties = {}, required = [] }: Schema, good: Record<string, unknown>): Case[] {
  const kind = (properties['type']!.const ?? properties['type']!.enum![0]) as string
  const own =
    kind === 'text'
      ? { text: 'Hello' }
      : kind === 'custom'
        ? { data: {} }
        : { url: 'https://cdn.example/x', mimeType: 'image/png', bytes: 1 }
  const full = { type: kind, ...own }
  const of = (what: string, field: string, content: object): Case => ({
    what: `${type}: ${kind} ${what}`,
    frame: { ...good, [name]: content },
    field: `${name}.${field}`,
  })
  return [
    of('with an unknown field', 'surprise', { ...full, surprise: 1 }),
    ...required.filter((one) => one !== 'type').map((one) => of(`without ${one}`, one, { ...full, [one]: undefined })),
    ...Object.entries(properties).flatMap(([field, property]) =>
      field === 'type' ? [] : wrongValues(property).map(([why, value]) => of(`${field} ${why}`, field, { ...full, [field]: value })),
    ),
  ]
}

/** Sends a frame; its one answer refuses it by naming the field, with the ref where it has a usable one. */
async function refuse({ what, frame, field }: Case): Promise<void> {
  const ref = device.nextRef()
  const isRefWrong = field === 'ref' || !('ref' in frame)
  const before = device.frames.length
  device.send(isRefWrong ? frame : { ...frame, ref })
  const answer = await device.until(
    () => device.frames.slice(before).find((one: Frame) => one.type === 'ok' || one.type === 'error'),
    `an answer to ${what}`,
  )
  expect(answer, what).toMatchObject({ type: 'error', code: 'invalid_request', temporary: false })
  expect(answer.message, what).toMatch(new RegExp(`^${field.replaceAll('.', String.raw`\.`)}\\b`))
  expect(answer.ref, what).toBe(isRefWrong ? undefined : ref)
}
