// Lets the reference implementation judge CAR files: reads one JSON object a line, {did, signing_key, path}, from
// standard input and prints one a line, {did, records} or {did, error}: blocks, tree, commit and signature are checked.
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { verifyRepoCar } from '@atproto/repo'

for await (const line of createInterface({ input: process.stdin })) {
  const { did, signing_key: signingKey, path } = JSON.parse(line)
  try {
    const { creates } = await verifyRepoCar(readFileSync(path), did, signingKey)
    const records = creates.map(({ collection, rkey, cid }) => [collection, rkey, cid.toString()])
    console.log(JSON.stringify({ did, records }))
  } catch (error) {
    console.log(JSON.stringify({ did, error: String(error) }))
  }
}
