import { setTimeout as sleep } from 'node:timers/promises'

/** One call over HTTP: the answer as it came. */
export interface Answer<Body = Record<string, unknown>> {
  status: number
  body: Body
  headers: Headers
}

export interface CallOptions {
  method?: string
  body?: unknown
  token?: string | undefined
  headers?: Record<string, string>
}

const TIMEOUT_MS = 30_000

export async function call<Body = Record<string, unknown>>(
  url: string,
  { method = 'GET', body, token, headers = {} }: CallOptions = {},
): Promise<Answer<Body>> {
  const answer = await fetch(url, {
    method,
    headers: {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    signal: AbortSignal.timeout(TIMEOUT_MS),
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  return { status: answer.status, headers: answer.headers, body: (text.startsWith('{') ? JSON.parse(text) : { text }) as Body }
}

const BUDGET_LOOK_MS = 200

/** Does what a caller's budget allows, and tries again while it is used up: for tests that fill a server faster than a user may. */
export async function withinBudget<Result>(work: () => Promise<Result>): Promise<Result> {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof Error && error.message.includes('rate_limited'))) throw error
      await sleep(BUDGET_LOOK_MS)
    }
  }
}

/** The answer's body, which must be a success. */
export async function succeed<Body = Record<string, unknown>>(asked: Promise<Answer<Body>>): Promise<Body> {
  const { status, body } = await asked
  if (status >= 300) throw new Error(`expected a success; came ${status} ${JSON.stringify(body)}`)
  return body
}
