// The peer to compare with: a js-libp2p node that takes as many connections as come. Prints
// `ready IP:PORT`.
import { noise } from '@chainsafe/libp2p-noise'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { createLibp2p } from 'libp2p'

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp({ backlog: 1024 })],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping({ maxInboundStreams: 8 }) },
  connectionManager: {
    maxConnections: 100_000,
    maxIncomingPendingConnections: 1_000,
    inboundConnectionThreshold: 1_000_000
  }
})
const [, , , , port] = node.getMultiaddrs()[0].toString().split('/')
console.log(`ready 127.0.0.1:${port}`)
