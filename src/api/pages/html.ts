/** The few pages that a browser sees. They load nothing from another host, and their policy says so. */
import type { FastifyReply } from 'fastify'

export const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`)

const style = `
  :root { color-scheme: light dark }
  body { font: 16px/1.55 system-ui, sans-serif; max-width: 46rem; margin: 3rem auto; padding: 0 1.25rem }
  h1 { font-size: 1.7rem; margin-bottom: .25rem } h2 { font-size: 1.1rem; margin-top: 2rem }
  pre { background: color-mix(in srgb, CanvasText 8%, Canvas); padding: .9rem 1rem; border-radius: .5rem; overflow-x: auto; font-size: .85rem }
  code { font-family: ui-monospace, monospace } li { margin: .3rem 0 }
  table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid color-mix(in srgb, CanvasText 15%, Canvas) }`

/** A whole page. `body` is HTML. */
export const pageOf = (title: string, body: string) => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
${body}
</body>
</html>
`

/** What pages may load: nothing but this server's own. The styles are the page's own or made by its script. */
const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; " +
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

export const sendPage = (reply: FastifyReply, html: string) =>
  reply.header('content-security-policy', PAGE_POLICY).type('text/html; charset=utf-8').send(html)
