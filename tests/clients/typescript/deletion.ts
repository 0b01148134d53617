// A deletion by openapi-fetch with the types that openapi-typescript makes of the gateway's description. The compiler checks
// every name; the gateway, what comes of it.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const CONTACT = "6960cbe9b155d194e2f00003";
const OTHER = "6960cc07b155d194e2f00004";

function variable(name: string): string {
  const value = process.env[name];
  assert.ok(value, name);
  return value;
}

const seeded = await fetch(`${variable("ONEDELETE_CONTROL")}/upstreams/support/contacts`, {
  method: "PUT",
  body: JSON.stringify([{ id: CONTACT }, { id: OTHER }]),
});
assert.ok(seeded.ok);

const gateway = createClient<paths>({
  baseUrl: variable("ONEDELETE_URL"),
  headers: { Authorization: `Bearer ${variable("ONEDELETE_KEY")}` },
});

const { data: connection } = await gateway.GET("/v1/connections/{connection}", {
  params: { path: { connection: "support" } },
});
assert.equal(connection?.dialect, "kore_ai");

const body: components["schemas"]["DeletionRequest"] = {
  connection: "support",
  dry_run: false,
  contacts: [{ id: CONTACT, ref: "row-1" }, "x"],
};
const ask = () => gateway.POST("/v1/deletions", { params: { header: { "Idempotency-Key": "typed" } }, body });
const { data, error, response } = await ask();
assert.equal(response.status, 207, JSON.stringify(error));
assert.ok(data && typeof data === "object" && "results" in data && "id" in data && data.results);
const outcomes: components["schemas"]["Outcome"][] = data.results.map((result) => result.outcome);
assert.deepEqual(outcomes, ["deleted", "rejected"]);
assert.equal(data.results[1]?.error?.code, "invalid_identifier");

const again = await ask();
assert.equal(again.response.headers.get("Idempotency-Replayed"), "true");
assert.deepEqual(again.data, data);

const { data: looked } = await gateway.GET("/v1/deletions/{deletion}", { params: { path: { deletion: data.id } } });
assert.deepEqual(looked, data);

const lines = await gateway.GET("/v1/deletions/{deletion}/results", {
  params: { path: { deletion: data.id }, query: { outcome: ["deleted", "unknown"] } },
  querySerializer: { array: { style: "form", explode: false } },
  parseAs: "text",
});
assert.equal(lines.data?.trim().split("\n").length, 1);

const one = await gateway.DELETE("/v1/connections/{connection}/contacts/{id}", {
  params: { path: { connection: "support", id: OTHER } },
});
assert.ok(one.data && "outcome" in one.data);
assert.equal(one.data.outcome, "deleted");

const unknown = await gateway.POST("/v1/deletions", { body: { ...body, connection: "nobody" } });
assert.equal(unknown.error?.code, "not_found");
console.log("clients: typescript: held");
