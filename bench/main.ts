/**
 * `npm run bench`: all of it; `npm run bench -- main a d`: parts. (a) sending, (b) one large group, (c) sending, then read models built
 * anew, (d) resumes, (e) the log alone.
 */
import { benchGroup } from './group.js'
import { benchLog } from './log.js'
import { benchResume } from './resume.js'
import { type Parts, runParts } from './run-parts.js'
import { benchSend } from './send.js'

const parts: Parts = {
  a: () => benchSend({ replays: false }),
  b: benchGroup,
  c: () => benchSend({ replays: true }),
  d: benchResume,
  e: benchLog,
}

// (c) begins with (a).
await runParts(parts, (asked) =>
  asked.length === 0 ? ['b', 'c', 'd', 'e'] : asked.filter((name) => name !== 'a' || !asked.includes('c')).sort(),
)
