/** A JSON schema, as far as the generated tests read it. */
export interface Schema {
  $ref?: string
  type?: string | string[]
  title?: string
  const?: unknown
  enum?: unknown[]
  properties?: Record<string, Schema>
  required?: string[]
  items?: Schema
  anyOf?: Schema[]
  oneOf?: Schema[]
  pattern?: string
  format?: string
  minLength?: number
  maxLength?: number
  minItems?: number
  maxItems?: number
  minimum?: number
  maximum?: number
}

const kinds: [type: string, name: string, value: unknown][] = [
  ['string', 'a text', 'text'],
  ['number', 'a number', 7.5],
  ['boolean', 'a boolean', true],
  ['array', 'a list', []],
  ['object', 'an object', { surprise: 1 }],
  ['null', 'null', null],
]

const typesOf = ({ type, anyOf = [], oneOf = [] }: Schema): string[] => [...[type ?? []].flat(), ...[...anyOf, ...oneOf].flatMap(typesOf)]

/** Values that this schema does not accept, each with what is wrong with it. */
export function wrongValues(schema: Schema): [why: string, value: unknown][] {
  const types = typesOf(schema)
  const wrong: [string, unknown][] = kinds.filter(([type]) => !types.includes(type)).map(([, name, value]) => [name, value])
  if (schema.enum ?? schema.const) wrong.push(['no allowed value', 'nonsense'])
  if (schema.maxLength !== undefined) wrong.push(['too long', 'x'.repeat(schema.maxLength + 1)])
  if (schema.format === 'utf8_32') wrong.push(['of too many bytes', '👍'.repeat(9)], ['with NUL', '\0'], ['half of a pair', '\ud83d'])
  if (schema.format === 'http-url') wrong.push(['no URL', 'javascript:alert(1)'])
  if ((schema.minLength ?? 0) > 0) wrong.push(['empty', ''])
  if (schema.pattern !== undefined) wrong.push(['with NUL', 'a\0b'])
  if (schema.pattern !== undefined && !new RegExp(schema.pattern, 'u').test('ä b')) wrong.push(['of odd characters', 'ä b'])
  if (schema.maxItems !== undefined) wrong.push(['too many', Array.from({ length: schema.maxItems + 1 }, (_, index) => `user${index}`)])
  if ((schema.minItems ?? 0) > 0) wrong.push(['none', []])
  if (schema.items) for (const [why, value] of wrongValues(schema.items)) wrong.push([`with an item that is ${why}`, [value]])
  if (schema.minimum !== undefined) wrong.push(['below its bound', schema.minimum - 1], ['negative', -5])
  if (schema.maximum !== undefined) wrong.push(['above its bound', schema.maximum * 2], ['beyond all bounds', 1e300])
  for (const variant of schema.anyOf ?? [])
    wrong.push(
      ...wrongValues(variant).filter(
        ([, value]) => !types.includes(value === null ? 'null' : typeof value) || value === '' || String(value).length > 50,
      ),
    )
  return wrong
}
