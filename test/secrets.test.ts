import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { loadConfig } from '../src/config.js'
import { loadSecrets } from '../src/secrets.js'
import { temporaryDir } from './support/temporary-dir.js'

test('are made on the first start, for nobody else to read, and kept for the next', async () => {
  const dataDir = join(await temporaryDir(), 'data')
  const config = loadConfig({ DATA_DIR: dataDir })
  const first = await loadSecrets(config)
  expect(first.keptIn).toBe(join(dataDir, 'secrets.json'))
  expect(first.appKeys).toHaveLength(1)
  expect(first.appKeys[0]?.scopes.size).toBe(3)
  expect(first.jwtSecret.length).toBeGreaterThanOrEqual(43)
  expect((await stat(dataDir)).mode & 0o777).toBe(0o700)
  expect((await stat(join(dataDir, 'secrets.json'))).mode & 0o777).toBe(0o600)
  expect(await loadSecrets(config)).toEqual(first)
})

test('from the environment win, and only what is missing there is made', async () => {
  const dataDir = await temporaryDir()
  const set = { DATA_DIR: dataDir, JWT_SECRET: 'a secret of the environment' }
  const partly = await loadSecrets(loadConfig(set))
  expect(partly.jwtSecret).toBe(set.JWT_SECRET)
  expect(partly.keptIn).toBeDefined()
  expect(await readFile(join(dataDir, 'secrets.json'), 'utf8')).not.toContain(set.JWT_SECRET)
  const wholly = await loadSecrets(loadConfig({ ...set, APP_KEYS: 'shop:0123456789abcdef' }))
  expect(wholly).toMatchObject({ jwtSecret: set.JWT_SECRET, appKeys: [{ name: 'shop' }], keptIn: undefined })
})

test('that were damaged stop the start instead of being made anew', async () => {
  const dataDir = await temporaryDir()
  await writeFile(join(dataDir, 'secrets.json'), '{"appSecret":')
  await expect(loadSecrets(loadConfig({ DATA_DIR: dataDir }))).rejects.toThrow(/^DATA_DIR .*secrets\.json/)
})
