#!/usr/bin/env node
/** The commands: serve, replay, openapi. */
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { type Logger as PinoLogger, pino } from 'pino'
import { createOpenApiDocument } from './api/api.js'
import { type App, startApp } from './app.js'
import { type Config, loadConfig, refuseWhatIsNotBuilt } from './config.js'
import { DataDirInUse, acquireDataDirLock } from './data-dir-lock.js'
import { replay } from './replay.js'
import { EmbeddedPostgres } from './postgres/embedded-postgres.js'
import { type Secrets, loadSecrets } from './secrets.js'
import { StartError } from './start-error.js'

const usage = `convolog serve                          the server (settings: see README.md)
convolog replay [--projection NAME]     builds the read models anew from the log, beside those that are served
convolog openapi FILE                   writes the OpenAPI document`

try {
  await run(process.argv.slice(2))
} catch (error) {
  console.error(error instanceof StartError ? error.message : error)
  process.exit(1)
}

async function run(args: readonly string[]): Promise<void> {
  const { command, values } = parse(args)
  switch (command) {
    case 'serve': return serve(loadConfig())
    case 'replay': {
      const config = loadConfig()
      return besideServer(config, (connectionString, logger) => replay(config, connectionString, logger, values.projection))
    }
    case 'openapi': return writeFile(values.file ?? 'openapi/openapi.json', `${JSON.stringify(await createOpenApiDocument(), null, 2)}\n`)
    case 'help': return console.log(usage)
    default: throw new StartError(`There is no command ${command}; there are:\n${usage}`)
  }
}

function parse(args: readonly string[]): { command: string; values: { projection?: string; file?: string } } {
  try {
    const { positionals, values } = parseArgs({ args: [...args], allowPositionals: true, options: { projection: { type: 'string' }, help: { type: 'boolean' } } })
    const [command = 'serve', file] = positionals
    return { command: values.help ? 'help' : command, values: { ...(values.projection === undefined ? {} : { projection: values.projection }), ...(file === undefined ? {} : { file }) } }
  } catch (error) {
    throw new StartError(`${error instanceof Error ? error.message : String(error)}\n${usage}`)
  }
}

async function serve(config: Config): Promise<void> {
  await withDatabase(config, async (connectionString, logger, exited) => {
    const secrets = await loadSecrets(config)
    const app = await startApp({ config, secrets, connectionString, logger })
    sayHello(app, secrets, config)
    const reason = await Promise.race([untilSignal(), exited])
    if (reason) logger.fatal({ err: reason }, 'The server can not go on')
    process.exitCode = reason ? 1 : 0
    await app.stop()
  })
}

type Work = (connectionString: string, logger: PinoLogger, exited: Promise<Error | undefined>) => Promise<void>

const never = new Promise<undefined>(() => {})

/** Runs with the database of DATABASE_URL, or with a Postgres of its own in DATA_DIR, alone on that directory. */
async function withDatabase(config: Config, work: Work): Promise<void> {
  refuseWhatIsNotBuilt(config)
  const logger = pino({ level: config.logLevel })
  for (const warning of config.warnings) logger.warn(warning)
  const lock = await acquireDataDirLock(config.dataDir)
  try {
    if (config.databaseUrl) return await work(config.databaseUrl, logger, never)
    const postgres = await EmbeddedPostgres.start({ dataDir: config.dataDir, logger })
    try {
      await work(postgres.connectionString, logger, postgres.exited)
    } finally {
      await postgres.stop()
    }
  } finally {
    await lock.release()
  }
}

/** The same beside a server that runs: on the Postgres that it has started. */
async function besideServer(config: Config, work: Work): Promise<void> {
  try {
    await withDatabase(config, work)
  } catch (error) {
    if (!(error instanceof DataDirInUse)) throw error
    const running = config.databaseUrl ? undefined : await EmbeddedPostgres.attach(config.dataDir)
    try {
      await work(running?.connectionString ?? config.databaseUrl ?? '', pino({ level: config.logLevel }), never)
    } finally {
      await running?.detach()
    }
  }
}

/** For people: where it is, how to get a token, and a thing to try. */
function sayHello({ url }: App, { keptIn }: Secrets, { logLevel }: Config): void {
  if (logLevel === 'silent') return
  const secret = keptIn ? `$(node -p 'require("${keptIn.startsWith('/') ? keptIn : `./${keptIn.replace(/^\.\//, '')}`}").appSecret')` : '<a secret of APP_KEYS>'
  console.log(`
Convolog listens on ${url}   (start page ${url}/, reference ${url}/docs)
${keptIn ? `The app's secret and the JWT secret are in ${keptIn}` : 'The secrets are those of the environment'}

Get a token for a user, and open a conversation with it:

  TOKEN=$(curl -s ${url}/v1/tokens -H "Authorization: Bearer ${secret}" -H 'Content-Type: application/json' -d '{"userId":"alice"}' | node -p 'JSON.parse(require("fs").readFileSync(0)).token')
  curl -s ${url}/v1/conversations -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' -d '{"type":"direct","memberIds":["bob"]}'
`)
}

function untilSignal(): Promise<undefined> {
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => resolve(undefined))
  })
}
