//! The upstreams: mocks in this process, one for each connection, and what their journals say of a contact.
//!
//! They outlive every gateway, so their journals are the one account of what was asked for and done.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use adapters::{DIALECTS, Identifier, Registration};
use fastrand::Rng;
use onedelete::mock::{Fault, Mock};
use tokio::sync::watch;

/// All upstreams of the one tenant.
pub(crate) struct World {
    pub(crate) links: Vec<Link>,
}

/// One connection and its mock.
pub(crate) struct Link {
    pub(crate) name: &'static str,
    pub(crate) registration: &'static Registration,
    pub(crate) mock: Mock,
    book: Mutex<Book>,
}

/// What was read of a journal so far.
#[derive(Default)]
struct Book {
    /// The texts of all contacts made for this connection.
    known: HashSet<String>,
    /// The last entry that was read.
    upto: usize,
    /// For each contact, the delete calls that named it and were not turned away at the door.
    calls: HashMap<String, usize>,
    /// The contacts that copies of calls deleted.
    copied: HashSet<String>,
    made: usize,
}

/// What the upstream knows of a contact when a deletion asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seeded {
    There,
    /// There, and the upstream refuses to delete it.
    Held,
    Missing,
}

/// One contact, made for one deletion.
#[derive(Debug)]
pub(crate) struct Contact {
    pub(crate) link: usize,
    pub(crate) identifier: Identifier,
    pub(crate) replay_safe: bool,
}

/// The kinds of identifiers of this test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Id,
    Phone,
    External,
}

pub(crate) const CRM: usize = 0;
pub(crate) const SALES: usize = 1;
pub(crate) const LISTS: usize = 2;
pub(crate) const BATCH: usize = 3;
pub(crate) const PORTAL: usize = 4;
pub(crate) const DOOR: usize = 5;

/// The connections and their dialects. Those that run in real time do without the last two.
pub(crate) const LINKS: [(&str, &str); 6] = [
    ("crm", "kore_ai"),
    ("sales", "wethod"),
    ("lists", "talkdesk"),
    ("batch", "talkdesk"),
    ("portal", "onlyoffice"),
    ("door", "bas_ip"),
];

/// Marks a copy of a request that somebody between gateway and upstream has made.
pub(crate) const COPY: &str = "x-copy";

/// The dialect with this id.
pub(crate) fn dialect(id: &str) -> &'static Registration {
    DIALECTS.iter().find(|one| one.profile.id == id).unwrap()
}

impl World {
    pub(crate) async fn start() -> Self {
        let mut mocks = Vec::new();
        for (_, id) in &LINKS[..PORTAL] {
            mocks.push(Mock::start(dialect(id), SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap());
        }
        Self::of(mocks)
    }

    /// With these mocks, in the order of the connections.
    pub(crate) fn of(mocks: Vec<Mock>) -> Self {
        let link = |((name, id), mock)| Link { name, registration: dialect(id), mock, book: Mutex::default() };
        Self { links: LINKS.into_iter().zip(mocks).map(link).collect() }
    }

    /// A contact that no deletion named before.
    pub(crate) fn contact(&self, link: usize, kind: Kind, seeded: Seeded) -> Contact {
        let Link { registration, mock, .. } = &self.links[link];
        let mut book = self.links[link].book();
        book.made += 1;
        let n = book.made;
        let forms = match kind {
            Kind::Id => vec![
                Identifier::Id(format!("{}", 7_000_000 + n).into()),
                Identifier::Id(format!("{n:024x}").into()),
                Identifier::Id(format!("91c615e3-1040-4815-8ecb-{n:012x}").into()),
            ],
            Kind::Phone => vec![Identifier::Phone(format!("+1415{n:09}").into())],
            Kind::External => {
                vec![Identifier::External { provider: "salesforce".into(), id: format!("ext-{n:09}").into() }]
            }
        };
        let identifier = forms.into_iter().find(|each| registration.profile.admit(each).is_ok()).unwrap();
        match seeded {
            Seeded::There => mock.seed(&identifier, false),
            Seeded::Held => mock.seed(&identifier, true),
            Seeded::Missing => {}
        }
        book.known.insert(text(&identifier).to_owned());
        // Not what the dialect says of itself: a number or an external id may name another contact by then.
        Contact { link, identifier, replay_safe: kind == Kind::Id }
    }

    pub(crate) fn holds(&self, contact: &Contact) -> bool {
        self.links[contact.link].mock.holds(&contact.identifier)
    }

    /// How many delete calls that may have been carried out named this contact, as of the last `read`.
    pub(crate) fn calls(&self, contact: &Contact) -> usize {
        self.links[contact.link].book().calls.get(text(&contact.identifier)).copied().unwrap_or(0)
    }

    /// Whether a copy of a call deleted this contact, as of the last `read`.
    pub(crate) fn copied(&self, contact: &Contact) -> bool {
        self.links[contact.link].book().copied.contains(text(&contact.identifier))
    }

    /// The contacts that each upstream has deleted, by their texts.
    pub(crate) fn deleted(&self) -> Vec<HashSet<String>> {
        let of = |link: &Link| link.mock.deleted().iter().map(|each| text(each).to_owned()).collect();
        self.links.iter().map(of).collect()
    }

    /// Reads what is new in the journals. A journal keeps only its latest entries: to be called before too many come.
    pub(crate) fn read(&self) -> Result<(), String> {
        for link in &self.links {
            let mut book = link.book();
            let entries = link.mock.journal();
            if entries.first().is_some_and(|first| first.n > book.upto + 1) {
                return Err(format!("the journal of {} has dropped entries that were not read", link.name));
            }
            let Book { known, upto, calls, copied, .. } = &mut *book;
            for entry in entries.iter().filter(|entry| entry.n > *upto) {
                // 401 and 429 say that nothing was looked at.
                if entry.sign_in || matches!(entry.status, Some(401 | 429)) {
                    continue;
                }
                let whole = format!("{} {}", entry.path, String::from_utf8_lossy(&entry.body));
                let words = whole.split(|c: char| !c.is_ascii_alphanumeric() && !"+-_".contains(c));
                let is_copy = entry.headers.contains_key(COPY);
                let named: HashSet<&str> = words.filter(|word| known.contains(*word)).collect();
                for name in named {
                    if !is_copy {
                        *calls.entry(name.to_owned()).or_default() += 1;
                    }
                }
                if is_copy {
                    copied.extend(entry.deleted.iter().map(|each| text(each).to_owned()));
                }
            }
            *upto = entries.last().map_or(*upto, |last| last.n);
        }
        Ok(())
    }

    /// Queues a fault now and then, until told to end. The rate is one in about `every` calls.
    pub(crate) async fn trouble(&self, rng: Rng, every: usize, end: watch::Receiver<bool>) {
        self.trouble_of(some_fault, rng, every, end).await;
    }

    /// The same with other faults.
    pub(crate) async fn trouble_of(
        &self,
        faults: fn(&mut Rng) -> Fault,
        mut rng: Rng,
        every: usize,
        mut end: watch::Receiver<bool>,
    ) {
        let each = self.links.iter().map(|link| {
            let mut rng = rng.fork();
            async move {
                let mut count = 0;
                loop {
                    count += rng.usize(1..2 * every);
                    link.mock.arrived(count).await;
                    link.mock.fault(faults(&mut rng));
                }
            }
        });
        tokio::select! {
            biased;
            _ = futures_util::future::join_all(each) => {}
            _ = end.wait_for(|end| *end) => {}
        }
    }
}

impl Link {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }
}

/// The part of an identifier by which it is found in a call.
pub(crate) fn text(identifier: &Identifier) -> &str {
    match identifier {
        Identifier::External { id, .. } => id,
        other => other.text(),
    }
}

/// None of these tells the gateway whether the call was carried out.
fn some_fault(rng: &mut Rng) -> Fault {
    match rng.u8(0..20) {
        0..4 => Fault::CommitThenDrop,
        4..7 => Fault::DropBeforeCommit,
        7..9 => Fault::CutBody,
        9..11 => Fault::Status(500),
        11..13 => Fault::Html(502),
        13 => Fault::Empty(500),
        14 => Fault::Stall,
        _ => Fault::Delay(Duration::from_millis(rng.u64(1..80))),
    }
}
