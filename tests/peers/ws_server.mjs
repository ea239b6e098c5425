// The npm `ws` server: echoes, and does what a text that starts with "!" asks for.
// Prints `PORT n`, then one JSON line for each connection that ended.
import { createRequire } from "node:module";
const { WebSocketServer } = createRequire(`${process.env.MODULES}/`)("ws");

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  maxFragments: 0,
  maxPayload: 256 << 20,
  perMessageDeflate: process.argv.includes("--plain") ? false : true,
  handleProtocols: (offered) => (offered.has("chat.v1") ? "chat.v1" : false),
});
server.on("listening", () => console.log(`PORT ${server.address().port}`));
server.on("connection", (socket, request) => {
  socket.on("message", (data, binary) => {
    const text = binary ? "" : data.toString();
    if (text === "!ping") {
      socket.once("pong", (payload) => socket.send(`ponged: ${payload}`));
      socket.ping("from the server");
    } else if (text.startsWith("!close ")) {
      const [, code, reason] = text.split(" ");
      socket.close(Number(code), reason);
    } else {
      socket.send(data, { binary });
    }
  });
  // A protocol error of the client is answered by the library with the close code for it.
  socket.on("error", () => {});
  socket.on("close", (code, reason) => {
    const { protocol, extensions } = socket;
    const facts = { path: request.url, protocol, extensions, code, reason: reason.toString() };
    if (!process.argv.includes("--quiet")) console.log(JSON.stringify(facts));
  });
});
