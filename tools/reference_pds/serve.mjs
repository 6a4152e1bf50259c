// Runs the reference PLC server and PDS for another process: prints one JSON line with their origins when both answer,
// then answers each JSON line on standard input ({"do": <operator's action of servers.mjs>, "with": [...]}) with one,
// and stops when standard input closes.
import { createInterface } from 'node:readline'
import { startServers } from './servers.mjs'

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)
console.log = console.error // the PDS's own scripts talk, and standard output is for answers

const servers = await startServers()
const { pdsUrl, plcUrl, adminPassword, stop, ...actions } = servers

const end = async () => {
  await stop()
  process.exit(0)
}
process.on('SIGTERM', end)
process.on('SIGINT', end)

say({ pds_url: pdsUrl, plc_url: plcUrl, admin_password: adminPassword })
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  try {
    say({ result: (await actions[asked.do](...(asked.with ?? []))) ?? null })
  } catch (error) {
    say({ error: String(error) })
  }
}
await end()
