//! What the mocks' journals say of each contact that is not judged yet, and the laws that results are held to.
//!
//! It forgets what was judged, so that a million contacts take no more room than those that are under way. The laws are those of
//! `tests/crash/laws.rs`, but for what is said there of restarts; a vendor that lies is believed.

use std::collections::HashMap;

use adapters::{DIALECTS, Identifier, Registration};
use fastrand::Rng;
use onedelete::mock::{Fault, Mock, Mocks, Named, Scenario, Step};
use serde_json::{Value, json};

use std::net::SocketAddr;
use std::time::Duration;

/// What an upstream knows of a contact when it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seeded {
    There,
    /// There, and the upstream refuses to delete it.
    Held,
    Missing,
}

/// One connection, and what was read of its mock's journal.
struct Link {
    name: &'static str,
    registration: &'static Registration,
    /// The last entry of the journal that was read, and those that were held then.
    upto: usize,
    held: Vec<usize>,
    made: usize,
    open: HashMap<String, Calls>,
}

/// What became of one contact, as its upstream has it.
#[derive(Debug, Default, Clone, Copy)]
struct Calls {
    /// Deletes that named it and were not turned away at the door.
    asked: u64,
    deleted: bool,
    /// The upstream said that it is gone, and kept it.
    lied: bool,
}

/// One contact of a request.
pub(crate) struct Contact {
    link: usize,
    identifier: Identifier,
    replay_safe: bool,
}

/// All upstreams.
pub(crate) struct World {
    mocks: Mocks,
    links: Vec<Link>,
    rng: Rng,
    /// Deletes so far, and those of them that met with a fault.
    pub(crate) deletes: usize,
    pub(crate) faults: usize,
}

/// Faults that are laid out for each upstream at every reading: more than one can meet with until the next.
const AHEAD: usize = 500;

/// How much was judged.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) contacts: usize,
    pub(crate) deleted: usize,
    pub(crate) unknown: usize,
    pub(crate) repeated: usize,
}

impl World {
    /// A mock for each dialect, with about one fault in ten deletes.
    pub(crate) async fn start(rng: Rng) -> Self {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let listens: Vec<_> = DIALECTS.iter().map(|one| (Named::of(one), local)).collect();
        let mocks = Mocks::start(listens, None).await.unwrap();
        let link = |registration: &'static Registration| Link {
            name: registration.profile.id,
            registration,
            upto: 0,
            held: Vec::new(),
            made: 0,
            open: HashMap::new(),
        };
        let mut world = Self { mocks, links: DIALECTS.iter().map(link).collect(), rng, deletes: 0, faults: 0 };
        world.trouble();
        world
    }

    /// Lays out what happens to the next deletes. The times between two faults have no memory, so it may be done at any moment.
    fn trouble(&mut self) {
        let mut steps = Vec::with_capacity(2 * AHEAD * self.links.len());
        for link in &self.links {
            let mut step = |fault, times| steps.push(Step { upstream: link.name.to_owned(), fault, times });
            for _ in 0..AHEAD {
                let spared = (-(1.0 - self.rng.f64()).ln() * 9.0) as u64;
                if spared > 0 {
                    step(Fault::Plain, spared);
                }
                step(some_fault(&mut self.rng), 1);
            }
        }
        self.mocks.play(Scenario { steps }).unwrap();
    }

    /// The connections that lead here, as a tenant's file has them.
    pub(crate) fn connections(&self) -> Vec<(&str, toml::Table)> {
        self.mocks.iter().map(|(name, mock)| (name, mock.connection_toml())).collect()
    }

    /// A request's contacts that nobody asked for before, and its body: mostly of the dialects that take many in a call.
    pub(crate) fn order(&mut self, size: usize) -> (Vec<Contact>, String) {
        let mut contacts = Vec::with_capacity(size);
        let mut written = Vec::with_capacity(size);
        for n in 0..size {
            let bulk = self.rng.u32(..1_000) >= 4;
            let links: Vec<usize> = (0..self.links.len())
                .filter(|n| (self.links[*n].registration.profile.max_contacts_per_call > 1) == bulk)
                .collect();
            let link = links[self.rng.usize(..links.len())];
            let contact = self.contact(link);
            let mut json = match &contact.identifier {
                Identifier::Id(id) => json!({ "id": id.to_string() }),
                Identifier::Phone(phone) => json!({ "phone": phone.to_string() }),
                Identifier::External { provider, id } => {
                    json!({ "external": { "provider": provider.to_string(), "id": id.to_string() } })
                }
            };
            json["connection"] = self.links[link].name.into();
            json["ref"] = format!("row-{n}").into();
            written.push(json);
            contacts.push(contact);
        }
        (contacts, json!({ "contacts": written }).to_string())
    }

    fn contact(&mut self, link: usize) -> Contact {
        let kind = self.rng.u8(..100);
        let seeded = match self.rng.u8(..20) {
            0 => Seeded::Held,
            1..3 => Seeded::Missing,
            _ => Seeded::There,
        };
        let Link { name, registration, made, open, .. } = &mut self.links[link];
        let mock = self.mocks.find(name).unwrap();
        *made += 1;
        let n = *made;
        let ids = [
            Identifier::Id(format!("{}", 7_000_000 + n).into()),
            Identifier::Id(format!("{n:024x}").into()),
            Identifier::Id(format!("91c615e3-1040-4815-8ecb-{n:012x}").into()),
        ];
        let others = [
            Identifier::Phone(format!("+1415{n:09}").into()),
            Identifier::External { provider: "salesforce".into(), id: format!("ext-{n:09}").into() },
        ];
        let admitted = |each: &&Identifier| registration.profile.admit(each).is_ok();
        // Now and then another kind, where the dialect has one.
        let other = others.get(usize::from(kind)).filter(admitted);
        let identifier = other.or_else(|| ids.iter().find(admitted)).unwrap().clone();
        match seeded {
            Seeded::There => mock.seed(&identifier, false),
            Seeded::Held => mock.seed(&identifier, true),
            Seeded::Missing => {}
        }
        open.insert(text(&identifier).to_owned(), Calls::default());
        // Not what the dialect says of itself: a number or an external id may name another contact by then.
        let replay_safe = matches!(identifier, Identifier::Id(_));
        Contact { link, identifier, replay_safe }
    }

    /// Lets go what is held, and reads what is new in the journals. To be called before they forget it.
    pub(crate) fn read(&mut self) -> Result<(), String> {
        for link in &mut self.links {
            let mock = self.mocks.find(link.name).unwrap();
            mock.release(usize::MAX);
            let held: Vec<_> = std::mem::take(&mut link.held);
            for entry in held.iter().flat_map(|n| mock.journal_after(n - 1, 1)) {
                link.deleted(&entry.deleted);
            }
            let entries = mock.journal_after(link.upto, usize::MAX);
            if entries.first().is_some_and(|first| first.n > link.upto + 1) {
                return Err(format!("the journal of {} has dropped entries that were not read", link.name));
            }
            for entry in &entries {
                link.upto = entry.n;
                self.deletes += usize::from(!entry.asked.is_empty());
                self.faults += usize::from(entry.fault.is_some() && entry.fault_applied);
                if entry.fault == Some("hold") {
                    link.held.push(entry.n);
                }
                // 401 and 429 say that nothing was looked at.
                let turned_away = entry.sign_in || matches!(entry.status, Some(401 | 429));
                for identifier in entry.asked.iter().filter(|_| !turned_away) {
                    if let Some(calls) = link.open.get_mut(text(identifier)) {
                        calls.asked += 1;
                        calls.lied |= entry.fault == Some("lie") && entry.fault_applied;
                    }
                }
                link.deleted(&entry.deleted);
            }
        }
        self.trouble();
        Ok(())
    }

    /// Compares a finished deletion with the journals, and forgets its contacts. What is false, in words.
    pub(crate) fn judge(&mut self, contacts: &[Contact], finished: &Value, tally: &mut Tally) -> Vec<String> {
        let id = finished["id"].as_str().unwrap_or_default();
        let results = finished["results"].as_array().map_or(&[][..], Vec::as_slice);
        if results.len() != contacts.len() || finished["counts"]["requested"] != contacts.len() {
            return vec![format!(
                "{id}: {} contacts were asked for, and {} have a result",
                contacts.len(),
                results.len()
            )];
        }
        let mut wrong = Vec::new();
        for (n, (contact, result)) in contacts.iter().zip(results).enumerate() {
            let link = &mut self.links[contact.link];
            let calls = link.open.remove(text(&contact.identifier)).unwrap_or_default();
            let mock: &Mock = self.mocks.find(link.name).unwrap();
            let holds = mock.holds(&contact.identifier);
            let misplaced =
                result["index"] != n || result["ref"] != format!("row-{n}") || result["connection"] != link.name;
            let lie = if misplaced { Some("is another's") } else { falsehood(contact, calls, holds, result) };
            if let Some(lie) = lie {
                wrong.push(format!("{id}: contact {n} {lie}: {result}; the journal: {calls:?}; it is there: {holds}"));
            }
            // So that the mock does not keep what nobody will ask for.
            mock.forget(&contact.identifier);
            tally.contacts += 1;
            tally.deleted += usize::from(result["outcome"] == "deleted");
            tally.unknown += usize::from(result["outcome"] == "unknown");
            tally.repeated += usize::from(calls.asked > 1);
        }
        wrong
    }
}

impl Link {
    fn deleted(&mut self, contacts: &[Identifier]) {
        for identifier in contacts {
            if let Some(calls) = self.open.get_mut(text(identifier)) {
                calls.deleted = true;
            }
        }
    }
}

/// What is false about a result, in words.
fn falsehood(contact: &Contact, calls: Calls, holds: bool, result: &Value) -> Option<&'static str> {
    let (outcome, absent) = (result["outcome"].as_str().unwrap_or_default(), &result["absent"]);
    let attempts = result["attempts"].as_u64().unwrap_or(0);
    if calls.asked > 1 && !contact.replay_safe {
        return Some("may not be repeated, and was sent more than once");
    }
    if calls.asked > attempts {
        return Some("was sent more often than it says");
    }
    match outcome {
        "deleted" if !calls.deleted && !calls.lied => Some("was never deleted by a call"),
        "deleted" | "not_found" if *absent != true => Some("is absent, and does not say so"),
        "deleted" | "not_found" if holds && !calls.lied => Some("is still there"),
        "not_found" if calls.deleted && result["evidence"] != "inferred" => Some("was deleted by a call of ours"),
        "rejected" | "failed" if calls.deleted => Some("was deleted by a call"),
        "skipped" if calls.asked > 0 || attempts > 0 => Some("was sent"),
        "unknown" if attempts == 0 => Some("was never sent, and so is known to be where it was"),
        "deleted" | "not_found" => None,
        "rejected" | "failed" | "skipped" | "unknown" if *absent == true => Some("is not known to be absent"),
        "rejected" | "failed" if *absent == false && !holds => Some("is not there"),
        "rejected" | "failed" | "skipped" | "unknown" => None,
        _ => Some("has no outcome"),
    }
}

/// Every kind of fault but `partial`, which needs a contact's name: some contacts are held from the start instead. Those that
/// hold up a connection are rarer, and say for how long: where a vendor's own refusal does not, its dialect leaves the whole
/// connection alone for the vendor's window, a minute, and then there would be more waiting than work.
fn some_fault(rng: &mut Rng) -> Fault {
    match rng.u8(..64) {
        0..3 => Fault::CommitThenDrop,
        3..6 => Fault::DropBeforeCommit,
        6..9 => Fault::Reset { commit: true },
        9..12 => Fault::Reset { commit: false },
        12..15 => Fault::CutBody,
        15..18 => Fault::Html(502),
        18..21 => Fault::Empty(500),
        21..24 => Fault::Status(500),
        24..27 => Fault::SlowDrip(Duration::from_millis(1)),
        27..30 => Fault::WrongIds,
        30..33 => Fault::MissingIds,
        33..36 => Fault::Contradict,
        36..39 => Fault::Accept202,
        39..42 => Fault::Redirect(302, "http://127.0.0.1:9/elsewhere".to_owned()),
        42..45 => {
            let body = r#"{"error":"busy"}"#.to_owned();
            Fault::Reply { status: 409, headers: http::HeaderMap::new(), body }
        }
        45..48 => Fault::Raw(bytes::Bytes::from_static(b"SMTP 220 ready\r\n\r\n")),
        48..51 => Fault::Lie,
        51..60 => Fault::Delay(Duration::from_millis(50)),
        60 => Fault::Stall,
        61 => Fault::Hold,
        62 => {
            let headers = http::HeaderMap::from_iter([(http::header::RETRY_AFTER, 1.into())]);
            Fault::Reply { status: 429, headers, body: String::new() }
        }
        _ => Fault::Busy(1),
    }
}

/// The part of an identifier by which it is found again.
fn text(identifier: &Identifier) -> &str {
    match identifier {
        Identifier::External { id, .. } => id,
        other => other.text(),
    }
}
