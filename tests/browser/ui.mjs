// Uses the page of the admin API as an operator would, in a headless Chromium; see scripts/browser.
//
// Two gateways of this program: one with its embedded echo is the backend, the other one is looked at. Every wait is
// bounded. Each step says what it expects; the first that does not hold ends the test.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

const BOUND_MS = 20_000;
const TOKEN = "a-token-that-nobody-guesses";
const HOSTILE = "<img src=x onerror=alert(1)>";

const { values: options } = parseArgs({
  options: { program: { type: "string" }, screenshots: { type: "string" } },
});
if (options.screenshots) mkdirSync(options.screenshots, { recursive: true });
const { chromium } = await import(process.env.PLAYWRIGHT);
const folder = mkdtempSync(join(tmpdir(), "upsplice-ui-"));
const running = [];
let browser = null, failed = false;
try {
  await useUi();
} catch (error) {
  failed = true;
  console.error("FAILED:", error.message);
} finally {
  await browser?.close();
  for (const program of running) program.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);

async function useUi() {
  const [backend] = await start(["run", "--listen", "127.0.0.1:0"], 1);
  const token = join(folder, "token"), file = join(folder, "upsplice.toml");
  writeFileSync(token, TOKEN, { mode: 0o600 });
  const config = (more = "") => `[gateway]
name = "looked-at"
workers = 2
admin = "127.0.0.1:0"
admin_token_file = "${token}"
[[listener]]
address = "127.0.0.1:0"
[[route]]
name = "seen"
host = "localhost"
mode = "inspect"
inspect = "payload"
to = ["${backend}"]
[[route]]
name = "opaque"
to = ["${backend}"]
${more}`;
  writeFileSync(file, config());
  const [front, admin] = await start(["run", "--config", file], 2);
  const port = front.split(":")[1];
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    headless: true,
    args: [
      "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync",
    ],
  });
  const context = await browser.newContext({ colorScheme: "light", viewport: { width: 1280, height: 900 } });
  context.setDefaultTimeout(BOUND_MS);
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    // The browser notes every answer that is no success, and those are asked for here.
    const isAnswer = message.text().startsWith("Failed to load resource");
    if (["error", "warning"].includes(message.type()) && !isAnswer) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    const same = new URL(request.url()).host === admin;
    if (!same && !request.url().startsWith("data:")) complaints.push("request to " + request.url());
  });
  // A second page has the sessions: one that is inspected and two that are not. It comes from this machine, since
  // others may not open sockets to it.
  const clients = await (await browser.newContext({ bypassCSP: true })).newPage();
  await clients.goto(`http://${backend}/nothing`);
  await clients.evaluate(openSockets, { port, hostile: encodeURIComponent(HOSTILE) });

  await step("the page opens under a policy without exceptions, and asks for the token", async () => {
    const response = await page.goto(`http://${admin}/ui`);
    assert.equal(response.status(), 200);
    const policy = response.headers()["content-security-policy"] ?? "";
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe/);
    await page.getByRole("dialog").getByText("admin_token_file").waitFor();
  });
  await step("a wrong token is told, the right one is taken", async () => {
    await page.getByRole("textbox", { name: "Token" }).fill("not it");
    await page.keyboard.press("Enter");
    await page.getByText("That one is not it.").waitFor();
    // No header can hold this one.
    await page.getByRole("textbox", { name: "Token" }).fill("not → it");
    await page.keyboard.press("Enter");
    await page.getByRole("textbox", { name: "Token" }).fill(TOKEN);
    await page.getByRole("button", { name: "Go on" }).click();
    await page.locator('#state[data-state="ready"]').waitFor();
    assert.equal(await page.evaluate("localStorage.length"), 0);
  });
  const rows = page.locator("#sessions tbody tr");
  // What is said beforehand follows what is true by now.
  const plan = (expected) => until(async () => expected.test(await page.locator("#plan").innerText()),
    () => page.locator("#plan").innerText());
  await step("the sessions are there, with their bytes", async () => {
    await until(async () => (await rows.count()) === 3, async () => `${await rows.count()} rows`);
    await clients.evaluate("Promise.all(sockets.map((socket) => said(socket, 'x'.repeat(100))))");
    await until(async () => (await page.locator("#sessions").innerText()).includes("106 B"),
      () => page.locator("#sessions").innerText());
    assert.match(await page.locator("#tiles").innerText(), /3\s+live sessions/);
  });
  await step("the focus stays where it is while the page is brought up to date", async () => {
    const time = () => page.locator("#under").innerText();
    for (const table of ["#routes", "#sessions"]) {
      const button = page.locator(`${table} tbody button`).first();
      await button.focus();
      for (let times = 0; times < 2; times += 1) {
        const shown = await time();
        await until(async () => (await time()) !== shown, () => "nothing is brought up to date");
      }
      assert.ok(await button.evaluate((it) => it === document.activeElement), `${table} lost the focus`);
    }
  });
  await step("a filter chooses, and a wrong one is told", async () => {
    await page.locator('#filter [name=route]').selectOption("seen");
    await page.getByRole("button", { name: "Show", exact: true }).click();
    await until(async () => (await rows.count()) === 1, async () => `${await rows.count()} rows`);
    await page.locator('#filter [name=min_age]').fill("soon");
    await page.keyboard.press("Enter");
    await page.locator("#shown.bad").waitFor();
    await page.locator('#filter [name=min_age]').fill("");
    await page.keyboard.press("Enter");
    await page.locator("#shown:not(.bad)").waitFor();
  });
  await step("a watched session shows its frames, and what a client says is text", async () => {
    await rows.first().getByRole("button").click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("localhost").first().waitFor();
    await dialog.locator('[name=preview]').selectOption("80");
    await dialog.getByRole("button", { name: "Watch", exact: true }).click();
    await dialog.locator("#lines").getByText("opened").waitFor();
    await clients.evaluate("said(sockets[0], 'look: ' + hostile)");
    await dialog.locator("#lines").getByText(HOSTILE).first().waitFor();
    assert.equal(await page.locator("img").count(), 0);
    await picture(page, "session");
    await dialog.getByRole("button", { name: "Stop watching" }).click();
  });
  await step("ending it asks first, and its client hears Close 1001", async () => {
    await page.getByRole("button", { name: "End this session" }).click();
    await page.getByRole("button", { name: "No", exact: true }).click();
    assert.equal(await clients.evaluate("codes[0]"), null);
    const body = JSON.stringify({ error: "not ended", hint: "ask again" });
    await page.route("**/v1/sessions/*", (route) => route.request().method() === "DELETE"
      ? route.fulfill({ status: 503, contentType: "application/json", body }) : route.continue());
    await page.getByRole("button", { name: "End this session" }).click();
    await page.getByRole("button", { name: "End it" }).click();
    await page.getByRole("dialog").getByText(/not ended\s+ask again/).waitFor();
    await page.unroute("**/v1/sessions/*");
    await page.getByRole("button", { name: "End this session" }).click();
    await page.getByRole("button", { name: "End it" }).click();
    await until(async () => (await clients.evaluate("codes[0]")) === 1001, () => "no Close came");
    await page.getByText("it has ended").waitFor();
    await page.keyboard.press("Escape");
    await page.locator('#filter [name=route]').selectOption("");
    await page.getByRole("button", { name: "Show", exact: true }).click();
    await until(async () => (await rows.count()) === 2, async () => `${await rows.count()} rows`);
  });
  await step("a drain says what it will do, does it, and is undone", async () => {
    await clients.evaluate("reopened(0)");
    await until(async () => (await rows.count()) === 3, async () => `${await rows.count()} rows`);
    await page.getByRole("button", { name: "Drain…" }).first().click();
    await plan(/^3 sessions are told.*until the drain is undone/s);
    await page.getByRole("checkbox").check();
    await plan(/^3 sessions are told.*cannot be undone/s);
    await page.locator('#draining [name=what]').selectOption("route opaque");
    await plan(/^2 sessions are told.*until the drain is undone/s);
    await page.locator('#draining [name=over]').fill("1s");
    await plan(/within 1s/);
    await picture(page, "drain");
    await page.getByRole("button", { name: "Drain", exact: true }).click();
    await until(async () => (await clients.evaluate("codes.filter((code) => code).length")) === 2, () => "they are open");
    await page.getByText(/route opaque: 2 sessions told, 0 left/).waitFor();
    assert.equal(await clients.evaluate("codes[0]"), null, "the other route goes on");
    await page.getByText("opaque (draining)").waitFor();
    await page.getByRole("button", { name: "Undo" }).click();
    await page.locator("#drains").waitFor({ state: "hidden" });
  });
  await step("a drain of one route's endpoint is shown at no other route", async () => {
    await page.getByRole("button", { name: "Drain…" }).first().click();
    await page.locator('#draining [name=what]').selectOption(`endpoint ${backend} of route opaque`);
    await plan(/^0 sessions are told.*other endpoints/s);
    await page.getByRole("button", { name: "Drain", exact: true }).click();
    const routes = page.locator("#routes tbody");
    await routes.getByText("draining, 0").waitFor();
    assert.equal(await routes.getByText("draining").count(), 1, await routes.innerText());
    await page.getByRole("button", { name: "Undo" }).click();
    await page.locator("#drains").waitFor({ state: "hidden" });
  });
  await step("a drain of a route that is inspected closes with 1012", async () => {
    await page.getByRole("row").filter({ hasText: "localhost/" }).getByRole("button", { name: "Drain…" }).click();
    await page.locator('#draining [name=over]').fill("0s");
    await page.getByRole("button", { name: "Drain", exact: true }).click();
    await until(async () => (await clients.evaluate("codes[0]")) === 1012, async () =>
      `${await clients.evaluate("codes[0]")}; ${await page.locator("#notice").innerText()}`);
    await page.getByRole("button", { name: "Undo" }).click();
    await page.locator("#drains").waitFor({ state: "hidden" });
  });
  await step("a bad file changes nothing and says all that is wrong; a good one is taken up", async () => {
    writeFileSync(file, config("colour = 1\nengine = \"steam\"\n"));
    await page.getByRole("button", { name: "Reload" }).click();
    await page.locator("#notice.bad").getByText(/colour[^]*steam|steam[^]*colour/).waitFor();
    writeFileSync(file, config(`[[route]]\nname = "third"\npath = "/third"\nto = ["${backend}"]\n`));
    await page.getByRole("button", { name: "Reload" }).click();
    await page.locator("#notice:not(.bad)").getByText("added: third").waitFor();
    await page.locator("#routes").getByText("third").first().waitFor();
  });
  await step("it fits a desk and a telephone, in light and dark", async () => {
    await clients.evaluate("Promise.all([0, 1, 2].map(reopened))");
    await clients.evaluate("Promise.all(sockets.map((socket) => said(socket, 'y'.repeat(200000))))");
    await until(async () => (await rows.count()) === 3, async () => `${await rows.count()} rows`);
    for (const width of [1280, 390]) {
      await page.setViewportSize({ width, height: 900 });
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        const wide = await page.evaluate("document.documentElement.scrollWidth");
        assert.ok(wide <= width, `${wide} px wide in a window of ${width}`);
        const [text, ground] = await page.evaluate(brightness);
        assert.equal(ground > 0.5, colorScheme === "light", `${colorScheme}: the ground has ${ground}`);
        const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
        assert.ok(contrast >= 7, `${colorScheme}: a contrast of ${contrast}`);
      }
      await page.emulateMedia({ colorScheme: "light" });
      await picture(page, width === 390 ? "narrow" : "wide");
    }
  });
  await step("the chart shows what has passed, both ways", async () => {
    for (const way of ["up", "down"]) {
      const heights = async () => [...((await page.locator(`#chart path.${way}`).getAttribute("d")) ?? "")
        .matchAll(/[ML]\S+ ([\d.]+)/g)].map((point) => Number(point[1]));
      // 100 is the ground: half of what was the most is above 60, whatever came before.
      await until(async () => (await heights()).length > 2 && Math.min(...await heights()) < 60,
        async () => `${way}: ${await heights()}`);
    }
  });
  await step("a gateway that says nothing is told, and one that speaks again", async () => {
    running.at(-1).kill("SIGSTOP");
    await page.locator('#state[data-state="gone"]').waitFor();
    running.at(-1).kill("SIGCONT");
    await page.locator('#state[data-state="ready"]').waitFor();
  });
  await step("a gateway that is gone is told", async () => {
    running.at(-1).kill("SIGKILL");
    await page.locator('#state[data-state="gone"]').waitFor();
    assert.deepEqual(complaints.filter((text) => !text.includes("ERR_CONNECTION")), []);
  });
}

// In the page: the relative luminance of its text and of its ground (WCAG 2.2), from 0 to 1.
function brightness() {
  const style = getComputedStyle(document.body);
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  return [style.color, style.backgroundColor].map((color) => {
    // However a style sheet writes it, a canvas makes it three numbers.
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  });
}

// In the page of the clients.
function openSockets({ port, hostile }) {
  window.hostile = decodeURIComponent(hostile);
  const places = ["localhost", "127.0.0.1", "127.0.0.1"].map((host) => `ws://${host}:${port}/echo`);
  window.sockets = [];
  window.codes = [];
  window.reopened = (at) => new Promise((open, fail) => {
    const socket = sockets[at] = new WebSocket(places[at]);
    codes[at] = null;
    socket.onopen = () => open();
    socket.onerror = () => fail(new Error("no session to " + places[at]));
    socket.onclose = (event) => { codes[at] = event.code; };
  });
  window.said = (socket, text) => new Promise((back) => {
    socket.onmessage = (event) => back(event.data === text);
    socket.send(text);
  });
  return Promise.all(places.map((_, at) => reopened(at)));
}

// Starts the program; where it listens, then where it answers the operator.
async function start(args, places) {
  const program = spawn(options.program, args, { stdio: ["ignore", "ignore", "pipe"] });
  running.push(program);
  const found = [];
  const lines = createInterface({ input: program.stderr });
  const late = setTimeout(() => lines.close(), BOUND_MS);
  for await (const line of lines) {
    const place = /(?:listening|answering the operator) on ([\d.]+:\d+)/.exec(line);
    if (place) found.push(place[1]);
    if (found.length === places) break;
  }
  clearTimeout(late);
  program.stderr.resume();
  assert.equal(found.length, places, `${options.program} ${args.join(" ")} does not start`);
  return found;
}

async function picture(page, name) {
  if (!options.screenshots) return;
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(options.screenshots, `ui-${name}-${colorScheme}.png`), fullPage: name.length === 4 || name === "narrow" });
  }
  await page.emulateMedia({ colorScheme: "light" });
}

async function step(name, act) {
  try {
    await act();
  } catch (error) {
    throw new Error(`${name}: ${error.message}`);
  }
  console.log("ok", name);
}

async function until(holds, describe) {
  const giveUp = Date.now() + BOUND_MS;
  while (!(await holds())) {
    if (Date.now() > giveUp) throw new Error(await describe());
    await new Promise((wake) => setTimeout(wake, 50));
  }
}
