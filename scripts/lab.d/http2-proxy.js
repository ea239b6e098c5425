// http2-proxy for the lab, as its README shows it and as KubeSail uses it: `ws` on every upgrade.
// Arguments: listen address, backend address, directory that holds node_modules, workers. Several
// workers are what node's documentation gives for several cores: a cluster of processes.
const [listen, backend, modules, workers] = process.argv.slice(2)
const cluster = require('cluster')
const http = require('http')
const proxy = require(require.resolve('http2-proxy', { paths: [modules] }))

const address = (text) => {
  const [hostname, port] = text.split(':')
  return { hostname, port: Number(port) }
}
const to = address(backend)
const at = address(listen)
const server = http.createServer((request, response) => response.writeHead(426).end())
server.on('upgrade', (request, socket, head) => {
  const onReq = (_, { headers }) => {
    headers['x-forwarded-for'] = request.socket.remoteAddress
  }
  proxy.ws(request, socket, head, { ...to, onReq }, (error, _, downstream) => {
    if (error) downstream.destroy()
  })
})
if (Number(workers) > 1 && cluster.isPrimary) {
  process.on('SIGTERM', () => process.exit())
  for (let index = 0; index < Number(workers); index += 1) cluster.fork()
} else {
  server.listen({ host: at.hostname, port: at.port, backlog: 4096 })
}
