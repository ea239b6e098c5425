// A WebSocket server that validates nothing, see lax.mjs. Prints `PORT n`.
import { createServer } from "node:http";
import { LaxEcho, accept } from "./lax.mjs";

const server = createServer((_, response) => response.writeHead(426).end());
server.on("upgrade", (request, socket, head) => {
  const key = request.headers["sec-websocket-key"];
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
      `Sec-WebSocket-Accept: ${accept(key)}\r\n\r\n`,
  );
  new LaxEcho(socket).feed(head);
});
server.listen(0, "127.0.0.1", () => console.log(`PORT ${server.address().port}`));
