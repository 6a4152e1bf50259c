// Makes backfill_dagster_tests/fixtures/reference: small repos written through the reference PDS, each as the CAR that
// getRepo answers (<name>.car) with its DID document (<name>.did.json), and in reference.json what the PDS itself says
// of them. Run `./node make_fixtures.mjs` here after `./install`. DIDs, keys and revs are new each time; counts aren't.
import { createHash } from 'node:crypto'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { startServers } from './servers.mjs'

const FOLDER = fileURLToPath(new URL('../../backfill_dagster_tests/fixtures/reference/', import.meta.url))
const LINK = 'bafyreihffx5a2e7k5uwrmmgofbvzujc5cmw5h4espouwuxt3liqoflx3ee'
const [POST, LIKE, REPOST] = ['app.bsky.feed.post', 'app.bsky.feed.like', 'app.bsky.feed.repost']
const [FOLLOW, BLOCK] = ['app.bsky.graph.follow', 'app.bsky.graph.block']

const servers = await startServers()

const call = async (nsid, { query = {}, body, token, raw = false }) => {
  const headers = { ...(body && { 'content-type': 'application/json' }), ...(token && { authorization: `Bearer ${token}` }) }
  const url = `${servers.pdsUrl}/xrpc/${nsid}?${new URLSearchParams(query)}`
  const answer = await fetch(url, { method: body ? 'POST' : 'GET', headers, body: body && JSON.stringify(body) })
  if (!answer.ok) throw new Error(`${nsid}: ${answer.status} ${await answer.text()}`)
  return raw ? Buffer.from(await answer.arrayBuffer()) : answer.json()
}

class Account {
  static async create(name) {
    const body = { handle: `the-${name}.test`, email: `${name}@example.com`, password: 'a password' }
    const { did, accessJwt } = await call('com.atproto.server.createAccount', { body })
    return Object.assign(new Account(), { did, token: accessJwt })
  }

  /** One commit of [collection, value, rkey?] each; returns the strong references. */
  async create(...records) {
    const writes = records.map(([collection, value, rkey]) => ({
      $type: 'com.atproto.repo.applyWrites#create',
      collection,
      value,
      ...(rkey && { rkey }),
    }))
    const { results } = await this.apply(writes)
    return results.map(({ uri, cid }) => ({ uri, cid }))
  }

  apply(writes) {
    return call('com.atproto.repo.applyWrites', { token: this.token, body: { repo: this.did, writes } })
  }
}

const change = (kind, { uri }, value) => {
  const [collection, rkey] = uri.split('/').slice(3)
  return { $type: `com.atproto.repo.applyWrites#${kind}`, collection, rkey, ...(value && { value }) }
}
const date = (number) => new Date(Date.UTC(2024, 0, 15, 0, 0, number)).toISOString()
const post = (number, more = {}) => [POST, { text: `post ${number} \u{1f600}`, createdAt: date(number), ...more }]
const posts = (count) => Array.from({ length: count }, (_, number) => post(number))
const edited = (number) => ({ text: `post ${number}, edited`, createdAt: date(number) })
const reply = (number, root) => post(number, { reply: { root, parent: root } })

const repos = {
  empty: async () => {},

  ten: async (account) => {
    const [first] = await account.create(...posts(4))
    await account.create(reply(4, first), reply(5, first))
    await account.create([LIKE, { subject: first, createdAt: date(6) }], [REPOST, { subject: first, createdAt: date(7) }])
    const subject = 'did:web:example.com'
    await account.create([FOLLOW, { subject, createdAt: date(8) }], [BLOCK, { subject, createdAt: date(9) }])
  },

  edited: async (account) => {
    const written = await account.create(...posts(12))
    await account.apply(written.slice(0, 3).map((one, number) => change('update', one, edited(number))))
    await account.apply(written.slice(3, 8).map((one) => change('delete', one)))
    const [gone] = await account.create([LIKE, { subject: written[0], createdAt: date(0) }])
    await account.apply([change('delete', gone)])
  },

  collections: async (account) => {
    const odd = { link: { $link: LINK }, bytes: { $bytes: 'AAEC/w' }, '日本': [null, true, -1, { deep: [[]] }], createdAt: 'then' }
    const names = Array.from({ length: 20 }, (_, number) => `com.example.kind${String.fromCharCode(97 + number)}.thing`)
    await account.create(
      ['app.bsky.actor.profile', { displayName: 'Ä', createdAt: date(0) }, 'self'],
      ['chat.bsky.actor.declaration', { allowIncoming: 'all' }, 'self'],
      ...names.map((name, number) => [name, { ...odd, number }, number % 2 ? 'a:b_c~d.e-f' : undefined]),
      ...posts(2),
    )
  },

  three_hundred: async (account) => {
    const written = await account.create(...posts(100))
    await account.create(...posts(100))
    await account.create(...written.slice(0, 40).map((root, number) => reply(number, root)))
    await account.create(...written.slice(40).map((subject, number) => [LIKE, { subject, createdAt: date(number) }]))
  },

  p256: async (account) => {
    await account.create(...posts(5))
    await servers.rotateKey(account.did, 'p256')
    await account.create(...posts(3))
  },

  // What getRepo answers to `since` a moment in the middle.
  since: async (account) => {
    await account.create(...posts(60))
    const { rev } = await call('com.atproto.sync.getLatestCommit', { query: { did: account.did } })
    await sleep(50) // revs, keys and the moment come from one clock
    const start = new Date().toISOString()
    await sleep(50)
    const createdAt = new Date().toISOString()
    await account.create(...Array.from({ length: 9 }, (_, number) => post(number, { createdAt })))
    return { since: rev, start_date: start }
  },
}

const listed = async (did) => {
  const { collections } = await call('com.atproto.repo.describeRepo', { query: { repo: did } })
  const records = []
  for (const collection of collections) {
    for (let cursor = ''; cursor !== undefined; ) {
      const query = { repo: did, collection, limit: 100, ...(cursor && { cursor }) }
      const page = await call('com.atproto.repo.listRecords', { query })
      records.push(...page.records)
      cursor = page.cursor
    }
  }
  return records
}

const make = async (name, write) => {
  const account = await Account.create(name.replace('_', '-'))
  const { did } = account
  const range = await write(account)
  const car = await call('com.atproto.sync.getRepo', { query: { did, ...(range && { since: range.since }) }, raw: true })
  const document = await (await fetch(`${servers.plcUrl}/${did}`)).json()
  document.service[0].serviceEndpoint = 'https://pds.example.com'
  writeFileSync(`${FOLDER}${name}.car`, car)
  writeFileSync(`${FOLDER}${name}.did.json`, `${JSON.stringify(document, null, 2)}\n`)
  const { cid, rev } = await call('com.atproto.sync.getLatestCommit', { query: { did } })
  const lines = (await listed(did)).map((one) => `${one.uri} ${one.cid}\n`).sort()
  const records_sha256 = createHash('sha256').update(lines.join('')).digest('hex')
  return { did, commit_cid: cid, rev, ...range, records: lines.length, records_sha256 }
}

rmSync(FOLDER, { recursive: true, force: true })
mkdirSync(FOLDER, { recursive: true })
try {
  const said = {}
  for (const [name, write] of Object.entries(repos)) said[name] = await make(name, write)
  writeFileSync(`${FOLDER}reference.json`, `${JSON.stringify(said, null, 2)}\n`)
} finally {
  await servers.stop()
}
process.exit(0)
