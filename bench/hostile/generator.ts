/** A process that makes load: ordinary users, or hostile clients. */
import { HostileClients } from './hostile-clients.js'
import type { FromGenerator, Job, ToGenerator } from './messages.js'
import { OrdinaryUsers } from './ordinary.js'

let ordinary: OrdinaryUsers | undefined
let hostile: HostileClients | undefined

const tell = (message: FromGenerator) => process.send!(message)

process.on('message', (message: ToGenerator) => {
  if (message.type === 'start') void start(message.job).then(() => tell({ type: 'ready' }))
  else if (message.type === 'phase') ordinary?.begin(message.phase)
  else if (message.type === 'rate') hostile?.setRate(message.perSecond)
  else if (message.type === 'report') tell({ type: 'report', report: (ordinary ?? hostile)!.report() })
  else process.exit(0)
})
process.once('disconnect', () => process.exit(0))
// A socket that the server cuts is no end of the bench.
process.on('uncaughtException', (error) => console.error('generator:', error))

async function start(job: Job): Promise<void> {
  if (job.role === 'hostile') return void (hostile = new HostileClients(job))
  ordinary = new OrdinaryUsers(job)
  await ordinary.start()
}
