#!/usr/bin/env node
/** The commands. */
import { writeFile } from 'node:fs/promises'
import { parseArgs } from 'node:util'
import { createOpenApiDocument } from './api/api.js'
import { issueToken } from './auth/tokens.js'
import { auditLog } from './commands/audit.js'
import { chat } from './commands/chat.js'
import { besideServer } from './commands/database.js'
import { replay } from './commands/replay.js'
import { serve } from './commands/serve.js'
import { loadConfig } from './config.js'
import { createAsyncApiDocument } from './gateway/asyncapi/document.js'
import { errorText } from './logging.js'
import { loadSecrets } from './secrets.js'
import { StartError } from './start-error.js'
import { toYaml } from './yaml.js'

const usage = `convolog serve                          the server (settings: see README.md)
convolog token USER                     prints a token for a user, valid for a day
convolog chat ME OTHER [--url URL]      a direct conversation in the terminal, to try a server with
convolog replay [--projection NAME]     builds the read models anew from the log, beside those that are served
convolog audit                          checks the hash chain of every stream of the log
convolog openapi [FILE]                 writes the OpenAPI document
convolog asyncapi [FILE]                writes the AsyncAPI document of the WebSocket`

const TOKEN_TTL_SECONDS = 86_400

try {
  await run(process.argv.slice(2))
} catch (error) {
  console.error(error instanceof StartError ? error.message : errorText(error))
  process.exit(1)
}

async function run(args: readonly string[]): Promise<void> {
  const { command, named, options } = parse(args)
  switch (command) {
    case 'serve':
      return serve(loadConfig())
    case 'token':
      return printToken(required(named[0], 'USER'))
    case 'chat':
      return talk(required(named[0], 'ME'), required(named[1], 'OTHER'), options.url)
    case 'replay': {
      const config = loadConfig()
      return besideServer(config, (connectionString, logger) => replay(config, connectionString, logger, options.projection))
    }
    case 'audit': {
      const config = loadConfig()
      return besideServer(config, (connectionString, logger) => auditLog(config, connectionString, logger))
    }
    case 'openapi':
      return writeFile(named[0] ?? 'openapi/openapi.json', `${JSON.stringify(await createOpenApiDocument(), null, 2)}\n`)
    case 'asyncapi':
      return writeFile(named[0] ?? 'openapi/asyncapi.yaml', toYaml(createAsyncApiDocument()))
    case 'help':
      return console.log(usage)
    default:
      throw new StartError(`There is no command ${command}; there are:\n${usage}`)
  }
}

interface Command {
  command: string
  named: readonly string[]
  options: { projection?: string | undefined; url?: string | undefined }
}

function parse(args: readonly string[]): Command {
  try {
    const known = { projection: { type: 'string' }, url: { type: 'string' }, help: { type: 'boolean' } } as const
    const { positionals, values } = parseArgs({ args: [...args], allowPositionals: true, options: known })
    const [command = 'serve', ...named] = positionals
    return { command: values.help ? 'help' : command, named, options: values }
  } catch (error) {
    throw new StartError(`${error instanceof Error ? error.message : String(error)}\n${usage}`)
  }
}

function required(value: string | undefined, name: string): string {
  if (value === undefined) throw new StartError(`${name} is missing:\n${usage}`)
  return value
}

async function printToken(userId: string): Promise<void> {
  const config = loadConfig()
  const { jwtSecret } = await loadSecrets(config)
  const { jwtIssuer, jwtAudience } = config
  console.log((await issueToken(jwtSecret, { userId, ttlSeconds: TOKEN_TTL_SECONDS, jwtIssuer, jwtAudience })).token)
}

async function talk(userId: string, otherUserId: string, asked: string | undefined): Promise<void> {
  const config = loadConfig()
  const { appKeys } = await loadSecrets(config)
  const url = asked ?? `http://${config.host}:${config.port}`
  await chat({ url, appSecret: appKeys[0]?.secret ?? '', userId, otherUserId, input: process.stdin, print: (line) => console.log(line) })
}
