// Fastify with a schema for what it answers, and one undici pool an upstream: node server.mjs PORT UPSTREAM SLOW_UPSTREAM,
// the last two as addresses. It keeps no books, checks no key and counts nothing.

import Fastify from 'fastify'
import { Pool } from 'undici'

const CREDENTIAL = 'eyJhbGciOiJIUzI1NiJ9.e30.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
const [port, fast, slow] = process.argv.slice(2)
const pool = (address) => new Pool(`http://${address}`, { connections: 64, pipelining: 1 })
const upstreams = { fast: pool(fast), slow: pool(slow) }

const integer = { type: 'integer' }
const string = { type: 'string' }
const item = { type: 'object', properties: { id: string, status: string } }
const schema = {
  body: {
    type: 'object',
    required: ['connection', 'ids'],
    properties: { connection: string, ids: { type: 'array', items: string } },
  },
  response: {
    200: {
      type: 'object',
      properties: {
        connection: string,
        requested: integer,
        deleted: integer,
        failed: integer,
        results: { type: 'array', items: item },
      },
    },
  },
}

const bulk = {
  path: '/agentassist/api/v1/public/st-1/contacts/bulk-delete',
  method: 'DELETE',
  headers: { 'content-type': 'application/json', accept: 'application/json', accountId: 'acc-1', auth: CREDENTIAL },
  // Or a connection is closed after a DELETE with a body.
  reset: false,
}

async function all(ids) {
  const { statusCode, body } = await upstreams.fast.request({ ...bulk, body: JSON.stringify({ ids }) })
  const reply = await body.json()
  if (statusCode !== 200) throw new Error(`upstream: ${statusCode}`)
  const deleted = new Set(reply.successfulRecords.map((record) => record.id))
  return ids.map((id) => ({ id, status: deleted.has(id) ? 'deleted' : 'failed' }))
}

async function one(id) {
  const headers = { authorization: CREDENTIAL }
  const { statusCode, body } = await upstreams.slow.request({ path: `/api/contact/${id}`, method: 'DELETE', headers })
  await body.dump()
  return { id, status: statusCode < 300 ? 'deleted' : 'failed' }
}

const app = Fastify({ bodyLimit: 16 << 20, logger: false })
app.post('/v1/delete', { schema }, async ({ body: { connection, ids } }) => {
  const results = connection === 'support' ? await all(ids) : await Promise.all(ids.map(one))
  const deleted = results.filter((result) => result.status === 'deleted').length
  return { connection, requested: ids.length, deleted, failed: ids.length - deleted, results }
})
await app.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 })
