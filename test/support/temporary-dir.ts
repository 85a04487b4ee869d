import { mkdtemp, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

/** A folder that only this user can enter, removed after the test. */
export async function temporaryDir(): Promise<string> {
  const dir = await realpath(await mkdtemp(join(tmpdir(), 'convolog-test-')))
  onTestFinished(() => rm(dir, { recursive: true, force: true }))
  return dir
}
