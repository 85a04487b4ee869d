/** Writes JSON values as block YAML. Every text that could be taken for something else is quoted as in JSON, which YAML reads the same. */
export function toYaml(value: unknown): string {
  return `${lines(value).join('\n')}\n`
}

const plain = /^[A-Za-z_][A-Za-z0-9_ .,()/-]*$/
/** What YAML reads as something else than a text, in any of its versions. */
const notText = /^(?:true|false|null|yes|no|on|off|y|n)$/i

function lines(value: unknown): string[] {
  if (Array.isArray(value)) return value.length === 0 ? ['[]'] : value.flatMap((item) => indented('- ', lines(item)))
  if (typeof value !== 'object' || value === null) return [scalar(value)]
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined)
  if (entries.length === 0) return ['{}']
  return entries.flatMap(([key, inner]) => keyed(scalar(key), inner))
}

function keyed(key: string, value: unknown): string[] {
  if (typeof value === 'string' && value.includes('\n') && !/^\s|[^\n]\n$|\n\n$|[^\S\n]\n/.test(value))
    return [`${key}: |-`, ...value.split('\n').map((line) => (line === '' ? '' : `  ${line}`))]
  const inner = lines(value)
  const isScalar = typeof value !== 'object' || value === null || Object.keys(value).length === 0
  return isScalar ? [`${key}: ${inner[0]}`] : [`${key}:`, ...inner.map((line) => (line === '' ? '' : `  ${line}`))]
}

const indented = (first: string, rest: readonly string[]) =>
  rest.map((line, index) => (index === 0 ? `${first}${line}` : line === '' ? '' : `  ${line}`))

function scalar(value: unknown): string {
  if (typeof value === 'string' && plain.test(value) && !notText.test(value) && !value.endsWith(' ')) return value
  return JSON.stringify(value)
}
