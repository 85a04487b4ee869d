import { DevicePage, NoQuery, OfDevice, PageQuery, Positioned } from '../../schemas/rest.js'
import { actingUser } from '../callers.js'
import { type Api, type RouteParts, pageOptions, positioned, shown } from '../route-parts.js'

export function deviceRoutes(app: Api, parts: RouteParts): void {
  const { users, readModels, presence } = parts

  app.get(
    '/devices',
    {
      schema: {
        operationId: 'listDevices',
        tags: ['Devices'],
        summary: "List one's own devices",
        querystring: PageQuery,
        response: { 200: DevicePage },
      },
      config: { refusals: ['forbidden'] },
    },
    async (request) => {
      const { userId } = actingUser(request)
      await shown(parts, request.query.minPosition)
      const { items, nextCursor } = await readModels.devices.list(userId, pageOptions(request.query))
      return {
        items: await presence.ofDevices(
          userId,
          items.map(({ deviceId }) => deviceId),
        ),
        nextCursor,
      }
    },
  )

  app.delete(
    '/devices/:deviceId',
    {
      schema: {
        operationId: 'revokeDevice',
        tags: ['Devices'],
        summary: 'Revoke a device',
        description: 'Closes its sockets and refuses it with any token that was issued before.',
        params: OfDevice,
        querystring: NoQuery,
        response: { 200: Positioned },
      },
      config: { refusals: ['forbidden', 'not_found'] },
    },
    async (request) => {
      const { userId, requester } = actingUser(request)
      return positioned(await users.execute(userId, { type: 'RevokeDevice', deviceId: request.params.deviceId }, requester))
    },
  )
}
