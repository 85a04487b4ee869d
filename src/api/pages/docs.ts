/** `/docs`: the OpenAPI document to browse. The page, its script and the document are served from here; nothing comes from another host. */
import { readFileSync } from 'node:fs'
import type { FastifyInstance } from 'fastify'
import { refusals } from '../../domain/errors.js'
import { escapeHtml, pageOf, sendPage } from './html.js'

/** What the viewer would fetch or offer from its maker's hosts is switched off. */
const viewer = {
  withDefaultFonts: false,
  telemetry: false,
  agent: { disabled: true },
  showDeveloperTools: 'never',
  hideClientButton: true,
  documentDownloadType: 'json',
  metaData: { title: 'Convolog API' },
}

/** The document's address is relative to the page's, which may have a prefix that this server does not know. */
const start = `Scalar.createApiReference('#app', { ...${JSON.stringify(viewer)}, url: new URL('openapi.json', document.baseURI).href })\n`

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Convolog API</title>
</head>
<body>
<div id="app"></div>
<noscript>This page needs JavaScript; <a href="openapi.json">/openapi.json</a> does not.</noscript>
<script src="docs/viewer.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
`

const errorRows = Object.entries(refusals)
  .map(
    ([code, { status, title, temporary }]) =>
      `<tr id="${code}"><td><code>${code}</code></td><td>${status}</td><td>${escapeHtml(title)}</td><td>${temporary ? 'send the same again' : ''}</td></tr>`,
  )
  .join('\n')
const errorsPage = pageOf(
  'Convolog: errors',
  `<h1>Errors</h1>
<p>The same codes over HTTP, as <code>application/problem+json</code>, and over the WebSocket.</p>
<table>
<tr><th>code</th><th>HTTP</th><th>means</th><th></th></tr>
${errorRows}
</table>`,
)

export function docsRoutes(app: FastifyInstance): void {
  const script = readViewer()
  app.get('/docs', { schema: { hide: true } }, async (_request, reply) => sendPage(reply, page))
  app.get('/docs/errors', { schema: { hide: true } }, async (_request, reply) => sendPage(reply, errorsPage))
  app.get('/docs/start.js', { schema: { hide: true } }, async (_request, reply) => reply.type('text/javascript; charset=utf-8').send(start))
  app.get('/docs/viewer.js', { schema: { hide: true } }, async (_request, reply) =>
    reply.type('text/javascript; charset=utf-8').header('cache-control', 'public, max-age=3600').send(script),
  )
}

/** The package exports its plugin alone, whose page would start the viewer by an inline script. */
function readViewer(): Buffer {
  return readFileSync(new URL('js/standalone.js', import.meta.resolve('@scalar/fastify-api-reference')))
}
