import canonicalizeModule from 'canonicalize'

// The package is CommonJS: under nodenext its default is typed as the module.
const canonicalize = canonicalizeModule as unknown as (value: unknown) => string | undefined

/** RFC 8785: the same text for the same value, however its keys were ordered and its numbers written. */
export const canonicalJson = (value: unknown): string => canonicalize(value) ?? 'null'

/** Whether two values are the same JSON: -0 is 0, which a deep comparison of values denies. */
export const isSameJson = (one: unknown, other: unknown): boolean => canonicalJson(one) === canonicalJson(other)
