// A WebSocket client that validates nothing, see lax.mjs: runs all cases of Autobahn's fuzzing server.
//   node lax_client.mjs PORT HOST AGENT SIDE_BY_SIDE
// PORT is connected to, HOST is said: the suite refuses a Host that is not its own address, so a client that
// comes through a gateway names the suite.
import { request } from "node:http";
import { randomBytes } from "node:crypto";
import { LaxEcho } from "./lax.mjs";

const [port, host, agent, sideBySide] = process.argv.slice(2);

/** Opens a session; resolves once it has ended, with the messages that came where `keeps`. */
function session(path, keeps = false) {
  return new Promise((resolve, reject) => {
    const messages = [];
    const headers = {
      host,
      connection: "Upgrade",
      upgrade: "websocket",
      "sec-websocket-version": "13",
      "sec-websocket-key": randomBytes(16).toString("base64"),
    };
    const asked = request({ host: "127.0.0.1", port, path, headers });
    asked.on("error", reject);
    asked.on("response", ({ statusCode }) => reject(new Error(`${path}: status ${statusCode}`)));
    asked.on("upgrade", (_, socket, head) => {
      socket.on("end", () => socket.end());
      socket.on("close", () => resolve(messages));
      const onMessage = keeps ? (payload) => messages.push(payload.toString()) : null;
      new LaxEcho(socket, { client: true, onMessage }).feed(head);
    });
    asked.end();
  });
}

const [count] = await session("/getCaseCount", true);
const waiting = Array.from({ length: Number(count) }, (_, at) => at + 1);
const worker = async () => {
  for (let number; (number = waiting.shift()); ) {
    await session(`/runCase?case=${number}&agent=${agent}`);
  }
};
await Promise.all(Array.from({ length: Number(sideBySide) }, worker));
await session(`/updateReports?agent=${agent}`);
console.log(`${count} cases`);
