import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type AppKey, appScopes, type Config, ConfigError } from './config.js'
import { makePrivateDir, writePrivateFile } from './private-files.js'

export type Secrets = {
  readonly appKeys: readonly AppKey[]
  readonly jwtSecret: string
  /** Where those are kept that did not come from the environment; undefined when all did. */
  readonly keptIn: string | undefined
}

type KeptSecrets = { readonly appSecret: string; readonly jwtSecret: string }

const APP_NAME = 'default'

/** The secrets of the environment, and what it does not set from `DATA_DIR/secrets.json`, which is made when it is not there. */
export async function loadSecrets(config: Config): Promise<Secrets> {
  const { appKeys, jwtSecret, dataDir } = config
  if (appKeys && jwtSecret) return { appKeys, jwtSecret, keptIn: undefined }
  const keptIn = join(dataDir, 'secrets.json')
  const kept = (await readSecrets(keptIn)) ?? (await makeSecrets(dataDir, keptIn))
  return {
    appKeys: appKeys ?? [{ name: APP_NAME, secret: kept.appSecret, scopes: new Set(appScopes) }],
    jwtSecret: jwtSecret ?? kept.jwtSecret,
    keptIn,
  }
}

async function makeSecrets(dataDir: string, path: string): Promise<KeptSecrets> {
  const made = { appSecret: randomBytes(24).toString('base64url'), jwtSecret: randomBytes(32).toString('base64url') }
  await makePrivateDir(dataDir)
  await writePrivateFile(path, `${JSON.stringify(made, null, 2)}\n`)
  return made
}

async function readSecrets(path: string): Promise<KeptSecrets | undefined> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw new ConfigError(`DATA_DIR holds a ${path} that cannot be read (${error.code}).`)
  })
  if (text === undefined) return undefined
  const kept = parse(text)
  if (!isText(kept?.appSecret) || !isText(kept.jwtSecret)) {
    // Never made anew: every token that was given out would stop to work.
    throw new ConfigError(`DATA_DIR holds a ${path} that is not what was written there: put it back, or remove it to make new secrets.`)
  }
  return { appSecret: kept.appSecret, jwtSecret: kept.jwtSecret }
}

function parse(text: string): Partial<Record<string, unknown>> | undefined {
  try {
    return JSON.parse(text) as Partial<Record<string, unknown>>
  } catch {
    return undefined
  }
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}
