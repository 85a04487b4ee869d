/** The connection string of KurrentDB: the client repeats a wrong one, password and all, in its errors and warnings. */
import { EventStoreDBClient } from '@eventstore/db-client'
import { StartError } from '../../start-error.js'

/** As the client compares them: in lower case, without signs between the words. */
const knownOptions = new Set([
  'usercertfile',
  'userkeyfile',
  'maxdiscoverattempts',
  'connectionname',
  'defaultdeadline',
  'discoveryinterval',
  'gossiptimeout',
  'nodepreference',
  'tls',
  'tlsverifycert',
  'tlscafile',
  'throwonappendfailure',
  'keepaliveinterval',
  'keepalivetimeout',
])

/** A client for it. @throws {StartError} that repeats nothing but the name of an option */
export function clientOf(connectionString: string): EventStoreDBClient {
  const unknown = optionsIn(connectionString).find((name) => !knownOptions.has(name.toLowerCase().replace(/[_-]/g, '')))
  if (unknown !== undefined) throw new StartError(`EVENTSTORE_URL has an option "${unknown}" that the client does not know.`)
  try {
    return EventStoreDBClient.connectionString(connectionString)
  } catch {
    throw new StartError(
      'EVENTSTORE_URL is not a connection string that the client reads: look at its scheme (esdb or esdb+discover), its hosts and the values of its options.',
    )
  }
}

function optionsIn(connectionString: string): string[] {
  const [, query = ''] = /\?([^@]*)$/.exec(connectionString) ?? []
  return query
    .split('&')
    .map((pair) => pair.split('=', 1)[0]!.trim())
    .filter((name) => /^[\w-]{1,40}$/.test(name))
}
