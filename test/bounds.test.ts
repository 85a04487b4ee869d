import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

/** The table "Bounds" of ARCHITECTURE.md and the code say the same. */

const root = fileURLToPath(new URL('..', import.meta.url))
const units: Record<string, number> = { '': 1, ' KiB': 2 ** 10, ' MiB': 2 ** 20 }
/** Bounds of fields, bodies and frames are the schemas'. What belongs to no running server grows nowhere. */
const elsewhere = /^src\/(schemas|postgres|commands|redis)\//

interface Row {
  place: string
  file: string
  bounds: { name: string; value: number }[]
}

function rowsOf(markdown: string): Row[] {
  const section = /^## Bounds$([\s\S]*?)^## /m.exec(markdown)![1]!
  const rows = section.split('\n').filter((line) => line.startsWith('| ') && !line.startsWith('| place'))
  return rows.map((line) => {
    const [place = '', items = '', bytes = ''] = line.split('|').slice(1)
    const bounds = [...`${items}|${bytes}`.matchAll(/`(\w+)` ([\d,]+)( KiB| MiB|)/g)].map(([, name = '', number = '', unit = '']) => ({
      name,
      value: Number(number.replaceAll(',', '')) * units[unit]!,
    }))
    return { place: place.trim(), file: `src/${/`([^`]+\.ts)`/.exec(place)![1]!}`, bounds }
  })
}

/** What a constant, or the default of an option, is in a source: numbers, products and shifts. */
function valueIn(source: string, name: string): number | undefined {
  const found = new RegExp(`(?:const ${name} = |options\\.${name} \\?\\? |^ +${name}: )([\\d_ *<]+)`, 'm').exec(source)?.[1]
  if (found === undefined) return undefined
  const [first = '', ...rest] = found
    .replaceAll('_', '')
    .trim()
    .split(/ +(?=[*<])/)
  return rest.reduce((value, step) => {
    const [operator, by] = step.split(/ +/)
    return operator === '*' ? value * Number(by) : value * 2 ** Number(by)
  }, Number(first))
}

const rows = rowsOf(readFileSync(join(root, 'ARCHITECTURE.md'), 'utf8'))

describe('the table of bounds', () => {
  test.each(rows.map((row) => [row.place, row] as const))('%s', (_, { file, bounds }) => {
    const source = readFileSync(join(root, file), 'utf8')
    for (const { name, value } of bounds) expect({ name, value: valueIn(source, name) }).toEqual({ name, value })
  })

  test('names every bound in bytes or characters that the code has', () => {
    const files = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
    const bounds = files
      .map((file) => `src/${file}`)
      .filter((file) => !elsewhere.test(file))
      .flatMap((file) =>
        [...readFileSync(join(root, file), 'utf8').matchAll(/^(?:export )?const (\w+_(?:BYTES|CHARACTERS)_MAX) = /gm)].map(
          ([, name]) => `${file} ${name}`,
        ),
      )
    const named = new Set(rows.flatMap(({ file, bounds: of }) => of.map(({ name }) => `${file} ${name}`)))
    expect(bounds.filter((bound) => !named.has(bound) && !known.has(bound))).toEqual([])
    expect(bounds.length).toBeGreaterThan(20)
  })
})

/** Of one request, answer or event, or how much is looked at: nothing gathers there. */
const known = new Set([
  'src/api/api.ts HEADER_BYTES_MAX',
  'src/api/api.ts PARAMETER_CHARACTERS_MAX',
  'src/api/problems.ts DRAINED_BYTES_MAX',
  'src/auth/key-set.ts KEY_SET_BYTES_MAX',
  'src/auth/user-tokens.ts TOKEN_CHARACTERS_MAX',
  'src/event-stores/cut-page.ts METADATA_BYTES_MAX',
  'src/gateway/gateway.ts EVENTS_CHARACTERS_MAX',
  'src/gateway/resume.ts FIRST_LOOK_BYTES_MAX',
  'src/projections/preview.ts PREVIEW_CHARACTERS_MAX',
])
