/** Requests over a few kept connections of one client. */
import { Agent, type ClientRequest, request as httpRequest } from 'node:http'

const ANSWER_MS_MAX = 30_000

export interface Answer {
  /** `2xx`, the code of the problem, or why there was no answer. */
  code: string
  text: string
}

export class HttpClient {
  readonly #agent: Agent
  readonly #url: URL

  constructor(url: string, { connections, localAddress }: { connections: number; localAddress?: string }) {
    this.#url = new URL(url)
    this.#agent = new Agent({ keepAlive: true, maxSockets: connections, ...(localAddress === undefined ? {} : { localAddress }) })
  }

  async ask(token: string, method: string, path: string, body?: object, headers: Record<string, string> = {}): Promise<Answer> {
    try {
      const { status, text } = await this.#roundTrip(token, method, path, body, headers)
      return { code: status < 300 ? '2xx' : codeOf(status, text), text }
    } catch (error) {
      return { code: (error as NodeJS.ErrnoException).code ?? String(error), text: '' }
    }
  }

  close(): void {
    this.#agent.destroy()
  }

  #roundTrip(token: string, method: string, path: string, body: object | undefined, headers: Record<string, string>) {
    const json = body === undefined ? undefined : JSON.stringify(body)
    return new Promise<{ status: number; text: string }>((resolve, reject) => {
      const request: ClientRequest = httpRequest(
        {
          agent: this.#agent,
          host: this.#url.hostname,
          port: this.#url.port,
          method,
          path: `/v1${path}`,
          headers: {
            authorization: `Bearer ${token}`,
            ...headers,
            ...(json === undefined ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(json) }),
          },
        },
        (answer) => {
          const parts: Buffer[] = []
          answer.on('data', (part: Buffer) => parts.push(part))
          answer.once('end', () => resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(parts).toString() }))
          answer.once('error', reject)
        },
      )
      request.setTimeout(ANSWER_MS_MAX, () => request.destroy(Object.assign(new Error(), { code: 'no answer' })))
      request.once('error', reject)
      request.end(json)
    })
  }
}

function codeOf(status: number, text: string): string {
  const [, code = String(status)] = /"code":"(\w+)"/.exec(text) ?? []
  return code
}
