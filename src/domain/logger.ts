/** The little that is needed of a logger; pino's fits. */
export interface Logger {
  info(details: object, text: string): void
  warn(details: object, text: string): void
  error(details: object, text: string): void
}
