import { expect, test } from 'vitest'
import { clientOf } from '../src/event-stores/kurrentdb/connection-string.js'
import { describeError, errorText, redact } from '../src/logging.js'
import { StartError } from '../src/start-error.js'

const secret = 'hunter2/secret?x'
const url = `esdb://admin:${secret}@127.0.0.1:2113?tls=maybe`

test.each([
  [`cannot reach ${url}`, 'cannot reach esdb://***@127.0.0.1:2113?tls=maybe'],
  [`"redis://:${secret}@h:1", "postgres://me:${secret}@db/x"`, '"redis://***@h:1", "postgres://***@db/x"'],
  [`postgres://db/x?user=me&password=${'pw'}&ssl=true`, 'postgres://db/x?user=me&password=***&ssl=true'],
  ['https://id.example/jwks.json, me@example.com', 'https://id.example/jwks.json, me@example.com'],
])('%s is told without its secret', (text, expected) => expect(redact(text)).toBe(expected))

test('of a foreign error its name, message, code, stack and cause are told, and nothing else', () => {
  const error = Object.assign(new Error(`no ${url}`, { cause: Object.assign(new Error(`deep ${url}`), { password: secret }) }), {
    code: 'ECONNREFUSED',
    connectionString: url,
    config: { password: secret },
  })
  expect(describeError(error)).toMatchObject({ type: 'Error', code: 'ECONNREFUSED', cause: { message: expect.stringContaining('***') } })
  for (const told of [JSON.stringify(describeError(error)), errorText(error), errorText(url), errorText({ password: secret })])
    expect(told).not.toContain('hunter2')
})

test.each(['?tls=maybe', '?tls=false&foo=bar', '?tls', ''])(
  'a wrong EVENTSTORE_URL (%s) is told in one sentence, without the URL',
  (options) => {
    const warned: unknown[] = []
    const { warn } = console
    console.warn = (...texts: unknown[]) => void warned.push(...texts)
    const scheme = options === '' ? 'kurrentdb' : 'esdb'
    let thrown: unknown
    try {
      clientOf(`${scheme}://admin:hunter2@127.0.0.1:1${options}`)
    } catch (error) {
      thrown = error
    } finally {
      console.warn = warn
    }
    expect(thrown).toBeInstanceOf(StartError)
    expect(errorText(thrown)).toMatch(/^.*EVENTSTORE_URL/)
    expect(errorText(thrown) + warned.join()).not.toContain('hunter2')
  },
)
