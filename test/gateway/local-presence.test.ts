import { LocalOnlineDevices } from '../../src/gateway/local-online-devices.js'
import { GRACE_MS, onlineDevicesContract } from './presence-contract.js'

onlineDevicesContract('who is online, in the memory of one node', async () => {
  const online = new LocalOnlineDevices({ graceMs: GRACE_MS })
  return { nodes: [online], close: () => online.stop() }
})
