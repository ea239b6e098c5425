// The example of the package's README, with its forwarding fields and a name for Via.
'use strict'
const http = require('http')
const proxy = require(process.argv[2])
const port = Number(process.argv[3])
const backend = Number(process.argv[4])

const options = {
  hostname: '127.0.0.1',
  port: backend,
  timeout: 3000,
  proxyTimeout: 3000,
  proxyName: 'http2-proxy',
  onReq: (req, { headers }) => {
    headers['x-forwarded-for'] = req.socket.remoteAddress
    headers['x-real-ip'] = req.socket.remoteAddress
    headers['x-forwarded-proto'] = 'http'
    headers['x-forwarded-host'] = req.headers.host
  }
}

const server = http.createServer({ headersTimeout: 3000 })
server.on('request', (req, res) => {
  proxy.web(req, res, options, (err, req, res) => {
    if (!err) return
    if (!res.headersSent) res.statusCode = err.statusCode || 502
    res.end()
  })
})
server.on('upgrade', (req, socket, head) => {
  proxy.ws(req, socket, head, options, (err, req, socket) => {
    if (err) socket.destroy()
  })
})
server.listen(port, '127.0.0.1')
