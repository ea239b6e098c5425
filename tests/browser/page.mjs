// Uses the test page as a newcomer would, in a headless Chromium; see scripts/browser.
//
// Every wait is bounded. Each step says what it expects; the first that does not hold ends the test.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

const BOUND_MS = 20_000;
const MEBIBYTE = 1 << 20;
const WIDTHS = [1280, 390];

const options = readOptions();
const { chromium } = await import(process.env.PLAYWRIGHT);
const profile = mkdtempSync(join(tmpdir(), "upsplice-browser-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM,
  headless: true,
  colorScheme: "light",
  viewport: { width: WIDTHS[0], height: 800 },
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
  ],
});
context.setDefaultTimeout(BOUND_MS);
let failed = false;
try {
  await usePage(context.pages()[0] ?? (await context.newPage()));
} catch (error) {
  failed = true;
  console.error("FAILED:", error.message);
} finally {
  await context.close();
  rmSync(profile, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);

async function usePage(page) {
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    const same = new URL(request.url()).host === new URL(options.url).host;
    if (!same && !request.url().startsWith("data:")) complaints.push("request to " + request.url());
  });

  await step("the page opens under a policy without exceptions", async () => {
    const response = await page.goto(options.url, { timeout: BOUND_MS });
    assert.equal(response.status(), 200);
    const policy = response.headers()["content-security-policy"] ?? "";
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe/);
  });
  await step("it connects by itself", () => state(page, "open"));

  const back = page.locator("#log .back");
  await step("a typed message comes back on Enter, with its time", async () => {
    await page.getByLabel("Message", { exact: true }).fill("Grüße, 世界");
    await page.keyboard.press("Enter");
    await back.first().waitFor();
    assert.equal(await back.locator(".what").first().textContent(), "Grüße, 世界");
    assert.match(await back.locator(".note").first().textContent(), /^(< )?[\d.]+ ms$/);
  });
  await step("another by the button", async () => {
    await page.getByLabel("Message", { exact: true }).fill("<b>as text</b>");
    await page.getByRole("button", { name: "Send", exact: true }).click();
    await back.nth(1).waitFor();
    assert.equal(await back.locator(".what").nth(1).textContent(), "<b>as text</b>");
  });
  await step("1 MiB comes back, byte for byte", async () => {
    await page.getByRole("button", { name: "Send 1 MiB" }).click();
    await back.nth(2).waitFor();
    assert.equal(await back.locator(".what").nth(2).textContent(), "1 MiB, byte for byte");
  });
  if (options["expect-engine"]) {
    const expected = options["expect-engine"];
    await step(`the panel says what carried it: ${expected}`, async () => {
      const panel = () => page.locator("#engine").evaluate((panel) => ({ ...panel.dataset }));
      // The counters may be a moment behind the bytes.
      await until(async () => Number((await panel()).bytes) > 2 * MEBIBYTE, async () =>
        `the panel counts ${JSON.stringify(await panel())}`);
      assert.equal((await panel()).engine, expected);
      const words = {
        "splice": "splice(2): payload never entered upsplice's memory",
        "splice copy": "splice(2) and copy: some payload passed through upsplice's memory",
      }[expected] ?? `${expected}: payload passed through upsplice's memory`;
      assert.equal(await page.locator("#verdict").textContent(), words);
    });
  }
  await step("nothing failed", async () => {
    assert.equal(await page.locator("#log .wrong").count(), 0);
    assert.deepEqual(complaints, []);
  });
  await step("it fits a desk and a telephone, in light and dark", async () => {
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 800 });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${wide} px wide in a window of ${width}`);
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        if (options.screenshots) {
          const path = join(options.screenshots, `demo-${width}-${colorScheme}.png`);
          await page.screenshot({ path, fullPage: true });
        }
      }
    }
  });
  await step("a closed connection is shown, and opened again by the button", async () => {
    await page.evaluate("socket.close(1000, 'test')");
    await state(page, "closed");
    await page.getByRole("button", { name: "Reconnect" }).click();
    await state(page, "open");
    await page.keyboard.type("again");
    await page.keyboard.press("Enter");
    await back.nth(3).waitFor();
    assert.equal(await back.locator(".what").nth(3).textContent(), "again");
    assert.deepEqual(complaints, []);
  });
}

async function step(name, act) {
  try {
    await act();
  } catch (error) {
    throw new Error(`${name}: ${error.message}`);
  }
  console.log("ok", name);
}

function state(page, expected) {
  return page.locator(`#state[data-state="${expected}"]`).waitFor();
}

async function until(holds, describe) {
  const giveUp = Date.now() + BOUND_MS;
  while (!(await holds())) {
    if (Date.now() > giveUp) throw new Error(await describe());
    await new Promise((wake) => setTimeout(wake, 50));
  }
}

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        url: { type: "string", default: "http://127.0.0.1:8080/" },
        "expect-engine": { type: "string" },
        screenshots: { type: "string" },
      },
    });
    new URL(values.url);
    if (values.screenshots) mkdirSync(values.screenshots, { recursive: true });
    return values;
  } catch (error) {
    console.error(`scripts/browser: ${error.message}`);
    process.exit(2);
  }
}
