import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Mocks } from "./mock.js";
import { type Account, deleteContact } from "./wethod.js";

let mocks: Mocks;
let account: Account;

beforeAll(async () => {
  mocks = await Mocks.start("wethod");
  const { base_url, connection } = mocks.upstreams.get("wethod")!;
  const token = connection.credentials.token.replace(/^plain:/, "");
  account = { baseUrl: base_url, company: connection.company as string, token };
});
afterAll(() => mocks?.stop());
beforeEach(() => mocks.reset());

test("a contact that is there is deleted, once", async () => {
  await mocks.seed("wethod", ["101"]);
  expect(await deleteContact(account, 101)).toBe("deleted");
  expect(await deleteContact(account, 101)).toBe("absent");
  const [first, second] = await mocks.journal("wethod");
  expect(first.deleted).toEqual([{ id: "101" }]);
  expect(second.deleted).toEqual([]);
});

test("the vendor's refusal is no deletion", async () => {
  await mocks.seed("wethod", ["102"], true);
  expect(await deleteContact(account, 102)).toBe("refused");
});

test("a wrong token is no deletion", async () => {
  await mocks.seed("wethod", ["103"]);
  expect(await deleteContact({ ...account, token: "wrong" }, 103)).toBe("refused");
});

test("a lost answer is unknown, though the contact is gone", async () => {
  await mocks.seed("wethod", ["104"]);
  await mocks.fault("wethod", { fault: "commit_then_drop", times: 1 });
  expect(await deleteContact(account, 104)).toBe("unknown");
  expect(await deleteContact(account, 104)).toBe("absent");
});

test("a page of a proxy is unknown, and another contact is not touched by the rule", async () => {
  await mocks.seed("wethod", ["105", "106"]);
  await mocks.fault("wethod", { fault: "html", status: 502, when: { contact: { id: "105" } } });
  expect(await deleteContact(account, 105)).toBe("unknown");
  expect(await deleteContact(account, 106)).toBe("deleted");
});
