import type { FastifyInstance } from 'fastify'
import { publicUrlOf } from '../public-url.js'
import { escapeHtml, pageOf, sendPage } from './html.js'

/** `GET /`: what to try next. `secretsKeptIn`: the file that holds them, where they are not in the environment. */
export function startPage(app: FastifyInstance, secretsKeptIn: string | undefined): void {
  const secrets =
    secretsKeptIn === undefined
      ? 'The app secret is the one that you have set in <code>APP_KEYS</code>.'
      : `The app secret was made on the first start: it is <code>appSecret</code> in <code>${escapeHtml(secretsKeptIn)}</code> (what <code>APP_KEYS</code> sets comes before it).`
  app.get('/', { schema: { hide: true } }, async (request, reply) => {
    const html = pageOf('Convolog', bodyOf(secrets, escapeHtml(publicUrlOf(request))))
    return sendPage(reply, html)
  })
}

const bodyOf = (secrets: string, base: string) => `<h1>Convolog is running</h1>
<p>Every conversation is an append-only stream of events; its revision is the message sequence.</p>

<h2>1. Get a token for a user</h2>
<p>${secrets}</p>
<pre><code>SECRET=…   # the app secret
ALICE=$(curl -s ${base}/v1/tokens -H "Authorization: Bearer $SECRET" \\
  -H 'Content-Type: application/json' -d '{"userId":"alice"}' | sed 's/.*"token":"\\([^"]*\\)".*/\\1/')</code></pre>

<h2>2. Open a conversation and say something</h2>
<pre><code>ID=$(curl -s ${base}/v1/conversations -H "Authorization: Bearer $ALICE" \\
  -H 'Content-Type: application/json' -d '{"type":"direct","memberIds":["bob"]}' | sed 's/.*"conversationId":"\\([^"]*\\)".*/\\1/')

curl ${base}/v1/conversations/$ID/messages -H "Authorization: Bearer $ALICE" \\
  -H 'Content-Type: application/json' -d '{"clientMessageId":"1","content":{"type":"text","text":"Hello Bob"}}'

curl ${base}/v1/conversations/$ID/events -H "Authorization: Bearer $ALICE"</code></pre>

<h2>3. Look around</h2>
<ul>
<li><a href="docs">/docs</a>: all calls, to read and to try; <a href="docs/websocket">/docs/websocket</a>: the live protocol; <a href="docs/errors">/docs/errors</a>: what can go wrong</li>
<li><a href="openapi.json">/openapi.json</a>: the same for machines (OpenAPI 3.1)</li>
<li><code>/v1/ws</code>: the WebSocket; its first frame is <code>{"type":"hello","ref":1,"token":"…"}</code></li>
<li><a href="health/ready">/health/ready</a>, <a href="health/live">/health/live</a>, <a href="metrics">/metrics</a>: for whoever runs it</li>
</ul>`
