/**
 * The app's own JSON comes back equal, so what JSON.parse would change in silence is refused: a key that is named twice, and a
 * number that a double does not hold. Neither shows in the parsed value: the text is read a second time, where there is such JSON.
 */
import { invalidField } from '../domain/errors.js'

/** Where bodies and frames carry it. */
const OWN_FIELDS: readonly string[] = ['custom', 'content.custom', 'content.data']

/** An object or array that is open at some place of the text. */
interface Level {
  readonly field: string
  readonly isOwn: boolean
  readonly keys: Set<string> | undefined
  awaitsKey: boolean
}

/** Checks the text of a body or frame whose parsed value is given. @throws {Refusal} invalid_request naming the field */
export function requireFaithfulJson(value: unknown, text: string): void {
  if (hasOwnJson(value)) scan(text)
}

function hasOwnJson(value: unknown): boolean {
  if (!isObject(value)) return false
  const { custom, content } = value
  return isFilled(custom) || (isObject(content) && (isFilled(content['custom']) || isFilled(content['data'])))
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null

function isFilled(value: unknown): boolean {
  if (isObject(value)) for (const _ in value) return true
  return false
}

/** Goes through a text that JSON.parse has read, so its grammar is not checked again. */
function scan(text: string): void {
  const levels: Level[] = []
  let level: Level | undefined
  /** Of the value that comes next. */
  let field = ''
  const open = (isObject: boolean) => {
    const isOwn = level?.isOwn === true || OWN_FIELDS.includes(field)
    level = { field, isOwn, keys: isObject ? new Set() : undefined, awaitsKey: isObject }
    levels.push(level)
  }
  for (let at = 0; at < text.length; ) {
    const start = at
    switch (text[at]) {
      case '"':
        at = endOfString(text, at)
        if (level?.awaitsKey) {
          field = noteKey(level, text.slice(start, at))
          level.awaitsKey = false
        }
        break
      case '{':
      case '[':
        open(text[at] === '{')
        at += 1
        break
      case '}':
      case ']':
        levels.pop()
        level = levels.at(-1)
        at += 1
        break
      case ',':
        if (level?.keys) level.awaitsKey = true
        else field = level?.field ?? ''
        at += 1
        break
      default:
        at = endOfNumber(text, at)
        if (at === start) at += 1
        else if (level?.isOwn && !isKeptByDouble(text.slice(start, at)))
          throw invalidField(
            field,
            `is a number that would come back as another (${text.slice(start, Math.min(at, start + 40))}): send it as a text`,
          )
    }
  }
}

/** The field of the value that follows. */
function noteKey({ field, isOwn, keys }: Level, quoted: string): string {
  const key = quoted.includes('\\') ? (JSON.parse(quoted) as string) : quoted.slice(1, -1)
  const inner = field === '' ? key : `${field}.${key}`
  if (isOwn && keys?.has(key)) throw invalidField(inner, 'is named twice')
  keys?.add(key)
  return inner
}

/** The place after the closing quote. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1
    else if (text[at] === '"') return at + 1
  }
  return text.length
}

function endOfNumber(text: string, start: number): number {
  const first = text[start]!
  if (first !== '-' && (first < '0' || first > '9')) return start
  let at = start + 1
  while (at < text.length && '0123456789+-.eE'.includes(text[at]!)) at += 1
  return at
}

/** Doubles hold every decimal of so many digits. */
const SAFE_DIGITS = 15
const DECIMAL_FORM = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/

/** Whether the number has the same value when it is read into a double and written again. -0 is 0. */
export function isKeptByDouble(text: string): boolean {
  if (text.length <= SAFE_DIGITS && !/e/i.test(text)) return true
  const read = decimalOf(text)
  return read !== undefined && read === decimalOf(String(Number(text)))
}

/** Sign, digits without zeros around them, and exponent: the same for the same value. */
function decimalOf(text: string): string | undefined {
  const [, sign, whole, fraction = '', exponent = '0'] = DECIMAL_FORM.exec(text) ?? []
  if (whole === undefined) return undefined
  const digits = (whole + fraction).replace(/^0+/, '')
  if (digits === '') return '0'
  const significant = digits.replace(/0+$/, '')
  return `${sign}${significant}e${Number(exponent) - fraction.length + digits.length - significant.length}`
}
