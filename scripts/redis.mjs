// Installs Debian's redis-server for the tests where that can be done: once, as root, with apt. Elsewhere they are skipped.
import { spawnSync } from 'node:child_process'
import { pathToFileURL } from 'node:url'

const runs = (command, ...args) => spawnSync(command, args, { stdio: 'ignore' }).status === 0
const hasRedis = () => runs('redis-server', '--version')

/** Says what it does, and why it does not. */
export function installRedis() {
  if (hasRedis()) return
  const why = process.getuid?.() !== 0 ? 'this is not root' : !runs('apt-get', '--version') ? 'there is no apt-get' : install()
  if (why !== undefined) say(`redis-server is not installed, and ${why}: tests with Redis are skipped`)
}

/** Gives why it could not be done. */
function install() {
  say('installing redis-server for the tests (once)')
  // The package would start a server on Redis's own port: at this run level it does not.
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
  const apt = (...args) => spawnSync('apt-get', ['-q', ...args], { stdio: 'ignore', env, timeout: 120_000 }).status === 0
  const isDone =
    apt('install', '-y', '--no-install-recommends', 'redis-server') ||
    (apt('update') && apt('install', '-y', '--no-install-recommends', 'redis-server'))
  return isDone && hasRedis() ? undefined : 'apt-get could not install it'
}

function say(what) {
  process.stderr.write(`convolog: ${what}\n`)
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) installRedis()
