import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const TEXT_CHARACTERS_MAX = 20_000
const beyond = /\P{ASCII}/u

/** What text is known to break on: joined emoji, marks that combine or turn the direction, separators, what looks like JSON or an end of line. */
const hardLines = [
  '👩‍👩‍👧‍👦 🏳️‍🌈 🇺🇳 👍🏽',
  'e\u0301 is not \u00e9',
  'שלום עולם',
  'مرحبا بالعالم',
  'สวัสดีชาวโลก',
  '\u202eright to left\u202c',
  '\ufeffmark',
  'line\u2028paragraph\u2029end',
  '\u0001\u001f\u007f\u0085',
  '"}]},{"type":"goaway"',
  '\\u0000 \\ud800 \\',
  ' leading and trailing ',
  '\t',
  '\r',
  'a\r\nb\n',
  '\u{10ffff}\ue000\ufffd',
  'Z̵̡̢̛̗̘̙̜̝̞̟̠͇̊̋̌̍̎̏̿',
  '\u200b',
]

/** Lines that people wrote: of this project's Markdown and of that of its dependencies, those beyond ASCII first. */
export function readCorpus(count: number): string[] {
  const own = readdirSync(root)
    .filter((name) => name.endsWith('.md'))
    .map((name) => join(root, name))
  const lines = [...own, ...markdownIn(join(root, 'docs')), ...markdownIn(join(root, 'node_modules'))].flatMap((file) =>
    readFileSync(file, 'utf8').split('\n'),
  )
  const usable = lines.filter((line) => line.length > 0 && line.length <= TEXT_CHARACTERS_MAX && !line.includes('\0'))
  const beyondAscii = usable.filter((line) => beyond.test(line))
  const ascii = usable.filter((line) => !beyond.test(line))
  const first = beyondAscii.slice(0, Math.ceil(count * 0.8))
  const stride = Math.max(1, Math.floor(ascii.length / (count - first.length)))
  return [...hardLines, ...first, ...ascii.filter((_, index) => index % stride === 0)].slice(0, count)
}

function markdownIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.(md|markdown)$/i.test(name))
    .sort()
    .map((name) => join(directory, name))
}
