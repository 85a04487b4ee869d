/** Which web pages may call: those of ALLOWED_ORIGINS, and where it is not set, those of the request's own host. */

interface Origin {
  readonly protocol: string
  readonly hostname: string
  /** Empty: the default of the protocol. */
  readonly port: string
}

/** A scheme, a host, perhaps with `*.` before it, and perhaps a port; nothing after. */
const ORIGIN_FORM = /^[a-z][a-z\d+.-]*:\/\/(\*\.)?(\[[\da-f:.]+\]|[^\s/?#@:*\\[\]]+)(:\d{1,5})?$/i
const ANY_LABEL = '*.'

/** Whether a text is one of the forms that ALLOWED_ORIGINS takes. */
export function isOriginForm(text: string): boolean {
  return text === '*' || (ORIGIN_FORM.test(text) && parse(withoutWildcard(text)) !== undefined)
}

/** The origins that a setting allows; REST and WebSocket ask the same one. */
export class Origins {
  /** Whether all are allowed. */
  readonly isOpen: boolean
  readonly #exact = new Set<string>()
  readonly #suffixes: { readonly suffix: string; readonly origin: Origin }[] = []

  constructor(allowed: readonly string[]) {
    this.isOpen = allowed.includes('*')
    for (const text of allowed) {
      const origin = parse(withoutWildcard(text))
      if (text === '*' || origin === undefined) continue
      if (text.includes(ANY_LABEL)) this.#suffixes.push({ suffix: `.${origin.hostname}`, origin })
      else this.#exact.add(textOf(origin))
    }
  }

  /** Whether the setting names the origin of a browser's request. */
  isAllowed(text: string): boolean {
    if (this.isOpen) return true
    const origin = parse(text)
    if (origin === undefined) return false
    return this.#exact.has(textOf(origin)) || this.#suffixes.some((one) => isBelow(origin, one))
  }
}

/** Whether the page is of the host that the request names, compared as URLs are; which scheme a proxy spoke is not known here. */
export function isOfHost(text: string, host: string | undefined): boolean {
  const origin = parse(text)
  if (origin === undefined || host === undefined) return false
  const own = ['https:', 'http:'].map((protocol) => parse(`${protocol}//${host}`))
  return own.some((one) => one?.hostname === origin.hostname && one.port === origin.port)
}

const withoutWildcard = (text: string) => text.replace(ANY_LABEL, '')
const textOf = ({ protocol, hostname, port }: Origin) => `${protocol}//${hostname}:${port}`

const isBelow = ({ protocol, hostname, port }: Origin, { suffix, origin }: { suffix: string; origin: Origin }) =>
  protocol === origin.protocol && port === origin.port && hostname.length > suffix.length && hostname.endsWith(suffix)

/** Schemes of native web views, such as capacitor, have no origin for the URL parser: their parts are compared. */
function parse(text: string): Origin | undefined {
  if (!URL.canParse(text)) return undefined
  const { protocol, hostname, port, pathname, search, hash, username, password } = new URL(text)
  const isBare = (pathname === '' || pathname === '/') && search + hash + username + password === ''
  return isBare && hostname !== '' ? { protocol, hostname: hostname.toLowerCase(), port } : undefined
}
