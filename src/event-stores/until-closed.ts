/** Runs a feed that ends when its reader leaves or the store closes. (AbortSignal.any would keep a trace of every feed on the store's signal.) */
export async function* untilClosed<T>(
  signal: AbortSignal,
  closing: AbortSignal,
  follow: (either: AbortSignal) => AsyncGenerator<T, void>,
): AsyncGenerator<T, void> {
  const sources = [signal, closing]
  const either = new AbortController()
  const end = (): void => either.abort()
  if (sources.some((source) => source.aborted)) end()
  for (const source of sources) source.addEventListener('abort', end)
  try {
    yield* follow(either.signal)
  } finally {
    for (const source of sources) source.removeEventListener('abort', end)
  }
}
