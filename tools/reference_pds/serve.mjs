// Runs the reference PLC server (in memory) and the reference PDS on free loopback ports, prints one JSON line with
// their origins when both answer, and stops when standard input closes.
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import plc from '@did-plc/server'
import * as pdsPackage from '@atproto/pds'

const freePort = () =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })

const hex = (bytes) => randomBytes(bytes).toString('hex')
const folder = mkdtempSync(join(tmpdir(), 'reference-pds-'))

const plcPort = await freePort()
const directory = plc.PlcServer.create({ db: plc.Database.mock(), port: plcPort })
await directory.start()

const port = await freePort()
const environment = {
  devMode: true,
  port,
  hostname: 'localhost',
  serviceHandleDomains: ['.test'],
  dataDirectory: folder,
  blobstoreDiskLocation: join(folder, 'blobs'),
  didPlcUrl: `http://localhost:${plcPort}`,
  plcRotationKeyK256PrivateKeyHex: hex(32),
  jwtSecret: hex(16),
  adminPassword: process.env.REFERENCE_PDS_ADMIN_PASSWORD ?? hex(16),
  inviteRequired: false,
  disableSsrfProtection: true,
  rateLimitsEnabled: false,
  logEnabled: false,
}
const pds = await pdsPackage.PDS.create(
  pdsPackage.envToCfg(environment),
  pdsPackage.envToSecrets(environment),
)
await pds.start()
console.log(JSON.stringify({ pds_url: `http://localhost:${port}`, plc_url: `http://localhost:${plcPort}` }))

const stop = async () => {
  await pds.destroy()
  await directory.destroy()
  rmSync(folder, { recursive: true, force: true })
  process.exit(0)
}
process.stdin.on('end', stop).resume()
process.on('SIGTERM', stop)
process.on('SIGINT', stop)
