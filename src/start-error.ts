/** Something that its operator can mend keeps the server from starting: the message, one sentence, is all that is shown. */
export class StartError extends Error {
  override name = 'StartError'
}
