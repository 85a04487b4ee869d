// The AsyncAPI document, read by the parser of AsyncAPI itself: errors and warnings count, hints do not.
import { readFile } from 'node:fs/promises'
import { Parser } from '@asyncapi/parser'

const path = 'openapi/asyncapi.yaml'
const WARNING = 1

const { document, diagnostics } = await new Parser().parse(await readFile(path, 'utf8'))
const faults = diagnostics.filter(({ severity }) => severity <= WARNING)
for (const { path: at, message } of faults) console.error(`${path} ${at.join('.')}: ${message}`)
if (faults.length === 0) console.log(`${path}: valid AsyncAPI ${document.version()}, ${document.allMessages().length} messages`)
process.exit(faults.length > 0 ? 1 : 0)
