// What a fresh clone needs before anything runs: the dependencies of the lock file and the compiled program.
// Plain Node without dependencies, because it runs before there are any.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

export const root = join(dirname(fileURLToPath(import.meta.url)), '..')

/** Installs and builds what is missing or out of date; takes some milliseconds when nothing is. */
export function setUp() {
  requireNode()
  const stale = hashOfSources() !== builtHash()
  // A deployment without development dependencies is complete as long as nothing has to be compiled.
  install({ withDev: stale })
  if (stale) build()
}

/** As `setUp`, with everything that tests, linter and benches need. */
export function setUpForDevelopment() {
  installForDevelopment()
  if (hashOfSources() !== builtHash()) build()
}

export function installForDevelopment() {
  requireNode()
  install({ withDev: true })
}

/** Compiles into a folder beside dist and swaps them, so that a build that fails leaves the last good one. */
export function build() {
  const next = join(root, `dist-${process.pid}`)
  rmSync(next, { recursive: true, force: true })
  const hash = hashOfSources()
  say('compiling')
  run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json', '--outDir', next])
  copyAssets(next)
  writeFileSync(join(next, '.sources'), hash)
  const old = join(root, `dist-${process.pid}-old`)
  if (existsSync(dist)) renameSync(dist, old)
  renameSync(next, dist)
  rmSync(old, { recursive: true, force: true })
}

/** Runs a program in the root folder and stops this one with its exit code when it fails. */
export function run(command, args, env = process.env) {
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: 'inherit',
    env,
    shell: process.platform === 'win32' && command === 'npm',
  })
  if (error) fail(`${command} could not be started: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}

const dist = join(root, 'dist')

function requireNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 19)) fail(`Convolog needs Node.js 20.19 or newer, this is ${process.versions.node}.`)
}

function install({ withDev }) {
  if (isInstalled({ withDev })) return
  say('installing the dependencies of package-lock.json (once)')
  run('npm', ['ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'])
}

/** npm keeps a copy of the lock file of what it has installed; it writes it last, so a broken-off install has none. */
function isInstalled({ withDev }) {
  const installed = readLock('node_modules/.package-lock.json')
  if (!installed) return false
  const wanted = Object.entries(readLock('package-lock.json') ?? fail('package-lock.json is missing.'))
  return wanted.every(([path, { version, optional, dev, devOptional }]) => {
    if (path === '') return true
    const found = installed[path]?.version
    if (found !== undefined) return found === version
    return optional || ((dev || devOptional) && !withDev)
  })
}

function readLock(path) {
  try {
    return JSON.parse(readFileSync(join(root, path), 'utf8')).packages
  } catch {
    return undefined
  }
}

/** By content, not by time: a checkout, a copy or a deleted file is seen too. */
function hashOfSources() {
  const hash = createHash('sha256')
  for (const file of ['tsconfig.json', 'tsconfig.build.json', ...sources()])
    hash
      .update(`${file}\0`)
      .update(readFileSync(join(root, file)))
      .update('\0')
  return hash.digest('hex')
}

function builtHash() {
  try {
    return readFileSync(join(dist, '.sources'), 'utf8')
  } catch {
    return undefined
  }
}

function copyAssets(target) {
  for (const file of sources().filter((name) => !name.endsWith('.ts'))) {
    const copy = join(target, file.slice('src/'.length))
    mkdirSync(dirname(copy), { recursive: true })
    copyFileSync(join(root, file), copy)
  }
}

function sources() {
  return readdirSync(join(root, 'src'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) =>
      join(entry.parentPath, entry.name)
        .slice(root.length + 1)
        .replaceAll('\\', '/'),
    )
    .sort()
}

function say(what) {
  process.stderr.write(`convolog: ${what}\n`)
}

function fail(message) {
  process.stderr.write(`${message}\n`)
  process.exit(1)
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) setUpForDevelopment()
