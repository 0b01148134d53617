//! What is read of a request besides its JSON: contacts into parts, query parameters into options and filters, places.
//!
//! A gateway as a whole is tested from outside.

use adapters::{Evidence, Fault, FaultCode, Identifier, Outcome, Slot};
use http::{HeaderMap, HeaderName, HeaderValue};
use tempfile::TempDir;

use super::auth::Caller;
use super::deletions::options;
use super::idempotency::RequestKey;
use super::lookup::{filter, outcomes};
use super::render::{Scribe, WholeView};
use super::request::ContactRequest;
use super::submission::{Intake, Options};
use super::*;
use crate::engine::{Retry, Settled};
use crate::store::{Asked, DeletionId, Head, PART, Page, Part, Summary, Tally};
use crate::tenants::{self, Secrets};

const KEY: &str = "odk_0123456789012345678901234567890123456789";
const LIMITED: &str = "odk_abcdefghijklmnopqrstuvwxyz0123456789abcd";

fn tenants() -> tenants::Tenants {
    let folder = TempDir::new().unwrap();
    let mut file: toml::Table = format!(
        "id = \"acme\"\ndefault_connection = \"crm\"\n\
         [[api_keys]]\nname = \"all\"\nsha256 = {:?}\n\
         [[api_keys]]\nname = \"some\"\nsha256 = {:?}\nconnections = [\"lists\"]\n[connections]\n",
        sha256_hex(KEY),
        sha256_hex(LIMITED)
    )
    .parse()
    .unwrap();
    for (name, dialect) in [("crm", "kore_ai"), ("second", "kore_ai"), ("lists", "talkdesk"), ("sales", "wethod")] {
        let registration = adapters::DIALECTS.iter().find(|each| each.profile.id == dialect).unwrap();
        let connection: toml::Table = registration.example.parse().unwrap();
        file["connections"].as_table_mut().unwrap().insert(name.to_owned(), connection.into());
    }
    std::fs::write(folder.path().join("acme.toml"), file.to_string()).unwrap();
    let settings = TempDir::new().unwrap();
    let file = settings.path().join("x.toml");
    std::fs::write(&file, "").unwrap();
    let defaults = crate::settings::load_with(&file, []).unwrap().upstream;
    tenants::load(folder.path(), &defaults, Secrets::Skip).unwrap()
}

fn caller(key: &str) -> Caller {
    let mut sha256 = [0; 32];
    let hex = sha256_hex(key);
    for (n, byte) in sha256.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
    }
    Caller { key: tenants().key(&sha256).unwrap().clone() }
}

fn contact(json: &str) -> ContactRequest {
    request::parse_line(json.as_bytes(), 0, 1).unwrap()
}

/// The parts of these contacts, and the fingerprint under a key.
fn parts(contacts: impl IntoIterator<Item = ContactRequest>, options: Options) -> (Vec<Part>, [u8; 32]) {
    let caller = caller(KEY);
    let headers = HeaderMap::from_iter([(HeaderName::from_static("idempotency-key"), HeaderValue::from_static("key"))]);
    let key = RequestKey::read(&headers, "/v1/deletions", &caller.key.tenant).unwrap();
    let mut intake = Intake::new(&caller, options, [7; 16], key);
    let mut parts = Vec::new();
    for (n, contact) in contacts.into_iter().enumerate() {
        parts.extend(intake.full_part());
        assert_eq!(intake.len(), n);
        intake.add(contact).unwrap();
    }
    let submission = intake.finish(0);
    let fingerprint = submission.accept.claim.unwrap().fingerprint;
    assert_eq!(submission.connections.len(), submission.accept.head.shares.len());
    parts.push(Arc::into_inner(submission.accept.last).unwrap());
    (parts, fingerprint)
}

fn numbers(range: std::ops::Range<usize>) -> impl Iterator<Item = ContactRequest> {
    range.map(|n| ContactRequest::bare(format!("{n:024x}").into()))
}

#[test]
fn contacts_fill_parts_and_no_part_is_empty() {
    for (contacts, expected) in [
        (1, vec![(0, 0, 1)]),
        (PART - 1, vec![(0, 0, PART - 1)]),
        (PART, vec![(0, 0, PART)]),
        (PART + 1, vec![(0, 0, PART), (1, 10_000, 1)]),
        (2 * PART, vec![(0, 0, PART), (1, 10_000, PART)]),
        (2 * PART + 1, vec![(0, 0, PART), (1, 10_000, PART), (2, 20_000, 1)]),
    ] {
        let (parts, _) = parts(numbers(0..contacts), Options::default());
        let shape: Vec<_> = parts.iter().map(|part| (part.number, part.first, part.contacts.len())).collect();
        assert_eq!(shape, expected, "{contacts}");
        assert!(parts.iter().all(|part| part.settled.is_empty()));
    }
}

#[test]
fn a_twin_is_found_in_every_earlier_part() {
    // The last of the first part and the first of the second stand again, at the ends of the second and third.
    let again = [PART - 1, PART, 0].into_iter().flat_map(|n| numbers(n..n + 1));
    let contacts = numbers(0..2 * PART - 1).chain(again);
    let (parts, _) = parts(contacts, Options::default());
    let settled: Vec<_> = parts.iter().flat_map(|part| &part.settled).collect();
    let found: Vec<_> = settled.iter().map(|(slot, settled)| (*slot, settled.duplicate_of)).collect();
    let at = |n: usize| Slot(u32::try_from(n).unwrap());
    let expected = [(2 * PART - 1, PART - 1), (2 * PART, PART), (2 * PART + 1, 0)];
    assert_eq!(found, expected.map(|(slot, twin)| (at(slot), Some(at(twin)))));
    assert_eq!(parts.iter().map(|part| part.settled.len()).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(settled.iter().all(|(_, settled)| settled.outcome == Outcome::Skipped));
}

#[test]
fn a_contact_is_its_connection_kind_and_canonical_identifier() {
    let contacts = [
        r#""6960cbe9b155d194e2f00001""#,
        r#"{"id":"6960CBE9B155D194E2F00001","ref":"upper case"}"#,
        r#"{"id":"6960cbe9b155d194e2f00001","connection":"crm"}"#,
        r#"{"id":"6960cbe9b155d194e2f00001","connection":"second"}"#,
        r#"{"connection":"sales","id":12}"#,
        r#"{"connection":"sales","id":"12"}"#,
        r#"{"connection":"sales","id":"012"}"#,
        r#"{"connection":"sales","id":"012"}"#,
        r#"{"connection":"lists","phone":"+14155550100"}"#,
        r#"{"connection":"lists","external":{"provider":"a","id":"b"}}"#,
        r#"{"connection":"lists","external":{"provider":"b","id":"a"}}"#,
        r#"{"connection":"lists","external":{"provider":"a","id":"b"}}"#,
        r#"{"connection":"lists","phone":"+14155550100"}"#,
    ];
    let (parts, _) = parts(contacts.map(contact), Options::default());
    let shares: Vec<_> = parts[0].contacts.iter().map(|contact| contact.share).collect();
    assert_eq!(shares, [0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
    let settled: Vec<_> =
        parts[0].settled.iter().map(|(slot, settled)| (slot.0, settled.outcome, settled.duplicate_of)).collect();
    let twin = |slot, of| (slot, Outcome::Skipped, Some(Slot(of)));
    let refused = |slot| (slot, Outcome::Rejected, None);
    // What is refused is refused each time: nothing stands for it.
    assert_eq!(settled, [twin(1, 0), twin(2, 0), twin(5, 4), refused(6), refused(7), twin(11, 9), twin(12, 8)]);
    let hash = |n: usize| parts[0].contacts[n].hash;
    assert_eq!((hash(0), hash(4)), (hash(1), hash(5)));
    assert!(hash(0) != hash(3) && hash(9) != hash(10) && hash(5) != hash(6));
    // Identifiers go on as they were written.
    assert_eq!(parts[0].identifiers[1], Identifier::Id("6960CBE9B155D194E2F00001".into()));
}

#[test]
fn a_fingerprint_is_of_what_is_asked_for() {
    let of = |contacts: &[&str], options: Options| parts(contacts.iter().map(|json| contact(json)), options).1;
    let plain = |contacts: &[&str]| of(contacts, Options::default());
    let one = r#"{"id":"6960cbe9b155d194e2f00001"}"#;
    let same = plain(&[one]);
    for spelt in [r#""6960CBE9B155D194E2F00001""#, r#"{"connection":"crm","id":"6960cbe9b155d194e2f00001"}"#] {
        assert_eq!(plain(&[spelt]), same, "{spelt}");
    }
    let to = |connection: &str| Options { connection: Some(connection.into()), ..Options::default() };
    let because = |reason: &str| Options { reason: Some(reason.to_owned()), ..Options::default() };
    let named = |reference: &str| Options { reference: Some(reference.to_owned()), ..Options::default() };
    assert_eq!(of(&[one], to("crm")), same);
    let bad = |provider: &str| format!(r#"{{"external":{{"provider":"{provider}","id":"x"}}}}"#);
    let others = [
        of(&[one], to("second")),
        of(&[one], because("r")),
        of(&[one], named("r")),
        plain(&[one, one]),
        plain(&[r#"{"id":"6960cbe9b155d194e2f00001","ref":"r"}"#]),
        plain(&[r#""6960cbe9b155d194e2f00002""#]),
        // Refused, and still not the same.
        plain(&[r#""x""#]),
        plain(&[r#""X""#]),
        plain(&[r#"{"phone":"x"}"#]),
        plain(&[&bad("a")]),
        plain(&[&bad("b")]),
    ];
    for (n, other) in others.iter().enumerate() {
        assert!(*other != same && !others[n + 1..].contains(other), "{n}");
    }
    // Where the parts are cut is no part of it.
    let order = |first: usize, second: usize| {
        parts(numbers(first..first + 1).chain(numbers(0..PART)).chain(numbers(second..second + 1)), Options::default())
            .1
    };
    assert_ne!(order(PART, PART + 1), order(PART + 1, PART));
}

#[test]
fn a_connection_is_found_for_each_contact_or_the_whole_is_refused() {
    let caller = caller(LIMITED);
    let add = |options: Options, json: &str| {
        let mut intake = Intake::new(&caller, options, [7; 16], None);
        intake.add(contact(json)).map_err(|problem| problem.code()).map(|()| intake.len())
    };
    let to = |connection: &str| Options { connection: Some(connection.into()), ..Options::default() };
    let phone = r#"{"phone":"+1"}"#;
    assert_eq!(add(to("lists"), phone), Ok(1));
    assert_eq!(add(to("crm"), r#"{"phone":"+1","connection":"lists"}"#), Ok(1));
    // The tenant's default is not this key's.
    for name in ["crm", "nowhere", ""] {
        assert_eq!(add(to(name), phone), Err("not_found"), "{name}");
    }
    assert_eq!(add(Options::default(), phone), Err("not_found"));
}

#[test]
fn query_parameters_are_the_other_members() {
    let read = |query: &str| {
        options(query).map(|(options, dry_run)| (options.connection, options.reason, options.reference, dry_run))
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(read("").unwrap(), (None, None, None, false));
    let all = read("dry_run=true&reference=%C3%A9+1&reason=a%26b&connection=c").unwrap();
    assert_eq!(all, (Some("c".into()), text("a&b"), text("\u{e9} 1"), true));
    assert_eq!(read("dry_run=false&reason=").unwrap(), (None, text(""), None, false));
    assert!(read(&format!("reason={}", "%C3%A9".repeat(128))).is_ok());
    for (query, code) in [
        ("contacts=1", "unknown_parameter"),
        ("Reason=a", "unknown_parameter"),
        ("=", "unknown_parameter"),
        ("dry_run", "wrong_type"),
        ("dry_run=1", "wrong_type"),
        ("dry_run=true&dry_run=true", "duplicate_parameter"),
        ("reason=a&reason=a", "duplicate_parameter"),
        (&format!("reference={}", "x".repeat(129)), "too_long"),
    ] {
        let problem = format!("{:?}", read(query).unwrap_err());
        assert!(problem.contains(&format!("{code:?}")), "{query}: {problem}");
    }
}

#[test]
fn a_filter_is_the_callers_and_no_wider() {
    let (all, limited) = (caller(KEY), caller(LIMITED));
    let plain = filter(&all, "").unwrap();
    assert_eq!((&*plain.tenant, plain.finished, plain.most), ("acme", None, 50));
    assert!(plain.within.is_none() && plain.before.is_none() && plain.connection.is_none());
    let id = DeletionId::new();
    let query = format!("state=finished&reference=a+b&connection=crm&limit=500&cursor={id}");
    let narrow = filter(&limited, &query).unwrap();
    assert_eq!((narrow.finished, narrow.reference.as_deref(), narrow.most), (Some(true), Some("a b"), 500));
    assert_eq!((narrow.connection.as_deref(), narrow.before), (Some("crm"), Some(id)));
    assert_eq!(narrow.within.unwrap(), [Arc::from("lists")]);
    assert_eq!(filter(&all, "state=running").unwrap().finished, Some(false));
    for (query, code) in [
        ("state=", "unknown_state"),
        ("limit=0", "wrong_number"),
        ("limit=501", "wrong_number"),
        ("limit=99999999999999999999", "wrong_number"),
        ("cursor=del_", "unknown_cursor"),
        ("tenant=other", "unknown_parameter"),
        ("limit=1&limit=2", "duplicate_parameter"),
    ] {
        let problem = format!("{:?}", filter(&all, query).unwrap_err());
        assert!(problem.contains(&format!("{code:?}")), "{query}: {problem}");
    }
    assert_eq!(outcomes("outcome=failed,unknown&outcome=pending").unwrap().unwrap().len(), 3);
    assert!(outcomes("").unwrap().is_none());
    for bad in ["outcome=", "outcome=failed,", "outcome=Failed", "x=failed"] {
        assert!(outcomes(bad).is_err(), "{bad}");
    }
}

#[test]
fn places_are_given_back() {
    let streams = Arc::new(Streams::new(3));
    let (a, b) = (Arc::from("a"), Arc::from("b"));
    let first = streams.enter(&a).unwrap();
    let second = streams.enter(&a).unwrap();
    assert!(streams.enter(&a).is_none(), "more than half, rounded up");
    let third = streams.enter(&b).unwrap();
    assert!(streams.enter(&b).is_none(), "more than all");
    drop(first);
    drop(streams.enter(&b).unwrap());
    drop((second, third));
    assert!(streams.open().is_empty());
}

#[test]
fn results_that_are_alike_are_written_as_each_alone_would_be() {
    let caller = caller(KEY);
    let tenant = &caller.key.tenant;
    let deleted = |attempts| Settled::absent(Outcome::Deleted, Evidence::Item, attempts);
    let fault = |code| Settled::fault(&Fault::new(code), 1, Retry::Safe);
    // Share, reference and result: each differs from the one before in one of them, or in none.
    let contacts = [
        (0, None, Some(deleted(1))),
        (0, Some("a\"b"), Some(deleted(1))),
        (1, None, Some(deleted(1))),
        (1, None, Some(deleted(2))),
        (1, None, Some(fault(FaultCode::UpstreamUnspecified))),
        (1, None, Some(fault(FaultCode::UpstreamUnspecified))),
        (1, None, Some(fault(FaultCode::UpstreamForbidden))),
        (1, None, Some(Settled { sent: true, ..fault(FaultCode::ConnectFailed) })),
        (1, None, Some(fault(FaultCode::ConnectFailed))),
        (1, None, None),
        (1, None, None),
        (1, None, Some(Settled::duplicate(Slot(0)))),
        (1, None, Some(Settled::duplicate(Slot(4)))),
        (1, None, Some(Settled::duplicate(Slot(4)))),
        (0, None, Some(deleted(1))),
    ];
    let asked = |(share, reference, _): &(u16, Option<&str>, Option<Settled>)| Asked {
        share: *share,
        hash: None,
        reference: reference.map(Arc::from),
    };
    // In two parts, in the middle of what is alike.
    let page = |first: usize, last: usize| Page {
        first: first as u32,
        contacts: Arc::new(contacts[first..last].iter().map(asked).collect()),
        results: contacts[first..last].iter().map(|(.., settled)| settled.clone()).collect(),
    };
    let pages = [page(0, 5), page(5, contacts.len())];
    let summary = Summary {
        head: Head {
            id: DeletionId::new(),
            tenant: Arc::clone(&tenant.id),
            created_ms: 0,
            reason: None,
            reference: None,
            shares: vec![Arc::from("crm"), Arc::from("lists")],
        },
        finished_ms: None,
        cancelled_ms: None,
        contacts: contacts.len() as u32,
        parts: 2,
        tally: Tally::default(),
    };
    let mut scribe = Scribe::new(&summary.head.shares, tenant);
    let places = pages.iter().flat_map(|page| (0..page.contacts.len()).map(move |n| (page, n)));
    let alone: Vec<_> = places.map(|(page, n)| serde_json::to_string(&scribe.result(page, n)).unwrap()).collect();
    let whole = String::from_utf8(WholeView::new(&summary, &pages, tenant).to_json().unwrap()).unwrap();
    let (head, results) = whole.split_once(",\"results\":[").unwrap();
    assert_eq!(results, alone.join(",") + "]}");
    assert!(serde_json::from_str::<serde_json::Value>(&format!("{head}}}")).is_ok());
}
