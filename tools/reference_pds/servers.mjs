// The reference PLC server (in memory) and the reference PDS in this process, on free loopback ports, with what only an
// operator can do: see the requests, change keys and DID documents. What they keep goes when the process ends.
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { P256Keypair, Secp256k1Keypair } from '@atproto/crypto'
import * as pdsPackage from '@atproto/pds'
import plc from '@did-plc/server'

const KEYPAIRS = { k256: Secp256k1Keypair, p256: P256Keypair }

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

const startPds = async ({ folder, plcUrl, adminPassword, rotationKeyHex }) => {
  mkdirSync(folder)
  const environment = {
    devMode: true,
    port: await freePort(),
    hostname: 'localhost',
    serviceHandleDomains: ['.test'],
    dataDirectory: folder,
    blobstoreDiskLocation: join(folder, 'blobs'),
    didPlcUrl: plcUrl,
    plcRotationKeyK256PrivateKeyHex: rotationKeyHex,
    jwtSecret: hex(16),
    adminPassword,
    inviteRequired: false,
    disableSsrfProtection: true,
    rateLimitsEnabled: false,
    logEnabled: false,
  }
  const pds = await pdsPackage.PDS.create(pdsPackage.envToCfg(environment), pdsPackage.envToSecrets(environment))
  await pds.start()
  return pds
}

/** Starts both; resolves when both answer. */
export const startServers = async () => {
  const folder = mkdtempSync(join(tmpdir(), 'reference-pds-'))
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }))
  const plcPort = await freePort()
  const directory = plc.PlcServer.create({ db: plc.Database.mock(), port: plcPort })
  await directory.start()
  const plcUrl = `http://localhost:${plcPort}`
  const adminPassword = hex(16)
  const common = { plcUrl, adminPassword, rotationKeyHex: hex(32) }
  const pds = await startPds({ ...common, folder: join(folder, 'first') })
  let second
  const { actorStore, plcClient, plcRotationKey } = pds.ctx

  let requests = []
  pds.server.on('request', ({ method, url }) => requests.push(`${method} ${url}`))

  // The PDS itself makes k256 keys only; accounts that moved here with a p256 key exist all the same.
  const keys = new Map()
  const keypairOnDisk = actorStore.keypair.bind(actorStore)
  actorStore.keypair = async (did) => keys.get(did) ?? (await keypairOnDisk(did))

  return {
    pdsUrl: pds.ctx.cfg.service.publicUrl,
    plcUrl,
    adminPassword,

    /** The PDS's requests since the last call, as `GET /xrpc/...`. */
    takeRequests() {
      const taken = requests
      requests = []
      return taken
    },

    /** Gives an account a new key, as operators do: the PLC directory first, then an empty commit signed by it. */
    async rotateKey(did, curve) {
      keys.set(did, await KEYPAIRS[curve].create())
      await pdsPackage.scripts['rotate-keys'](pds.ctx, [did])
      return keys.get(did).did()
    },

    /** Names a key in the PLC directory that has signed nothing. */
    async publishForeignKey(did) {
      const key = (await Secp256k1Keypair.create()).did()
      await plcClient.updateAtprotoKey(did, plcRotationKey, key)
      return key
    },

    async tombstone(did) {
      await plcClient.tombstone(did, plcRotationKey)
    },

    /** Starts another PDS, for accounts to move to; returns its origin. */
    async secondPds() {
      second ??= await startPds({ ...common, folder: join(folder, 'second') })
      return second.ctx.cfg.service.publicUrl
    },

    /** Names an account's new PDS and the key that it has there. */
    async moveInDirectory(did, endpoint, signingKey) {
      await plcClient.updateData(did, plcRotationKey, (last) => ({
        ...last,
        verificationMethods: { atproto: signingKey },
        services: { atproto_pds: { type: 'AtprotoPersonalDataServer', endpoint } },
      }))
    },

    async stop() {
      await pds.destroy()
      await second?.destroy()
      await directory.destroy()
    },
  }
}
