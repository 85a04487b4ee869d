import { afterAll, beforeAll, expect, test } from 'vitest'
import { createOpenApiDocument } from '../../src/api/api.js'
import { type TestApp, type TestCaller, callerWith, secretOf, startTestApp } from '../support/app.js'

/** Each call of the OpenAPI document with each of its parts missing, of another type, out of bounds, or too many. */

interface Schema {
  $ref?: string
  type?: string | string[]
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
  oneOf?: Schema[]
  enum?: unknown[]
  pattern?: string
  format?: string
  minLength?: number
  maxLength?: number
  minItems?: number
  maxItems?: number
  minimum?: number
  maximum?: number
  additionalProperties?: boolean
  minProperties?: number
}
interface Parameter {
  name: string
  in: string
  schema: Schema
  example?: unknown
  $ref?: string
}
interface Operation {
  operationId: string
  parameters: Parameter[]
  requestBody?: { content: { 'application/json': { schema: Schema; example: Record<string, unknown> } } }
}
interface Case {
  what: string
  method: string
  url: string
  body: unknown
  field: string
}

let app: TestApp
let caller: TestCaller
let document: { paths: Record<string, Record<string, Operation>>; components: { schemas: Record<string, Schema> } }

beforeAll(async () => {
  app = await startTestApp()
  caller = callerWith(app, secretOf.full).onBehalfOf('alice')
  document = (await createOpenApiDocument()) as typeof document
})
afterAll(() => app?.stop())

const resolved = (schema: Schema): Schema => (schema.$ref ? document.components.schemas[schema.$ref.split('/').at(-1)!]! : schema)
const typesOf = ({ type }: Schema) => [type ?? []].flat()

/** Values that this schema does not accept, each with the reason. */
function wrongValues(given: Schema): [why: string, value: unknown][] {
  const schema = resolved(given)
  const types = typesOf(schema)
  const others: [string, unknown][] = [
    ['a text', 'text'],
    ['a number', 7.5],
    ['a boolean', true],
    ['a list', []],
    ['an object', { surprise: 1 }],
    ['null', null],
  ]
  const namesOf: Record<string, string> = {
    string: 'a text',
    integer: 'a number',
    number: 'a number',
    boolean: 'a boolean',
    array: 'a list',
    object: 'an object',
    null: 'null',
  }
  const own = types.map((type) => namesOf[type]!)
  const wrong = others.filter(([name]) => !own.includes(name) || (name === 'a number' && types.includes('integer')))
  if (schema.enum) wrong.push(['no allowed value', 'nonsense'])
  if (schema.maxLength !== undefined) wrong.push(['too long', 'x'.repeat(schema.maxLength + 1)])
  if ((schema.minLength ?? 0) > 0) wrong.push(['empty', ''])
  if (schema.pattern !== undefined) wrong.push(['with NUL', 'a\0b'])
  if (schema.pattern !== undefined && !new RegExp(schema.pattern, 'u').test('ä b')) wrong.push(['of odd characters', 'ä b'])
  if (schema.format === 'uri') wrong.push(['no URL', 'javascript:alert(1)'])
  if (schema.maxItems !== undefined) wrong.push(['too many', Array.from({ length: schema.maxItems + 1 }, (_, i) => `user${i}`)])
  if ((schema.minItems ?? 0) > 0) wrong.push(['none', []])
  if (schema.items) for (const [why, value] of wrongValues(schema.items)) wrong.push([`with an item that is ${why}`, [value]])
  if (schema.minimum !== undefined) wrong.push(['below its bound', schema.minimum - 1])
  if (schema.maximum !== undefined) wrong.push(['above its bound', schema.maximum * 2], ['beyond all bounds', 1e300])
  return wrong
}

function bodyCases(method: string, path: string, { operationId, requestBody }: Operation): Case[] {
  if (!requestBody) return []
  const { schema: given, example } = requestBody.content['application/json']
  const schema = resolved(given)
  const of = (what: string, field: string, body: unknown): Case => ({ what: `${operationId}: ${what}`, method, url: path, body, field })
  const cases = [of('an unknown field', 'surprise', { ...example, surprise: 1 })]
  if (schema.minProperties !== undefined) cases.push(of('nothing', 'body', {}))
  for (const name of schema.required ?? []) cases.push(of(`${name} missing`, name, { ...example, [name]: undefined }))
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    for (const [why, value] of wrongValues(property)) cases.push(of(`${name} ${why}`, name, { ...example, [name]: value }))
    for (const variant of resolved(property).oneOf ?? []) cases.push(...contentCases(of, name, example, resolved(variant)))
  }
  return cases
}

/** The kinds of content: with each of their own fields missing or wrong. */
function contentCases(
  of: (what: string, field: string, body: unknown) => Case,
  name: string,
  example: Record<string, unknown>,
  variant: Schema,
): Case[] {
  const kind = variant.properties!['type']!.enum![0] as string
  const full: Record<string, unknown> = { type: kind }
  if (kind === 'text') full['text'] = 'hello'
  else if (kind === 'custom') full['data'] = {}
  else Object.assign(full, { url: 'https://cdn.example/x', mimeType: 'image/png', bytes: 1 })
  const cases = [of(`${name} ${kind} with an unknown field`, `${name}.surprise`, { ...example, [name]: { ...full, surprise: 1 } })]
  for (const required of variant.required!.filter((one) => one !== 'type'))
    cases.push(of(`${name} ${kind} without ${required}`, `${name}.${required}`, { ...example, [name]: { ...full, [required]: undefined } }))
  for (const [field, property] of Object.entries(variant.properties!).filter(([field]) => field !== 'type')) {
    for (const [why, value] of wrongValues(property))
      cases.push(of(`${name} ${kind} ${field} ${why}`, `${name}.${field}`, { ...example, [name]: { ...full, [field]: value } }))
  }
  return cases
}

function parameterCases(method: string, path: string, { operationId, parameters, requestBody }: Operation, template: string): Case[] {
  const body = requestBody?.content['application/json'].example
  const cases: Case[] = [{ what: `${operationId}: an unknown parameter`, method, url: `${path}?surprise=1`, body, field: 'surprise' }]
  for (const { name, in: place, schema } of parameters.filter(({ $ref }) => $ref === undefined)) {
    // In a path or query everything is text: what is only of another type there is a text that is no number.
    const isText = typesOf(schema).includes('string')
    const wrong = wrongValues(schema)
      .filter(([, value]) => typeof value === 'string' || typeof value === 'number')
      .filter(([, value]) => !isText || typeof value === 'string')
    for (const [why, value] of wrong) {
      if (place === 'path' && value === '') continue
      const text = encodeURIComponent(String(value))
      const url = place === 'path' ? fill(template, parameters, { [name]: text }) : `${path}?${name}=${text}`
      cases.push({ what: `${operationId}: ${name} ${why}`, method, url, body, field: name })
    }
    if (place === 'query')
      cases.push({ what: `${operationId}: ${name} twice`, method, url: `${path}?${name}=1&${name}=2`, body, field: name })
  }
  return cases
}

const fill = (template: string, parameters: Parameter[], over: Record<string, string> = {}) =>
  template.replace(
    /\{(\w+)\}/g,
    (_all, name: string) => over[name] ?? encodeURIComponent(String(parameters.find((one) => one.name === name)!.example)),
  )

test('each call refuses each wrong part of it and names it, and nothing breaks', { timeout: 120_000 }, async () => {
  const cases = Object.entries(document.paths).flatMap(([template, operations]) =>
    Object.entries(operations).flatMap(([method, operation]) => {
      const path = fill(template, operation.parameters)
      return [...bodyCases(method, path, operation), ...parameterCases(method, path, operation, template)]
    }),
  )
  const wrong: string[] = []
  for (const { what, method, url, body, field } of cases) {
    const call = { get: (path: string) => caller.get(path), post: caller.post, put: caller.put, patch: caller.patch, delete: caller.del }[
      method
    ]!
    const { status, text, body: problem } = await call(url, body)
    const isNamed = problem?.errors?.some(
      (one: { field: string }) => one.field === field || one.field.startsWith(`${field}.`) || field.startsWith(`${one.field}.`),
    )
    const isRefused = problem?.code === 'invalid_request' || (problem?.code === 'payload_too_large' && /too long/.test(what))
    if (!isRefused || !isNamed) wrong.push(`${what} → ${status} ${text.slice(0, 200)}`)
  }
  expect(wrong).toEqual([])
  expect(app.errors).toEqual([])
  console.log(`bad requests: ${cases.length} cases`)
  expect(cases.length).toBeGreaterThan(600)
})
