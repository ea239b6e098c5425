// A socket.io client on the websocket transport alone; one JSON line for each connection.
//   node socketio_client.mjs http://HOST:PORT
import { createRequire } from "node:module";
import { randomBytes } from "node:crypto";
const { io } = createRequire(`${process.env.MODULES}/`)("socket.io-client");

const [url] = process.argv.slice(2);
const options = (name) => ({
  transports: ["websocket"],
  forceNew: true,
  reconnection: false,
  query: { name },
});
const once = (socket, event) => new Promise((resolve) => socket.once(event, resolve));

async function session(name, script) {
  const checks = {};
  const check = (what, holds, why) => (checks[what] = holds ? null : String(why));
  try {
    await script(name, check);
  } catch (error) {
    checks.session = String(error);
  }
  console.log(JSON.stringify({ name, checks }));
}

async function opened(name, path = "") {
  const socket = io(`${url}${path}`, options(name));
  const greeting = once(socket, "greeting");
  await Promise.race([
    once(socket, "connect"),
    once(socket, "connect_error").then((error) => Promise.reject(error)),
  ]);
  return { socket, greeting: await greeting };
}

async function events(name, check) {
  const { socket, greeting } = await opened(name);
  check("greeting", greeting === "/", greeting);
  const transport = socket.io.engine.transport.name;
  check("transport", transport === "websocket", transport);
  const text = await socket.emitWithAck("echo", "grüße");
  check("text", text === "grüße", text);
  const big = randomBytes(1 << 20);
  const echo = await socket.emitWithAck("echo", big);
  check("1 MiB both ways", big.equals(echo), `${echo.length} other bytes came back`);
  socket.disconnect();
}

async function broadcast(name, check) {
  const { socket } = await opened(name);
  const { socket: other } = await opened(`${name}-other`);
  const both = Promise.all([once(socket, "heard"), once(other, "heard")]);
  other.emit("shout", "all hands");
  const heard = await both;
  check("broadcast", heard.every((text) => text === "all hands"), heard);
  socket.disconnect();
  other.disconnect();
}

async function namespace(name, check) {
  const { socket, greeting } = await opened(name, "/admin");
  check("greeting", greeting === "/admin", greeting);
  socket.disconnect();
}

async function kicked(name, check) {
  const { socket } = await opened(name);
  const left = once(socket, "disconnect");
  socket.emit("kick me");
  const reason = await left;
  check("disconnect by the server", reason === "io server disconnect", reason);
}

setTimeout(() => process.exit(3), 20_000).unref();
await session("events", events);
await session("broadcast", broadcast);
await session("namespace", namespace);
await session("kicked", kicked);
