// Looks at every page of the console: what it says, what it loads, how it fits, whether a keyboard and axe-core get along
// with it, and whether its forms do what they say. Ends with 1 at a failure.
import assert from "node:assert/strict";
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { TOKEN, end, serve } from "./gateway.mjs";

const AXE = readFileSync("node_modules/axe-core/axe.min.js", "utf8");
const LARGEST_SHOT = 150_000;
// Which pages are shown in docs/, and how much of them, in pixels.
const SHOTS = {
  "overview, light, 1280": { name: "overview", height: 1_250 },
  "mixed, dark, 1280": { name: "deletion", height: 1_120 },
  "running, light, 360": { name: "phone", height: 1_300 },
};
const seen = { pages: 0, requests: 0, focused: 0 };

const range = (first, count, form) => Array.from({ length: count }, (_, n) => form(first + n));
const kore = (n) => n.toString(16).padStart(24, "0");
const whole = (n) => String(1_000 + n);

// Deletions that end in every way.
async function fill(gateway) {
  const seed = (name, ids) => gateway.control("PUT", `/upstreams/${name}/contacts`, ids.map((id) => ({ id })));
  const fault = (name, rule) => gateway.control("POST", `/upstreams/${name}/faults`, rule);
  await seed("support", range(1, 40, kore));
  await seed("sales", range(1, 40, whole));
  await fault("sales", { fault: "empty", status: 403, when: { every: 9 }, times: 4 });
  await fault("sales", { fault: "cut_body", when: { every: 7 }, times: 4 });
  await fault("lists", { fault: "html", status: 502 });
  await seed("portal", range(1, 9_000, whole).filter((_, n) => n % 3));
  await gateway.remove("support", range(1, 45, kore), { reason: "gdpr_erasure", reference: "DSR-1042" });
  const contacts = [...range(1, 36, whole), whole(1), "no number", ...range(5_000, 3, whole)];
  const mixed = await gateway.remove("sales", contacts, { reason: "<script>alert(1)</script>", reference: "DSR-1043" });
  for (let n = 0; n < 4; n += 1) await gateway.remove("lists", [{ phone: `+1415555010${n}` }]);
  // At its pace, it runs longer than anybody looks at it.
  const running = await gateway.remove("portal", range(1, 9_000, whole), { prefer: "respond-async", reference: "DSR-1044" });
  return { mixed: mixed.id, running: running.id };
}

// A page whose mistakes are noticed: errors in its console, and anything that is not loopback.
async function open(browser, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => {
    seen.requests += 1;
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.hostname !== "127.0.0.1") wrong.push(`asked for ${url}`);
  });
  page.unharmed = () => assert.deepEqual(wrong, [], page.url());
  return page;
}

async function fits(page, what) {
  const found = await page.evaluate(() => ({
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    headings: document.querySelectorAll("h1").length,
    unnamed: [...document.querySelectorAll("table")].filter((table) => !table.caption?.textContent).length,
    unscoped: [...document.querySelectorAll("th")].filter((cell) => !cell.scope).length,
  }));
  assert.deepEqual(found, { wide: 0, headings: 1, unnamed: 0, unscoped: 0 }, what);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run());
  const told = violations.map((each) => `${each.id}: ${each.help}: ${each.nodes.map((node) => node.html).join(" | ").slice(0, 400)}`);
  assert.deepEqual(told, [], what);
  seen.pages += 1;
}

// Every control is reached by Tab, in turn, and shows it.
async function byKeyboard(page, what) {
  await page.evaluate(() => document.activeElement?.blur());
  const pause = page.getByRole("button", { name: "Pause updates" });
  if (await pause.count()) await pause.click();
  await page.evaluate(() => { document.activeElement?.blur(); window.getSelection()?.removeAllRanges(); window.scrollTo(0, 0); });
  await page.reload();
  if (await pause.count()) await pause.waitFor();
  const wanted = await page.evaluate(() => {
    const all = document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary");
    return [...all].filter((each) => each.checkVisibility()).length;
  });
  const names = new Set();
  for (let n = 0; n < wanted; n += 1) {
    await page.keyboard.press("Tab");
    const here = await page.evaluate(() => {
      const each = document.activeElement;
      const box = each.getBoundingClientRect();
      return {
        name: `${each.tagName} ${each.id || each.getAttribute("href") || each.textContent} ${Math.round(box.top + scrollY)},${Math.round(box.left)}`,
        outline: getComputedStyle(each).outlineStyle,
        inside: box.right > 0 && box.bottom > 0 && box.width > 0,
      };
    });
    assert.notEqual(here.outline, "none", `${what}: ${here.name} does not show its focus`);
    assert.ok(here.inside, `${what}: ${here.name} has the focus and is not to be seen`);
    names.add(here.name);
  }
  assert.equal(names.size, wanted, `${what}: ${[...names].join("; ")}`);
  seen.focused += wanted;
}

async function shoot(page, name, options) {
  const path = join(process.env.SHOTS, `console-${name}.png`);
  await page.evaluate(() => { document.activeElement?.blur(); window.scrollTo(0, 0); });
  await page.screenshot({ path, animations: "disabled", ...options });
  assert.ok(statSync(path).size <= LARGEST_SHOT, `${path} has ${statSync(path).size} bytes`);
}

async function lookAround(browser, gateway, { mixed, running }) {
  const pages = {
    overview: ["/console", ["The last hour", "Connections in trouble", "support", "sales", "not used yet"]],
    trouble: ["/console?show=trouble", ["lists", "breaker open"]],
    deletions: ["/console/deletions", [running, "running"]],
    mixed: [`/console/deletions/${mixed}`, ["finished", "not_found", "upstream_forbidden", "duplicate", "<script>alert(1)</script>"]],
    running: [`/console/deletions/${running}`, ["Timeline", "Cancel this deletion", "DSR-1044"]],
    tenant: ["/console/tenants/mock", ["Keys", "UTC", "Deletions"]],
  };
  const grounds = new Set();
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [360, 1280]) {
      const page = await open(browser, { colorScheme, viewport: { width, height: 900 } });
      for (const [name, [path, texts]] of Object.entries(pages)) {
        const what = `${name}, ${colorScheme}, ${width}`;
        await page.goto(gateway.admin + path);
        const text = await page.evaluate(() => document.body.innerText);
        for (const wanted of texts) assert.ok(text.includes(wanted), `${what}: no ${wanted} in:\n${text}`);
        grounds.add(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
        if (name === "overview") await page.getByText("The same as a table").click();
        await fits(page, what);
        if (name === "overview") await page.getByText("The same as a table").click();
        const shot = SHOTS[what];
        if (shot) await shoot(page, shot.name, { fullPage: true, clip: { x: 0, y: 0, width, height: shot.height } });
        if (colorScheme === "light") await byKeyboard(page, what);
      }
      page.unharmed();
      await page.context().close();
    }
  }
  assert.equal(grounds.size, 2, `dark and light are ${[...grounds]}`);
}

async function skipAndMotion(browser, gateway) {
  const page = await open(browser, { reducedMotion: "reduce" });
  await page.goto(`${gateway.admin}/console`);
  assert.equal(await page.evaluate(() => getComputedStyle(document.documentElement).scrollBehavior), "auto");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "To the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  page.unharmed();
  await page.context().close();
}

// Progress comes by itself, stops when it is told to, and the deletion when its form is sent.
async function watchAndCancel(browser, gateway, { running }) {
  const page = await open(browser, {});
  await page.goto(`${gateway.admin}/console/deletions/${running}`);
  const settled = () => page.evaluate(() => document.querySelector("#state progress").value);
  const first = await settled();
  await page.waitForFunction((before) => document.querySelector("#state progress").value > before, first);
  await page.getByRole("button", { name: "Pause updates" }).click();
  let asked = 0;
  page.on("request", () => { asked += 1; });
  await new Promise((resolve) => setTimeout(resolve, 5_000));
  assert.equal(asked, 0, "a page that is paused asks for nothing");
  await page.getByRole("button", { name: "Go on with updates" }).press("Enter");
  await page.getByText("Cancel this deletion").press("Enter");
  // Without the word that it is meant, nothing is sent.
  await page.getByRole("button", { name: "Cancel the deletion" }).click();
  assert.equal((await gateway.look(running)).cancelled_at, undefined);
  await page.getByLabel("Nothing more shall be sent").check();
  await page.getByRole("button", { name: "Cancel the deletion" }).click();
  await page.getByText("It is over.").or(page.getByText("finished, cancelled").first()).first().waitFor();
  await page.locator("#state").getByText("finished, cancelled").waitFor();
  const told = await gateway.look(running);
  assert.ok(told.cancelled_at && told.counts.skipped > 0, JSON.stringify(told.counts));
  assert.match(await page.locator("#said").textContent(), /finished, cancelled, 100 % settled/);
  page.unharmed();
  await page.context().close();
}

async function withoutScripts(browser, gateway, { mixed }) {
  const page = await open(browser, { javaScriptEnabled: false });
  await page.goto(`${gateway.admin}/console/deletions`);
  await page.getByLabel("A deletion's name").fill(mixed);
  await page.getByRole("button", { name: "Show it" }).click();
  await page.getByText("Outcomes, reasons and next steps").waitFor();
  await page.goto(`${gateway.admin}/console`);
  await page.getByLabel("Tenant, connection or dialect").fill("talkdesk");
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByText("Connections, 1 to 1 of 1").waitFor();
  page.unharmed();
  await page.context().close();
}

async function signIn(browser, gateway) {
  for (const [colorScheme, width] of [["light", 360], ["dark", 1280]]) {
    const page = await open(browser, { colorScheme, viewport: { width, height: 900 } });
    await page.goto(`${gateway.admin}/console`);
    await fits(page, `sign-in, ${colorScheme}`);
    await page.getByLabel("Token").fill(TOKEN);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    const [cookie] = await page.context().cookies();
    assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.path], [true, "Strict", "/console"]);
    assert.ok(!cookie.value.includes(TOKEN));
    await fits(page, `signed in, ${colorScheme}`);
    page.unharmed();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    assert.deepEqual(await page.context().cookies(), []);
    await page.getByLabel("Token").fill("something else that is long enough to be one");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByText("This is not the token.").waitFor();
    await fits(page, `refused, ${colorScheme}`);
    await page.context().close();
  }
}

const root = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
let browser;
try {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [...root, "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"],
  });
  const gateway = await serve(false);
  const made = await fill(gateway);
  await lookAround(browser, gateway, made);
  await skipAndMotion(browser, gateway);
  await withoutScripts(browser, gateway, made);
  await watchAndCancel(browser, gateway, made);
  await signIn(browser, await serve(true));
  console.log(`console: ${seen.pages} pages fit and axe-core finds nothing; ${seen.focused} controls by keyboard; ${seen.requests} requests, all to loopback`);
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser?.close();
  end();
}
