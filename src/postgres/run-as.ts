import { spawnSync } from 'node:child_process'
import { readFileSync, statSync } from 'node:fs'
import { StartError } from '../start-error.js'

/** How programs of Postgres are run: under which user, with which program in front. */
export type RunAs = {
  /** Undefined: the user of this process. */
  readonly user: User | undefined
  readonly wrapper: readonly string[]
  readonly spawnOptions: { readonly uid?: number; readonly gid?: number; readonly env: Record<string, string>; readonly cwd: string }
}

export type User = { readonly uid: number; readonly gid: number }

// Nothing of our environment: PGPORT and the like would change what Postgres does.
const env = { LC_ALL: 'C', PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }
// Not a directory that the other user may be unable to enter.
const cwd = '/'
// SIGINT is the fast shutdown: when this process is killed, Postgres ends cleanly by itself.
const dieWithParent = ['--pdeathsig', 'INT']

/**
 * Decides how to run Postgres, which refuses to run as root: root runs it as the owner of the cluster, or else as the
 * system's user for it. That user may be unable to enter the folder of the data or of the binaries (a clone in
 * root's home): it then keeps the one capability that is needed for that and nothing else of root's.
 */
export function chooseRunAs(clusterDir: string, mustReach: readonly string[]): RunAs {
  if (process.getuid?.() !== 0) return { user: undefined, wrapper: works(['setpriv', ...dieWithParent, '--']), spawnOptions: { env, cwd } }
  const user = ownerOf(clusterDir) ?? systemUser()
  const { uid, gid } = user
  const change = ['setpriv', ...dieWithParent, `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups']
  // access() ignores the capabilities of a user that is not root, and Postgres asks it, unless no_setuid_fixup is set.
  const enterAll = ['--securebits=+no_setuid_fixup', '--inh-caps=-all,+dac_override', '--ambient-caps=-all,+dac_override']
  for (const wrapper of [
    [...change, '--inh-caps=-all', '--'],
    [...change, ...enterAll, '--'],
  ]) {
    if (canReach(wrapper, {}, mustReach)) return { user, wrapper, spawnOptions: { env, cwd } }
  }
  if (canReach([], user, mustReach)) return { user, wrapper: [], spawnOptions: { ...user, env, cwd } }
  throw new StartError(
    `The embedded Postgres cannot run as root, and user ${uid} cannot enter ${mustReach.join(' or ')}: ` +
      'start the server as another user, or move it where others can enter, or set DATABASE_URL.',
  )
}

function works(wrapper: string[]): string[] {
  return canReach(wrapper, {}, ['/']) ? wrapper : []
}

function canReach(wrapper: readonly string[], user: Partial<User>, paths: readonly string[]): boolean {
  const script = 'for path; do test -x "$path" || exit 1; done'
  const [command = 'sh', ...args] = [...wrapper, 'sh', '-c', script, 'sh', ...paths]
  return spawnSync(command, args, { stdio: 'ignore', env, cwd, ...user }).status === 0
}

function ownerOf(clusterDir: string): User | undefined {
  const { uid = 0, gid = 0 } = statSync(clusterDir, { throwIfNoEntry: false }) ?? {}
  return uid === 0 ? undefined : { uid, gid }
}

/** Only users of the system: initdb looks its user's name up. */
function systemUser(): User {
  const users = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
  for (const name of ['postgres', 'nobody']) {
    const found = users.find((fields) => fields[0] === name)
    if (found && found[2] !== '0') return { uid: Number(found[2]), gid: Number(found[3]) }
  }
  throw new StartError(
    'The embedded Postgres cannot run as root, and there is no user postgres or nobody: start the server as another user, or set DATABASE_URL.',
  )
}
