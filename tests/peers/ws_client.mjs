// The npm `ws` client: opens the sessions of the plan one after the other; one JSON line for each.
//   node ws_client.mjs ws://HOST:PORT/PREFIX
import { createRequire } from "node:module";
import { randomBytes } from "node:crypto";
const { WebSocket } = createRequire(`${process.env.MODULES}/`)("ws");

const MIB = 1 << 20;
const [url] = process.argv.slice(2);

/** Opens a session and runs `script` on it; the checks that failed carry a reason. */
async function session(name, { protocols = [], deflate = false }, script) {
  const checks = {};
  const socket = new WebSocket(`${url}/${name}`, protocols, { perMessageDeflate: deflate });
  const inbox = [];
  const waiting = [];
  const offer = (message) => (waiting.length ? waiting.shift()(message) : inbox.push(message));
  socket.on("message", (data, binary) => offer(binary ? data : data.toString()));
  const ended = new Promise((resolve) =>
    socket.on("close", (code, reason) => resolve({ code, reason: reason.toString() })),
  );
  const receive = () =>
    inbox.length ? inbox.shift() : new Promise((resolve) => waiting.push(resolve));
  const check = (what, holds, why) => (checks[what] = holds ? null : String(why));
  try {
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
    await script({ socket, receive, check, ended });
    await ended;
  } catch (error) {
    checks.session = String(error);
  }
  console.log(JSON.stringify({ name, checks }));
}

async function messages({ socket, receive, check }) {
  socket.send("grüße");
  const text = await receive();
  check("text", text === "grüße", text);
  const bytes = Buffer.from([0, 1, 254, 255]);
  socket.send(bytes);
  const binary = await receive();
  check("binary", bytes.equals(binary), binary);
  const pong = new Promise((resolve) => socket.once("pong", resolve));
  socket.ping("from the client");
  const payload = String(await pong);
  check("ping", payload === "from the client", payload);
  socket.send("!ping");
  const told = await receive();
  check("pong", told === "ponged: from the server", told);
  const big = randomBytes(MIB);
  socket.send(big);
  const echo = await receive();
  check("1 MiB both ways", big.equals(echo), `${echo.length} other bytes came back`);
  socket.close(1000, "done 1000");
}

async function subprotocol({ socket, receive, check }) {
  check("subprotocol", socket.protocol === "chat.v1", socket.protocol);
  socket.send("hello");
  const text = await receive();
  check("text", text === "hello", text);
  socket.close(3000, "done 3000");
}

async function deflate({ socket, receive, check }) {
  check("permessage-deflate", socket.extensions.includes("permessage-deflate"), socket.extensions);
  const long = "compress me ".repeat(10_000);
  socket.send(long);
  const text = await receive();
  check("text", text === long, `${text.length} other characters came back`);
  socket.close(4001, "done 4001");
}

const closedBy = (code) => async ({ socket, check, ended }) => {
  socket.send(`!close ${code} by-server-${code}`);
  const end = await ended;
  const holds = end.code === code && end.reason === `by-server-${code}`;
  check(`close ${code} by the server`, holds, JSON.stringify(end));
};

setTimeout(() => process.exit(3), 20_000).unref();
await session("messages", {}, messages);
await session("subprotocol", { protocols: ["chat.v2", "chat.v1"] }, subprotocol);
await session("deflate", { deflate: true }, deflate);
for (const code of [1000, 3000, 4001]) await session(`close-${code}`, {}, closedBy(code));
