import type { FastifyRequest } from 'fastify'

/** Where the client reaches this server: as PUBLIC_URL says, else as its request does. No slash at the end. */
export const publicUrlOf = ({ server, protocol, host }: FastifyRequest): string => server.publicUrl || `${protocol}://${host}`
