// A gateway over mock upstreams, with something to see: deletions that ended in every way, and one that runs.
// It tests nothing itself.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const PROGRAM = process.env.ONEDELETE;
export const TOKEN = "a-token-for-the-console-0123456789abcdef";

const started = [];
const folder = mkdtempSync(join(tmpdir(), "onedelete-console-"));

// A line of the program's that says something, as JSON.
async function said(pipe, wanted) {
  const lines = createInterface({ input: pipe });
  try {
    for await (const line of lines) {
      const entry = JSON.parse(line);
      if (wanted(entry)) return entry;
    }
  } finally {
    lines.close();
    pipe.resume();
  }
  throw new Error("the program ended too soon");
}

function begin(args, env = {}) {
  const child = spawn(PROGRAM, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  started.push(child);
  return child;
}

async function ask(method, url, body, headers = {}) {
  const reply = await fetch(url, {
    method,
    headers: { "content-type": "application/json", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await reply.text();
  if (reply.status >= 300) throw new Error(`${method} ${url}: ${reply.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

export async function serve(tokenNeeded) {
  const home = join(folder, tokenNeeded ? "guarded" : "open");
  mkdirSync(join(home, "tenants"), { recursive: true });
  const tenantFile = join(home, "tenants", "mock.toml");
  const upstreams = ["support=kore_ai", "sales=wethod", "lists=talkdesk", "portal=onlyoffice", "door=bas_ip"];
  const mock = begin(["mock", ...upstreams, "--port", "0", "--output", "json", "--tenant-file", tenantFile]);
  const ready = await said(mock.stdout, () => true);
  mock.stderr.resume();
  writeFileSync(
    join(home, "onedelete.toml"),
    `
    server = { listen = "127.0.0.1:0", admin_listen = "127.0.0.1:0"${tokenNeeded ? ', admin_token = "env:CONSOLE_TOKEN"' : ""} }
    store = { url = "memory:" }
    tenants = { directory = "tenants" }
    log = { format = "json" }
    [upstream]
    breaker_failures = 4
    breaker_open_ms = 3600000
    limits = { rate = "20/s" }
    retry = { max_attempts = 2, base_ms = 1, cap_ms = 20 }
    `,
  );
  const program = begin(["serve", "--config", join(home, "onedelete.toml")], { CONSOLE_TOKEN: TOKEN });
  program.stdout.resume();
  const entry = await said(program.stderr, (entry) => entry.message === "listening");
  const key = { authorization: `Bearer ${ready.key}` };
  return {
    admin: `http://${entry.admin}`,
    control: (method, path, body) => ask(method, ready.control + path, body),
    remove: (connection, contacts, { prefer = "wait=20", ...more } = {}) =>
      ask("POST", `http://${entry.public}/v1/deletions`, { connection, contacts, ...more }, { ...key, prefer }),
    look: (id) => ask("GET", `http://${entry.public}/v1/deletions/${id}`, undefined, key),
  };
}

export function end() {
  started.forEach((child) => child.kill());
  rmSync(folder, { recursive: true, force: true });
}
