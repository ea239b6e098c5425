// A socket.io server: echoes with an acknowledgement, pushes, and tells how each client left.
// Prints `PORT n`, then one JSON line for each connection that ended.
import { createServer } from "node:http";
import { createRequire } from "node:module";
const { Server } = createRequire(`${process.env.MODULES}/`)("socket.io");

const http = createServer();
const io = new Server(http, { transports: ["websocket"], maxHttpBufferSize: 16 << 20 });
http.listen(0, "127.0.0.1", () => console.log(`PORT ${http.address().port}`));

const serve = (socket) => {
  socket.emit("greeting", socket.nsp.name);
  socket.on("echo", (...values) => values.pop()(...values));
  socket.on("shout", (text) => socket.nsp.emit("heard", text));
  socket.on("kick me", () => socket.disconnect(true));
  socket.on("disconnect", (reason) => {
    const path = `${socket.handshake.query.name}${socket.nsp.name}`;
    console.log(JSON.stringify({ path, reason }));
  });
};
io.on("connection", serve);
io.of("/admin").on("connection", serve);
