import { readFile } from 'node:fs/promises'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { beforeAll, describe, expect, test } from 'vitest'
import { createOpenApiDocument } from '../../src/api/api.js'
import { refusals } from '../../src/domain/errors.js'

type Schema = { [key: string]: unknown }
interface Media {
  schema: Schema
  example?: unknown
  examples?: Record<string, { $ref: string }>
}
interface Operation {
  operationId: string
  summary: string
  tags: string[]
  parameters?: { $ref?: string; in?: string; name?: string; schema?: Schema; example?: unknown }[]
  requestBody?: { content: Record<string, Media> }
  responses: Record<string, { description: string; content: Record<string, Media> }>
}
interface Document {
  openapi: string
  paths: Record<string, Record<string, Operation>>
  components: { schemas: Record<string, Schema>; parameters: object; examples: Record<string, { value: { code: string } }> }
}

let document: Document
let operations: { path: string; method: string; operation: Operation }[]

beforeAll(async () => {
  document = (await createOpenApiDocument()) as Document
  operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  )
})

const calls = `
  PUT /users/{} GET /users/{} POST /tokens POST /conversations GET /conversations/{} PATCH /conversations/{} GET /conversations/{}/members
  POST /conversations/{}/members PATCH /conversations/{}/members/{} DELETE /conversations/{}/members/{} POST /conversations/{}/join POST /conversations/{}/leave
  POST /conversations/{}/messages GET /conversations/{}/messages GET /conversations/{}/messages/{} PATCH /conversations/{}/messages/{} DELETE /conversations/{}/messages/{}
  PUT /conversations/{}/messages/{}/reactions/{} DELETE /conversations/{}/messages/{}/reactions/{} PUT /conversations/{}/messages/{}/pin DELETE /conversations/{}/messages/{}/pin
  GET /conversations/{}/events POST /conversations/{}/read GET /conversations/{}/receipts GET /inbox PATCH /inbox/{} GET /unread POST /presence/query
  GET /contacts PUT /contacts/{} DELETE /contacts/{} GET /blocks PUT /blocks/{} DELETE /blocks/{} GET /devices DELETE /devices/{}`
  .trim()
  .split(/\s+(?=[A-Z]+ \/)/)

test('the committed document is current: if not, run "npm run openapi"', async () => {
  const committed = await readFile(new URL('../../openapi/openapi.json', import.meta.url), 'utf8')
  expect(JSON.parse(committed)).toEqual(JSON.parse(JSON.stringify(document)))
})

test('it is OpenAPI 3.1 and has exactly the calls of the contract', () => {
  expect(document.openapi).toMatch(/^3\.1\./)
  const listed = operations.map(({ path, method }) => `${method.toUpperCase()} ${path.replace(/^\/v1/, '').replace(/\{\w+\}/g, '{}')}`)
  expect(listed.sort()).toEqual([...calls].sort())
})

test('every operation has a name of its own, a summary and a known tag', () => {
  expect(new Set(operations.map(({ operation }) => operation.operationId)).size).toBe(operations.length)
  for (const { operation } of operations) expect(operation.summary && operation.tags.length, operation.operationId).toBe(1)
})

test('every read takes minPosition', () => {
  for (const { method, operation } of operations.filter((one) => one.method === 'get')) {
    expect(
      operation.parameters!.some(({ name }) => name === 'minPosition'),
      `${method} ${operation.operationId}`,
    ).toBe(true)
  }
})

test('each kind of content is found by its type', () => {
  const { discriminator } = document.components.schemas['Content'] as {
    discriminator: { propertyName: string; mapping: Record<string, string> }
  }
  expect(discriminator.propertyName).toBe('type')
  expect(Object.keys(discriminator.mapping)).toEqual(['text', 'image', 'voice', 'file', 'custom'])
})

test('every reference leads somewhere', () => {
  const references = [...JSON.stringify(document).matchAll(/"(#\/components\/[^"]+)"/g)].map(([, reference]) => reference!)
  for (const reference of new Set(references)) {
    const found = reference
      .slice(2)
      .split('/')
      .reduce<unknown>((at, key) => (at as Schema | undefined)?.[key], document)
    expect(found, reference).toBeDefined()
  }
})

describe('examples', () => {
  let ajv: Ajv2020
  beforeAll(() => {
    ajv = new Ajv2020({ strict: false, formats: { uri: true, 'date-time': (text: string) => new Date(text).toISOString() === text } })
    ajv.addSchema(document, 'doc')
  })
  const within = (value: unknown): unknown => JSON.parse(JSON.stringify(value).replaceAll('"#/components', '"doc#/components'))
  const check = (schema: Schema, example: unknown, what: string) => {
    const validate = ajv.compile(within(schema) as Schema)
    expect(validate(example), `${what}: ${JSON.stringify(example)} ${JSON.stringify(validate.errors)}`).toBe(true)
  }

  test('every body, answer and parameter has one, which its schema accepts', () => {
    for (const { operation } of operations) {
      const media = [
        operation.requestBody?.content['application/json'],
        ...Object.values(operation.responses).map(({ content }) => content['application/json']),
      ].filter((one) => one !== undefined)
      expect(media.length).toBeGreaterThan(0)
      for (const { schema, example } of media) check(schema, example, operation.operationId)
      for (const { name, schema, example } of operation.parameters ?? [])
        if (schema && name !== 'cursor') check(schema, example ?? schema['default'], `${operation.operationId} ${name}`)
    }
  })

  test('every problem is documented with its status, as problem+json', () => {
    for (const { operation } of operations) {
      const problems = Object.entries(operation.responses).filter(([status]) => Number(status) >= 400)
      expect(
        problems.map(([status]) => Number(status)),
        operation.operationId,
      ).toEqual(expect.arrayContaining([400, 401, 429, 500, 503]))
      for (const [status, { content }] of problems) {
        for (const code of Object.keys(content['application/problem+json']!.examples!)) {
          expect(refusals[code as keyof typeof refusals].status).toBe(Number(status))
          check({ $ref: '#/components/schemas/Problem' }, document.components.examples[code]!.value, code)
        }
      }
    }
  })
})
