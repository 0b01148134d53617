//! The laws: what the gateway said, compared with what the mocks' journals say.
//!
//! They are checked when everything acknowledged is finished and the gateway has ended, so nothing moves any more.

use std::collections::HashSet;
use std::fmt;

use serde_json::Value;

use crate::Wrong;
use crate::gateway::MAX_ATTEMPTS;
use crate::orders::{Item, Order};
use crate::told::Told;
use crate::world::{Contact, World, text};

/// How much was compared.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) deletions: usize,
    pub(crate) contacts: usize,
    pub(crate) deleted: usize,
    pub(crate) unknown: usize,
    pub(crate) repeated: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deletions, contacts, deleted, unknown, repeated } = self;
        write!(f, "{deletions} deletions, {contacts} contacts ({deleted} deleted, {unknown} unknown, ")?;
        write!(f, "{repeated} sent more than once), 0 false")
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.deletions += other.deletions;
        self.contacts += other.contacts;
        self.deleted += other.deleted;
        self.unknown += other.unknown;
        self.repeated += other.repeated;
    }
}

/// Compares everything that was told.
pub(crate) fn judge(world: &World, told: &Told) -> Result<Tally, Wrong> {
    world.read()?;
    let mut court = Court { world, deleted: world.deleted(), tally: Tally::default(), wrong: told.wrong() };
    told.each(|memo| match &memo.finished {
        Some(finished) => court.order(&memo.order, finished, memo.cancelled),
        None if memo.id.is_some() => court.wrong.push(format!("{:?} was acknowledged and is not finished", memo.id)),
        None => court.unanswered(&memo.order),
    });
    if court.wrong.is_empty() { Ok(court.tally) } else { Err(few(&court.wrong)) }
}

/// The first few of many lines.
pub(crate) fn few(lines: &[Wrong]) -> Wrong {
    let more = lines.len().saturating_sub(8);
    let mut text = lines[..lines.len() - more].join("\n");
    if more > 0 {
        text += &format!("\n… and {more} more");
    }
    text
}

/// Whether the last attempt ended with nothing that could be believed.
fn is_open(result: &Value) -> bool {
    let code = result["error"]["code"].as_str().unwrap_or_default();
    code.starts_with("response_") || ["connection_lost", "upstream_error"].contains(&code)
}

struct Court<'w> {
    world: &'w World,
    deleted: Vec<HashSet<String>>,
    tally: Tally,
    wrong: Vec<Wrong>,
}

impl Court<'_> {
    fn order(&mut self, order: &Order, finished: &Value, cancelled: bool) {
        let id = finished["id"].as_str().unwrap_or_default();
        let results = finished["results"].as_array().map_or(&[][..], Vec::as_slice);
        self.tally.deletions += 1;
        self.tally.contacts += results.len();
        if results.len() != order.items.len() {
            let (asked, told) = (order.items.len(), results.len());
            return self.wrong.push(format!("{id}: {asked} contacts were asked for, and {told} have a result"));
        }
        for outcome in ["deleted", "not_found", "rejected", "failed", "unknown", "skipped", "pending", "would_delete"] {
            let counted = results.iter().filter(|result| result["outcome"] == outcome).count();
            if finished["counts"][outcome] != counted {
                self.wrong.push(format!("{id}: {counted} are {outcome}, and the count is {}", finished["counts"]));
            }
        }
        for (n, (item, result)) in order.items.iter().zip(results).enumerate() {
            let lie = match item {
                _ if result["index"] != n => Some("stands at another place"),
                _ if result["ref"] != format!("row-{n}") => Some("has another's ref"),
                Item::Fresh(contact) => self.contact(contact, result, cancelled),
                Item::Twin(first) => {
                    let stands_for = result["outcome"] == "skipped" && result["duplicate_of"] == *first;
                    let as_first = result["absent"] == results[*first]["absent"];
                    (!stands_for || !as_first).then_some("is a duplicate, and does not say so")
                }
                Item::Hostile => {
                    let refused = result["outcome"] == "rejected" && result["attempts"] == 0;
                    (!refused || !result["absent"].is_null()).then_some("cannot be sent, and was not refused")
                }
            };
            if let Some(lie) = lie {
                self.wrong.push(format!("{id}: contact {n} {lie}: {result}; {}", self.evidence(item)));
            }
        }
    }

    /// What is false about a result, in words.
    fn contact(&mut self, contact: &Contact, result: &Value, cancelled: bool) -> Option<&'static str> {
        let calls = self.world.calls(contact);
        let holds = self.world.holds(contact);
        let deleted = self.deleted[contact.link].contains(text(&contact.identifier));
        let attempts = result["attempts"].as_u64().unwrap_or(0);
        let (outcome, absent) = (result["outcome"].as_str().unwrap_or_default(), &result["absent"]);
        self.tally.deleted += usize::from(outcome == "deleted");
        self.tally.unknown += usize::from(outcome == "unknown");
        self.tally.repeated += usize::from(calls > 1);
        if result["connection"] != self.world.links[contact.link].name {
            return Some("belongs to another connection");
        }
        // What may have been carried out.
        if calls > 1 && !contact.replay_safe {
            return Some("may not be repeated, and was sent more than once");
        }
        if calls as u64 > attempts {
            return Some("was sent more often than it says");
        }
        // What is said about it.
        match outcome {
            "deleted" if !deleted => Some("was never deleted by a call"),
            "deleted" | "not_found" if *absent != true => Some("is absent, and does not say so"),
            "deleted" | "not_found" if holds => Some("is still there"),
            // A copy that somebody else made of a call is none that the gateway knows of.
            "not_found" if deleted && !self.world.copied(contact) && result["evidence"] != "inferred" => {
                Some("was deleted by a call of ours")
            }
            // Nor does a refusal of a call say what became of a copy before it; but then it says nothing of presence.
            "rejected" | "failed" if deleted && !(self.world.copied(contact) && absent.is_null()) => {
                Some("was deleted by a call")
            }
            "skipped" if calls > 0 || attempts > 0 => Some("was sent"),
            "skipped" if !cancelled && result["error"]["code"] == "cancelled" => Some("was cancelled by nobody"),
            // Where a repeat is safe, only a refusal, a lack of attempts or a cancel may leave it open.
            "unknown" if contact.replay_safe && !cancelled && is_open(result) && attempts < MAX_ATTEMPTS => {
                Some("was given up too soon")
            }
            "unknown" if attempts == 0 => Some("was never sent, and so is known to be where it was"),
            "deleted" | "not_found" => None,
            "rejected" | "failed" | "skipped" | "unknown" if *absent == true => Some("is not known to be absent"),
            "rejected" | "failed" if *absent == false && !holds => Some("is not there"),
            "rejected" | "failed" | "skipped" | "unknown" => None,
            _ => Some("has no outcome"),
        }
    }

    /// Nobody was told its id; what must not be sent twice is not sent twice all the same.
    fn unanswered(&mut self, order: &Order) {
        for item in &order.items {
            let Item::Fresh(contact) = item else { continue };
            if !contact.replay_safe && self.world.calls(contact) > 1 {
                let n = order.n;
                self.wrong.push(format!("order {n}: may not be repeated, and was sent twice; {}", self.evidence(item)));
            }
        }
    }

    fn evidence(&self, item: &Item) -> String {
        let Item::Fresh(contact) = item else { return "never to be sent".to_owned() };
        let (calls, holds) = (self.world.calls(contact), self.world.holds(contact));
        let deleted = self.deleted[contact.link].contains(text(&contact.identifier));
        format!("the journal: calls {calls}, deleted {deleted}; the upstream has it: {holds}")
    }
}
