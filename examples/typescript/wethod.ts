/** What is tested: somebody's client of Wethod's API, which deletes one contact. */

export type Outcome = "deleted" | "absent" | "refused" | "unknown";

export interface Account {
  baseUrl: string;
  company: string;
  token: string;
}

export async function deleteContact(account: Account, id: number): Promise<Outcome> {
  let reply: Response;
  try {
    reply = await fetch(`${account.baseUrl}/api/contact/${id}`, {
      method: "DELETE",
      headers: {
        authorization: `Bearer ${account.token}`,
        "wethod-company": account.company,
        "wethod-version": "2024-06-15",
      },
      redirect: "error",
    });
  } catch {
    // The connection broke: the contact may be gone, or not.
    return "unknown";
  }
  if (reply.status === 200) return "deleted";
  const error = (await reply.json().catch(() => ({}))) as { key?: string };
  if (reply.status === 404 && error.key === "not_found") return "absent";
  return reply.status >= 500 ? "unknown" : "refused";
}
