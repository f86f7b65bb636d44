// Drives the status page of a live agent in a real browser. See tests/it/page/browser.rs, which runs it.
//
// Environment: CHROMIUM, the browser; MODULES, where playwright-core and axe-core lie; AGENT, the page of an agent with
// everything that can go wrong; WELL, of one with nothing; BARE, of one that has nothing yet; PICTURES, where the pictures go.
//
// It ends with status 0, or prints what was not as it must be.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const { CHROMIUM, MODULES, PICTURES, AGENT, WELL, BARE } = process.env;
const require = createRequire(join(MODULES, "package.json"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const VIEWS = ["/", "/targets", "/service-discovery", "/identity", "/remote-write", "/config"];
// Of these the beginning is enough of a picture.
const LONG = ["targets", "config"];
const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 400, height: 800 };
// Slow machines are slow; only a failure waits this long.
const PATIENCE = 60_000;

const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"], timeout: PATIENCE });

// A page of its own whose complaints count: whatever the console or the policy has to say is a failure, but for answers
// with this `status`, which Chromium remarks on. With `clock` time stands still until it is moved.
async function open(url, { status, clock, ...options } = {}) {
  const context = await browser.newContext({ viewport: WIDE, reducedMotion: "reduce", ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  if (clock) {
    const now = Date.now();
    await page.clock.install({ time: now });
    await page.clock.pauseAt(now + 60_000);
  }
  const complaints = [];
  page.on("console", (message) => {
    if (status && message.text().includes(`with a status of ${status} `)) return;
    if (["error", "warning"].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
  page.on("requestfailed", (request) => {
    // A look that another one has overtaken.
    if (request.failure()?.errorText !== "net::ERR_ABORTED") complaints.push(`failed: ${request.url()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(new URL(url).origin)) complaints.push(`elsewhere: ${request.url()}`);
  });
  await page.goto(url);
  return {
    page,
    async close() {
      await context.close();
      assert.deepEqual(complaints, [], url);
    },
  };
}

// What axe finds that keeps somebody from reading or using the page.
async function judge(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
  const told = serious.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.slice(0, 3).map((node) => node.html).join(" | ")}`);
  assert.deepEqual(told, [], what);
}

// Nothing is cut off at the side.
async function fits(page, what) {
  const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(wide <= seen, `${what} is ${wide} pixels wide, and ${seen} are seen`);
}

const name = (view) => (view === "/" ? "overview" : view.split("?")[0].slice(1).replaceAll("/", "-"));
const shoot = (page, file, fullPage = true) => page.screenshot({ path: join(PICTURES, `${file}.png`), fullPage });

async function first(page, text) {
  return page.locator("main a", { hasText: text }).first().getAttribute("href");
}

// The pages of single things, which no list of views can name.
async function singles() {
  const { page, close } = await open(`${AGENT}/targets?search=payments`);
  const bad = await first(page, "payments-66bd7f-q8rtz");
  await page.goto(`${AGENT}/targets?search=cart-5d9f`);
  const good = await first(page, "cart-5d9f7c6b8-x2x7p");
  await page.goto(`${AGENT}/service-discovery?search=batch`);
  const dropped = await first(page, "batch-28401-done");
  await close();
  return { good, bad, dropped };
}

const { good, bad, dropped } = await singles();
const ALL = [...VIEWS.map((view) => [view, name(view)]), [good, "target-up"], [bad, "target-down"], [dropped, "dropped"]];

const steps = {
  async "every view, by day, by night and narrow: readable, quiet, and fit for everybody"() {
    for (const [path, file] of ALL) {
      const { page, close } = await open(AGENT + path);
      for (const colorScheme of ["light", "dark"]) {
        await page.emulateMedia({ colorScheme });
        await judge(page, `${path} ${colorScheme}`);
        await fits(page, path);
        await shoot(page, `${file}-${colorScheme}`, !LONG.includes(file));
      }
      await page.setViewportSize(NARROW);
      await judge(page, `${path} narrow`);
      await fits(page, `${path} narrow`);
      await shoot(page, `${file}-narrow`, !LONG.includes(file));
      await close();
    }
    for (const colorScheme of ["light", "dark"]) {
      const { page, close } = await open(WELL, { colorScheme });
      await page.getByText("All is well").waitFor();
      await judge(page, `well ${colorScheme}`);
      await shoot(page, `well-${colorScheme}`);
      await close();
    }
  },

  async "where there is nothing yet it says so, and what is gone is said to be"() {
    for (const [path, words] of [
      ["/", "No handshake can be tried with our certificates"],
      ["/targets", /There are no targets\.|The targets are not known yet/],
      ["/service-discovery", "broken.json"],
      ["/identity", "No certificate yet"],
      ["/remote-write", "No remote_write is configured"],
      ["/targets/0000000000000000", "No such target"],
      ["/service-discovery/0000000000000000", "No such candidate"],
    ]) {
      const { page, close } = await open(BARE + path, path.includes("0000") ? { status: 404 } : {});
      await page.locator("main").getByText(words).first().waitFor();
      assert.equal(await page.getByText(/stays? in use/).count(), 0, `${path}: nothing was ever in use`);
      await judge(page, `${path} bare`);
      await page.setViewportSize(NARROW);
      await judge(page, `${path} bare, narrow`);
      await fits(page, `${path} bare, narrow`);
      await shoot(page, `bare-${name(path)}-narrow`);
      await close();
    }
  },

  async "without a script everything can be read, searched and followed"() {
    const { page, close } = await open(AGENT, { javaScriptEnabled: false });
    await page.getByRole("heading", { name: "Right now" }).waitFor();
    assert.ok(await page.locator("main").getByText("identity_mismatch", { exact: true }).first().isVisible());
    assert.equal(await page.locator(".copy:visible, #live:visible").count(), 0, "no button that does nothing");
    await page.getByRole("link", { name: "Targets", exact: true }).first().click();
    await page.getByLabel("Search").fill("pod-4999");
    await page.getByRole("button", { name: "Filter" }).click();
    await page.getByText("Showing all 1, chosen from 5,008 targets.").waitFor();
    await page.getByRole("link", { name: "Show all" }).click();
    await page.getByRole("link", { name: "Last" }).click();
    await page.getByText("Showing 5,001–5,008 of 5,008.").waitFor();
    await page.goto(`${AGENT}/targets`);
    await page.getByLabel("Reason").selectOption("identity_mismatch");
    await page.getByRole("button", { name: "Filter" }).click();
    await page.locator("tbody a").first().click();
    const main = page.locator("main");
    await main.getByText("spiffe://cluster.local/ns/shop/sa/payments", { exact: true }).first().waitFor();
    await main.getByText("spiffe://cluster.local/ns/sandbox/sa/default", { exact: true }).first().waitFor();
    await main.getByText("another workload answers on this address").waitFor();
    await page.goto(`${AGENT}/service-discovery`);
    await page.getByLabel("Why is it not a target?").fill("batch");
    await page.getByRole("button", { name: "Filter" }).click();
    await page.getByRole("link", { name: "batch-28401-done" }).click();
    await page.getByText("dropped here").waitFor();
    await close();
  },

  async "a filter works while it is typed, and neither focus nor text is lost"() {
    const { page, close } = await open(`${AGENT}/targets`);
    const search = page.getByLabel("Search");
    await search.pressSequentially("q8rtz");
    await page.getByText("Showing all 1, chosen from 5,008 targets.").waitFor();
    assert.equal(new URL(page.url()).search, "?search=q8rtz");
    assert.equal(await search.inputValue(), "q8rtz");
    assert.ok(await search.evaluate((input) => input === document.activeElement));
    await page.getByLabel("State").selectOption("up");
    await page.getByText("No target is like that.").waitFor();
    assert.equal(new URL(page.url()).search, "?search=q8rtz&state=up");
    await close();
  },

  async "it stays fresh by itself, and leaves alone what is read"() {
    const { page, close } = await open(AGENT + good);
    const taken = page.locator("dd", { hasText: / good, / });
    const before = await taken.textContent();
    const fold = page.locator("details", { hasText: "One by one" });
    await fold.locator("summary").click();
    await fold.locator("summary").focus();
    await page.mouse.wheel(0, 300);
    await page.waitForFunction(() => scrollY > 0);
    const scrolled = await page.evaluate(() => scrollY);
    await page.waitForFunction((text) => [...document.querySelectorAll("dd")].every((dd) => dd.textContent !== text), before);
    assert.equal(await fold.getAttribute("open"), "", "what was opened stays open");
    assert.ok(await fold.locator("summary").evaluate((one) => one === document.activeElement), "the focus stays");
    assert.equal(await page.evaluate(() => scrollY), scrolled, "the place stays");
    await page.evaluate(() => (document.querySelector("footer .muted").firstChild.nodeValue = "said long ago"));
    await page.waitForFunction(() => !document.querySelector("footer").textContent.includes("said long ago"));

    await page.getByRole("button", { name: "Pause keeping this page fresh" }).click();
    await page.getByRole("button", { name: "Go on keeping this page fresh" }).waitFor();
    await close();
  },

  async "an agent that does not answer is said to, and comes back"() {
    const { page, close } = await open(`${AGENT}/remote-write`, { status: 503, clock: true });
    const complaint = page.getByText("The agent does not answer; this is what it said last.");
    const well = () => page.waitForFunction(() => document.getElementById("connection").textContent === "");
    const NEXT = 5_000;
    // What a port-forward to something else would give, a proxy without the agent behind it, a connection that is cut.
    for (const answer of [
      (route) => route.fulfill({ contentType: "text/html", body: "<p>elsewhere</p>" }),
      (route) => route.fulfill({ status: 503, body: "" }),
    ]) {
      await page.route("**/remote-write", answer);
      await page.clock.runFor(NEXT);
      await complaint.waitFor();
      await page.getByRole("heading", { name: /mimir/ }).waitFor();
      await shoot(page, "away", false);
      await page.unroute("**/remote-write");
      await page.clock.runFor(NEXT);
      await well();
    }
    // One that is stopped: the connection stands, and nothing comes.
    const asked = [];
    let one;
    const ask = () => new Promise((resolve) => (one = resolve));
    await page.route("**/remote-write", (route) => {
      asked.push(route);
      one();
    });
    let held = ask();
    await page.clock.runFor(NEXT);
    await held;
    await page.clock.runFor(14_000);
    assert.equal(asked.length, 1, "no look while one is under way");
    assert.ok(await complaint.isHidden(), "there is hope yet");
    held = ask();
    await page.clock.runFor(2_000);
    await complaint.waitFor();
    await page.clock.runFor(NEXT);
    await held;
    assert.equal(asked.length, 2, "it is asked again");
    // This time it is slow, and its answer counts.
    await page.clock.runFor(2 * NEXT);
    assert.equal(asked.length, 2, "no look while one is under way");
    await asked[1].continue();
    await well();
    await page.unroute("**/remote-write");
    await close();
  },

  async "the keyboard is enough"() {
    const { page, close } = await open(AGENT);
    const focused = () => page.evaluate(() => document.activeElement.textContent.trim());
    await page.keyboard.press("Tab");
    assert.equal(await focused(), "Skip to the content");
    assert.ok(await page.locator(".skip").evaluate((link) => link.getBoundingClientRect().top >= 0), "it is seen once it has the focus");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    assert.ok(await page.evaluate(() => document.querySelector("main").contains(document.activeElement)));
    const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
    assert.equal(outline, "solid", "one sees where one is");
    await page.goto(`${AGENT}/targets`);
    await page.getByLabel("Search").focus();
    await page.keyboard.type("legacy");
    await page.getByText("Showing all 1, chosen").waitFor();
    for (let tabs = 0; tabs < 10 && (await focused()) !== "shop/legacy-0"; tabs++) await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.locator("main").getByText("plaintext_server", { exact: true }).waitFor();
    await close();
  },

  async "a command is copied at a click"() {
    const { page, close } = await open(AGENT + bad, { permissions: ["clipboard-read", "clipboard-write"] });
    const row = page.locator(".copyable", { hasText: "curl" });
    await row.getByRole("button").click();
    await row.getByText("Copied").waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await row.locator("code").textContent());
    await close();
  },

  async "what strangers write stays text"() {
    for (const path of ["/targets?search=onerror", "/remote-write", "/", "/service-discovery?search=<img src=x onerror=alert(1)>"]) {
      const { page, close } = await open(AGENT + path);
      assert.equal(await page.locator("main img").count(), 0, path);
      assert.notEqual(await page.title(), "owned");
      await close();
    }
    // The policy holds, whatever else would go wrong.
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.goto(AGENT);
    const ran = await page.evaluate(() => {
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.head.append(script);
      return window.ran === true;
    });
    assert.ok(!ran, "no script runs but ours");
    await context.close();
  },
};

let failed = 0;
for (const [what, step] of Object.entries(steps)) {
  const began = Date.now();
  try {
    await step();
    console.log(`ok   ${what} (${Date.now() - began} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${what}\n${error.stack}`);
  }
}
await browser.close();
process.exitCode = failed ? 1 : 0;
