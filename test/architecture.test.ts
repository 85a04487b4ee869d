import { readFileSync, readdirSync } from 'node:fs'
import { join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'

/** The part of the rules of docs and design that the imports show. */

interface Source {
  /** Below src, as `domain/ids.ts`. */
  path: string
  text: string
  /** Paths below src. */
  imports: string[]
  /** What comes from npm or node. */
  packages: string[]
}

const src = fileURLToPath(new URL('../src/', import.meta.url))
const sources = readdirSync(src, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.ts'))
  .map((path) => sourceOf(path, readFileSync(join(src, path), 'utf8')))

/** Pure: they hold and compare values, and reach neither network nor disk. */
const pureLibraries = ['immutable', 'lru-cache', 'canonicalize', 'node:crypto', 'node:util', 'node:timers/promises']
// commands/database.ts starts the embedded Postgres for the commands that need a database.
const compositionRoots = ['app.ts', 'commands/database.ts']

/** conversation-reads.ts hands each read to CheckedReads; resume.ts what it has read, before it is sent. */
const checkedReaders = ['api/conversation-reads.ts', 'gateway/resume.ts']

function sourceOf(path: string, text: string): Source {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/^\s*\/\/.*$/gm, '')
  const specifiers = [...code.matchAll(/(?:\bfrom|(?<!['"])\bimport)\s*\(?\s*['"]([^'"]+)['"]/g)].map(([, specifier]) => specifier!)
  const local = specifiers.filter((specifier) => specifier.startsWith('.'))
  const imports = local.map((specifier) => normalize(join(path, '..', specifier)).replace(/\.js$/, '.ts'))
  return { path, text: code, imports, packages: specifiers.filter((specifier) => !specifier.startsWith('.')) }
}

const isIn = (path: string, ...folders: string[]) => folders.some((folder) => path.startsWith(`${folder}/`))

/** Each rule names the faults that it finds in these files. */
const rules: Record<string, (files: readonly Source[]) => string[]> = {
  'domain imports nothing of the project but itself: it can be read, tested and kept without the rest': (files) =>
    edges(files)
      .filter(({ from, to }) => isIn(from, 'domain') && !isIn(to, 'domain'))
      .map(told),

  'domain takes only pure libraries from outside: what it decides depends on what it is handed, on nothing else': (files) =>
    files.flatMap(({ path, packages }) =>
      isIn(path, 'domain') ? packages.filter((name) => !pureLibraries.includes(name)).map((name) => `${path} imports ${name}`) : [],
    ),

  'api and gateway never import each other: both call domain and query projections': (files) =>
    edges(files)
      .filter(({ from, to }) => (isIn(from, 'api') && isIn(to, 'gateway')) || (isIn(from, 'gateway') && isIn(to, 'api')))
      .map(told),

  'adapters are imported by the composition root alone: everybody else knows the port': (files) =>
    edges(files)
      .filter(
        ({ from, to }) =>
          ['event-stores', 'postgres', 'redis'].some((adapter) => isIn(to, adapter) && !isIn(from, adapter)) &&
          !compositionRoots.includes(from),
      )
      .map(told),

  'one event store does not import another: each can be taken away': (files) =>
    edges(files)
      .filter(
        ({ from, to }) =>
          isIn(from, 'event-stores') &&
          isIn(to, 'event-stores') &&
          from.split('/').length > 2 &&
          to.split('/').length > 2 &&
          from.split('/')[1] !== to.split('/')[1],
      )
      .map(told),

  'only config.ts, and main.ts that hands it on, reads process.env: a setting has one place and one check': (files) =>
    files
      .filter(
        ({ path, text }) =>
          !['config.ts', 'main.ts'].includes(path) && /process\s*\.\s*env\b|process\[|\{[^}]*\benv\b[^}]*\}\s*=\s*process\b/.test(text),
      )
      .map(({ path }) => path),

  'only logging.ts makes loggers, and none prints an error as it is: foreign ones carry URLs with passwords': (files) =>
    files
      .filter(
        ({ path, text }) =>
          (path !== 'logging.ts' && /^import (?!type\b).*'pino'/m.test(text)) ||
          /console\.\w+\((?:error|err|reason|cause)\s*[,)]/.test(text),
      )
      .map(({ path }) => path),

  'no file imports itself through others: a cycle is one file in pieces': (files) => cyclesOf(files),

  'conversations are read through CheckedReads by api and gateway: what is shown is checked after it was read': (files) =>
    files.flatMap(({ path, text }) =>
      isIn(path, 'api', 'gateway') && !checkedReaders.includes(path)
        ? [...text.matchAll(/\breadModels\s*\.\s*(?:history|members|inbox|unreadCounts|receipts)\b|\breadStream\s*\(/g)].map(
            ([read]) => `${path} reads by ${read}`,
          )
        : [],
    ),

  'every import names a file that is there': (files) =>
    edges(files)
      .filter(({ to }) => !files.some(({ path }) => path === to))
      .map(told),

  'exports have names: what is called one thing is found under it': (files) =>
    files.filter(({ text }) => /^\s*export\s+default\b|export\s*\{[^}]*\bas\s+default\b/m.test(text)).map(({ path }) => path),
}

interface Edge {
  from: string
  to: string
}
const edges = (files: readonly Source[]): Edge[] => files.flatMap(({ path, imports }) => imports.map((to) => ({ from: path, to })))
const told = ({ from, to }: Edge) => `${from} imports ${to}`

function cyclesOf(files: readonly Source[]): string[] {
  const importsOf = new Map(files.map(({ path, imports }) => [path, imports]))
  const done = new Set<string>()
  const found: string[] = []
  const visit = (path: string, way: readonly string[]) => {
    if (way.includes(path)) return void found.push([...way.slice(way.indexOf(path)), path].join(' → '))
    if (done.has(path)) return
    for (const next of importsOf.get(path) ?? []) visit(next, [...way, path])
    done.add(path)
  }
  for (const { path } of files) visit(path, [])
  return found
}

describe('in src', () => {
  test.each(Object.keys(rules))('%s', (rule) => expect(rules[rule]!(sources), rule).toEqual([]))
})

/** One fault for each rule: a rule that finds nothing in these would find nothing anywhere. */
const faults: Record<string, [path: string, text: string][]> = {
  'domain imports': [
    ['domain/a.ts', `import { x } from '../config.js'`],
    ['domain/b.ts', `import type { X } from '../projections/x.js'`],
    ['domain/c.ts', `const x = await import('../api/x.js')`],
  ],
  'domain takes': [
    ['domain/a.ts', `import pg from 'pg'`],
    ['domain/b.ts', `import { readFile } from 'node:fs/promises'`],
    ['domain/c.ts', `import 'ws'`],
  ],
  'api and gateway': [
    ['api/a.ts', `export { x } from '../gateway/b.js'`],
    ['gateway/routes/b.ts', `import { x } from '../../api/a.js'`],
  ],
  'adapters are': [
    ['projections/a.ts', `import { x } from '../event-stores/postgres/x.js'`],
    ['api/a.ts', `import {\n  x,\n} from '../postgres/x.js'`],
    ['config.ts', `import { x } from './postgres/x.js'`],
  ],
  'one event store': [['event-stores/kurrentdb/a.ts', `import { x } from '../postgres/x.js'`]],
  'only config.ts': [
    ['api/a.ts', 'const port = process.env.PORT'],
    ['api/b.ts', 'const { env } = process'],
    ['api/c.ts', `process['env']`],
  ],
  'only logging.ts': [
    ['app.ts', `import { pino } from 'pino'`],
    ['main.ts', 'console.error(error)'],
    ['commands/a.ts', `console.warn(reason, 'x')`],
  ],
  'no file imports': [
    ['a.ts', `import './b.js'`],
    ['b.ts', `import './c.js'`],
    ['c.ts', `import './a.js'`],
  ],
  'conversations are read': [
    ['api/routes/a.ts', `const page = await readModels.history.list(id, bounds)`],
    ['gateway/a.ts', `const events = await this.#options.store.readStream(stream, asked)`],
    ['api/b.ts', `const found = await parts.readModels\n  .members.list(id)`],
  ],
  'every import': [['a.ts', `import './gone.js'`]],
  'exports have': [
    ['a.ts', 'export default 1'],
    ['b.ts', 'const x = 1\nexport { x as default }'],
  ],
}

describe('the rule', () => {
  test.each(Object.keys(rules))('“%s” finds what breaks it', (rule) => {
    const [, broken] = Object.entries(faults).find(([beginning]) => rule.startsWith(beginning)) ?? []
    const found = rules[rule]!(broken!.map(([path, text]) => sourceOf(path, text)))
    expect(found).toHaveLength(rule.startsWith('no file') ? 1 : broken!.length)
  })

  test('on what is allowed finds nothing', () => {
    const fine: [string, string][] = [
      ['domain/a.ts', `// not import '../api/x.js'\nimport { Map } from 'immutable'\nimport { b } from './b.js'`],
      ['domain/b.ts', ''],
      ['app.ts', `import { x } from './event-stores/postgres/x.js'`],
      ['event-stores/postgres/x.ts', `import { b } from '../../domain/b.js'`],
      ['config.ts', 'const env = process.env'],
      ['api/a.ts', `import { b } from '../domain/b.js'`],
    ]
    for (const rule of Object.values(rules)) expect(rule(fine.map(([path, text]) => sourceOf(path, text)))).toEqual([])
  })
})
