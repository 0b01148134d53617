/** Starts `onedelete mock` and speaks to its control API. */

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

export interface Upstream {
  name: string;
  dialect: string;
  base_url: string;
  /** A connection of the gateway that leads to the mock: its credentials are those that the mock takes. */
  connection: { credentials: Record<string, string>; [key: string]: unknown };
}

export interface Entry {
  n: number;
  asked: { id: string }[];
  deleted: { id: string }[];
  fault: string | null;
  answered: number | null;
}

export class Mocks {
  private constructor(
    private readonly process: ChildProcess,
    readonly control: string,
    readonly upstreams: Map<string, Upstream>,
  ) {}

  static async start(...upstreams: string[]): Promise<Mocks> {
    const program = process.env.ONEDELETE ?? "onedelete";
    const child = spawn(program, ["mock", ...upstreams, "--port", "0", "--output", "json"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    // One line, once all of them listen.
    for await (const line of createInterface({ input: child.stdout! })) {
      const ready = JSON.parse(line) as { control: string; upstreams: Upstream[] };
      return new Mocks(child, ready.control, new Map(ready.upstreams.map((each) => [each.name, each])));
    }
    throw new Error("the mocks did not start");
  }

  async stop(): Promise<void> {
    const ended = once(this.process, "exit");
    this.process.kill("SIGTERM");
    await ended;
  }

  async ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    const reply = await fetch(this.control + path, {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const text = await reply.text();
    if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${text}`);
    return (text === "" ? undefined : JSON.parse(text)) as T;
  }

  reset = () => this.ask<void>("POST", "/reset");
  seed = (upstream: string, ids: string[], held = false) =>
    this.ask<void>("PUT", `/upstreams/${upstream}/contacts`, ids.map((id) => ({ id, held })));
  fault = (upstream: string, rule: object) => this.ask<unknown>("POST", `/upstreams/${upstream}/faults`, rule);
  journal = async (upstream: string) =>
    (await this.ask<{ entries: Entry[] }>("GET", `/journal?upstream=${upstream}&kind=delete`)).entries;
}
