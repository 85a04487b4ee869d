import { DEVICES_MAX } from '../../domain/user/user.js'
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
        description: `A device is listed as soon as a token with its id is used. At most ${DEVICES_MAX} are: when another appears, the one that was offline longest leaves the list, and its tokens stay valid.`,
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
        description:
          'Closes its sockets, and refuses each of its tokens unless its `iat` is later than the deletion and than the newest `iat` that the device has shown. Any id is taken, on the list or not.',
        params: OfDevice,
        querystring: NoQuery,
        response: { 200: Positioned },
      },
      config: { refusals: ['forbidden'] },
    },
    async (request) => {
      const { userId, requester } = actingUser(request)
      return positioned(await users.devices.revoke(userId, request.params.deviceId, requester))
    },
  )
}
