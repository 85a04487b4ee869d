import { randomUUID } from 'node:crypto'
import { mkdir, open, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Makes a directory that only its owner can enter, and those above it; one that exists is left as it is. */
export async function makePrivateDir(path: string): Promise<void> {
  if (await makeDir(path)) return
  await makePrivateDir(dirname(path))
  // Not by the `recursive` of mkdir: where a file system says ENOENT although the parent is there, as /proc does, that tries for ever.
  if (!(await makeDir(path))) throw new Error(`no directory can be made in ${dirname(path)}`)
}

/** False: its parent is missing. */
async function makeDir(path: string): Promise<boolean> {
  try {
    await mkdir(path, { mode: 0o700 })
    return true
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return false
    if (code === 'EEXIST' && (await stat(path)).isDirectory()) return true
    throw error
  }
}

/** Writes a file that only its owner can read, whole or not at all, and on the disk before it returns. */
export async function writePrivateFile(path: string, content: string): Promise<void> {
  const temporary = `${path}.${randomUUID()}`
  try {
    const file = await open(temporary, 'wx', 0o600)
    try {
      await file.writeFile(content)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncDir(dirname(path))
}

/** Puts a directory's entries on the disk: a rename is durable only after this. */
export async function syncDir(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}
