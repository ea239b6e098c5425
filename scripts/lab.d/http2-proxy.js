// http2-proxy for the lab, as its README shows it and as KubeSail uses it: `ws` on every upgrade.
// Arguments: listen address, backend address, directory that holds node_modules.
const [listen, backend, modules] = process.argv.slice(2)
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
server.listen({ host: at.hostname, port: at.port, backlog: 4096 })
