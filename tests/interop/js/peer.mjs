// A js-libp2p peer that does what it is told: one JSON object a line on stdin, and its answer on
// stdout. Bytes are in hex.
//
// usage: node peer.mjs bare|plain|dht|mdns [IP]
//   bare   opens no stream of its own accord, so that the first one is that of the caller
//   plain  with identify and ping
//   dht    also a server of the DHT, with validators for the records of oc-discovery
//   mdns   also asks and answers by multicast DNS, on the link with the address IP
import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { identify } from '@libp2p/identify'
import { kadDHT } from '@libp2p/kad-dht'
import { mdns } from '@libp2p/mdns'
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id'
import { RecordEnvelope } from '@libp2p/peer-record'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { lpStream } from '@libp2p/utils'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'
import { sha256 } from 'multiformats/hashes/sha2'

const DEADLINE_MS = 10_000
const KAD = '/oc/kad/1.0.0'
const [mode, ip = '127.0.0.1'] = process.argv.slice(2)
const deadline = () => ({ signal: AbortSignal.timeout(DEADLINE_MS) })
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'))
const hex = (data) => Buffer.from(data.subarray()).toString('hex')

// Throws unless the envelope is signed by the subject of the key.
async function validIndexerRecord (key, value) {
  const [, , subject] = new TextDecoder().decode(key).split('/')
  const envelope = await RecordEnvelope.openAndCertify(value, 'oc-discovery-indexer')
  const signer = peerIdFromPublicKey(envelope.publicKey).toString()
  if (signer !== subject) {
    throw new Error(`signed by ${signer}, under the key of ${subject}`)
  }
}

// The peers that opened streams of Kademlia with this one. Not by `node.use`: in libp2p 3.3.11 it
// breaks outbound streams once an inbound one came.
const askers = new Set()

function dht (components) {
  const { registrar } = components
  const handle = registrar.handle.bind(registrar)
  registrar.handle = (protocol, take, options) => handle(protocol, (stream, connection) => {
    if (protocol === KAD) askers.add(connection.remotePeer.toString())
    return take(stream, connection)
  }, options)
  return kadDHT({
    protocol: KAD,
    clientMode: false,
    // The default one drops loopback addresses.
    peerInfoMapper: (peer) => peer,
    validators: { indexer: validIndexerRecord },
    selectors: { indexer: () => 0 }
  })(components)
}

const services = mode === 'bare' ? {} : { identify: identify(), ping: ping() }
if (mode === 'dht') services.dht = dht

const node = await createLibp2p({
  addresses: { listen: [`/ip4/${ip}/tcp/0`] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  // It says at once that it is there, and asks every second.
  peerDiscovery: mode === 'mdns' ? [mdns({ interval: 1000 })] : [],
  connectionMonitor: { enabled: mode !== 'bare' },
  services
})

// What peers said of themselves.
const identified = new Map()
node.addEventListener('peer:identify', ({ detail }) => {
  identified.set(detail.peerId.toString(), {
    agent: detail.agentVersion,
    protocols: detail.protocols,
    addrs: detail.listenAddrs.map(String),
    observed: detail.observedAddr?.toString()
  })
})

// The peers that were heard of on the link.
const discovered = new Map()
node.addEventListener('peer:discovery', ({ detail }) => {
  discovered.set(detail.id.toString(), detail.multiaddrs.map(String))
})

async function only (name, events) {
  const found = []
  for await (const event of events) {
    if (event.name === name) found.push(event)
  }
  return found
}

// The content that is hashed to the key of a name or service in the DHT, by its text.
const RAW = 0x55
const contentOf = async (text) => CID.createV1(RAW, await sha256.digest(new TextEncoder().encode(text)))

// One stream: sends each message and reads the answer to it; without messages, reads one.
async function ask ({ peer, protocol, messages }) {
  const [connection] = node.getConnections(peerIdFromString(peer))
  if (connection == null) throw new Error('not connected')
  const stream = await connection.newStream(protocol, deadline())
  try {
    const io = lpStream(stream)
    const answers = []
    for (const message of messages.length > 0 ? messages : [null]) {
      if (message != null) await io.write(bytes(message), deadline())
      answers.push(hex(await io.read(deadline())))
    }
    return answers
  } finally {
    await stream.close(deadline()).catch(() => stream.abort(new Error('not closed in time')))
  }
}

const commands = {
  async connect ({ addr }) {
    const { encryption, multiplexer } = await node.dial(multiaddr(addr), deadline())
    return { encryption, multiplexer }
  },
  connections: ({ peer }) => node.getConnections(peerIdFromString(peer)).length,
  identified: ({ peer }) => identified.get(peer) ?? null,
  ping: ({ peer }) => node.services.ping.ping(peerIdFromString(peer), deadline()),
  ask,
  async askAtOnce ({ streams, ...args }) {
    const answers = await Promise.all(Array.from({ length: streams }, () => ask(args)))
    return answers.flat()
  },
  discovered: () => Object.fromEntries(discovered),
  askedBy: () => [...askers],
  async closest ({ key }) {
    const found = await only('FINAL_PEER', node.services.dht.getClosestPeers(bytes(key), deadline()))
    return found.map(({ peer }) => ({ id: peer.id.toString(), addrs: peer.multiaddrs.map(String) }))
  },
  async get ({ key }) {
    const found = await only('VALUE', node.services.dht.get(bytes(key), deadline()))
    return found.map(({ value }) => hex(value))
  },
  async providers ({ text }) {
    const found = await only('PROVIDER', node.services.dht.findProviders(await contentOf(text), deadline()))
    return found.flatMap(({ providers }) => providers.map(({ id, multiaddrs }) => ({ id: id.toString(), addrs: multiaddrs.map(String) })))
  },
  async provide ({ text }) {
    const told = await only('PEER_RESPONSE', node.services.dht.provide(await contentOf(text), deadline()))
    return told.map(({ from }) => from.toString())
  },
  hangUp: ({ peer }) => node.hangUp(peerIdFromString(peer), deadline())
}

const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')
say({ id: node.peerId.toString(), addrs: node.getMultiaddrs().map((addr) => addr.toString().replace(/\/p2p\/.*/, '')) })
for await (const line of createInterface({ input: process.stdin })) {
  const { does, ...args } = JSON.parse(line)
  try {
    say({ done: await commands[does](args) ?? null })
  } catch (error) {
    say({ failed: `${error.name}: ${error.message}` })
  }
}
await node.stop()
process.exit(0)
