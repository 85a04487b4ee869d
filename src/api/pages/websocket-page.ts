/** `/docs/websocket`: the AsyncAPI document as a page, made on the server, so that it needs no script. `/asyncapi.json` is the document itself. */
import type { FastifyInstance } from 'fastify'
import { escapeHtml, pageOf, sendPage } from './html.js'

interface Schema {
  $ref?: string
  title?: string
  type?: string | string[]
  const?: string
  enum?: (string | null)[]
  description?: string
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
  anyOf?: Schema[]
  oneOf?: Schema[]
}

interface Message {
  name: string
  summary: string
  description?: string
  payload: Schema
  examples: { name: string; payload: { events?: { type: string; data: object }[] } }[]
}

interface Reference {
  $ref: string
}

/** What the page reads of the document. */
interface AsyncApi {
  info: { title: string; description: string }
  operations: Record<string, { action: 'send' | 'receive'; messages: Reference[]; reply?: { messages: Reference[] } }>
  components: { messages: Record<string, Message>; schemas: Record<string, Schema> }
  'x-close-codes': { code: number; reconnect: boolean; when: string; advice: string }[]
}

export function webSocketPage(app: FastifyInstance, document: object): void {
  const html = pageOf('Convolog: WebSocket', bodyOf(document as AsyncApi))
  const json = JSON.stringify(document)
  app.get('/docs/websocket', { schema: { hide: true } }, async (_request, reply) => sendPage(reply, html))
  app.get('/asyncapi.json', { schema: { hide: true } }, async (_request, reply) =>
    reply.type('application/json; charset=utf-8').serializer(String).send(json),
  )
}

function bodyOf(document: AsyncApi): string {
  const { info, operations, components } = document
  const found = ({ $ref }: Reference) => components.messages[$ref.split('/').at(-1)!]!
  const received = Object.values(operations).filter(({ action }) => action === 'receive')
  const sent = Object.values(operations).filter(({ action }) => action === 'send')
  const events = Object.entries(components.schemas).filter(([, { properties }]) => properties?.['data'] && properties['head'])
  return `<h1>WebSocket <code>/v1/ws</code></h1>
<p><a href="../docs">REST</a> · <a href="errors">errors</a> · <a href="../asyncapi.json">this as AsyncAPI</a></p>
${prose(info.description)}
<h2 id="clients">What clients send</h2>
${received.map(({ messages, reply }) => clientFrame(found(messages[0]!), (reply?.messages ?? []).map(found))).join('\n')}
<h2 id="server">What the server pushes</h2>
${sent
  .map(({ messages }) => found(messages[0]!))
  .map((message) => frame(message, `push-${message.name}`))
  .join('\n')}
<h2 id="events">Events</h2>
<p>An event has <code>conversationId</code>, <code>seq</code>, <code>type</code>, <code>at</code>, <code>actor</code>, <code>data</code>, <code>position</code> and <code>head</code>; <code>data</code> is as its type says.</p>
${events.map(([type, { properties }]) => `<h3 id="event-${type}"><code>${type}</code></h3>\n${fields(properties!['data']!)}\n${example(eventExample(components.messages, type))}`).join('\n')}
<h2 id="close">Close codes</h2>
<table><tr><th>code</th><th>when</th><th>what to do</th></tr>
${document['x-close-codes'].map(({ code, when, advice }) => `<tr><td>${code}</td><td>${inline(when)}</td><td>${inline(advice)}</td></tr>`).join('\n')}
</table>`
}

function clientFrame(message: Message, replies: readonly Message[]): string {
  const answers = replies.filter(({ name }) => name !== 'error')
  return [
    frame(message, message.name),
    ...answers.map((answer) => `<p>Answer:</p>\n${fields(answer.payload, ['type', 'ref'])}\n${example(answer.examples[0]?.payload)}`),
  ].join('\n')
}

const frame = (
  { name, summary, description, payload, examples }: Message,
  id: string,
) => `<h3 id="${escapeHtml(id)}"><code>${escapeHtml(name)}</code></h3>
<p>${inline(summary)}.</p>
${description === undefined ? '' : `<p>${inline(description)}</p>\n`}${fields(payload, ['type'])}
${example(examples[0]?.payload)}`

function fields({ properties = {}, required = [], description }: Schema, without: readonly string[] = []): string {
  const shown = Object.entries(properties).filter(([name]) => !without.includes(name))
  const note = description === undefined ? '' : `<p>${inline(description)}</p>\n`
  if (shown.length === 0) return `${note}<p>No fields.</p>`
  const rows = shown.map(
    ([name, schema]) =>
      `<tr><td><code>${escapeHtml(name)}${required.includes(name) ? '' : '?'}</code></td><td>${typeOf(schema)}</td><td>${inline(schema.description ?? '')}</td></tr>`,
  )
  return `${note}<table>${rows.join('\n')}</table>`
}

function typeOf(schema: Schema): string {
  const { $ref, type, enum: values, items, anyOf, oneOf } = schema
  if ($ref !== undefined) return escapeHtml($ref.split('/').at(-1)!)
  const variants = anyOf ?? oneOf
  if (variants) return variants.map(typeOf).join(' or ')
  if (values) return values.map((value) => `<code>${escapeHtml(String(value))}</code>`).join(' ')
  if (items) return `list of ${typeOf(items)}`
  return [type ?? 'any'].flat().map(escapeHtml).join(' or ')
}

const eventExample = (messages: AsyncApi['components']['messages'], type: string) =>
  messages['server.events']?.examples.find(({ name }) => name === type)?.payload.events?.[0]?.data

const example = (value: object | undefined) =>
  value === undefined ? '' : `<pre><code>${escapeHtml(JSON.stringify(value, null, 2))}</code></pre>`

/** The little of Markdown that descriptions use: paragraphs, bold and code. */
const prose = (text: string) =>
  text
    .split('\n\n')
    .map((paragraph) => `<p>${inline(paragraph)}</p>`)
    .join('\n')

const inline = (text: string) =>
  escapeHtml(text)
    .replace(/`([^`]+)`/g, '<code>$1</code>')
    .replace(/\*\*([^*]+)\*\*/g, '<b>$1</b>')
