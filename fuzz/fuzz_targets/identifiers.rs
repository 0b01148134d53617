//! Every dialect's grammar, plan and URLs: what is sent is the route and the identifier, byte for byte, or nothing is sent.
//!
//! An input is a case and a text; a zero parts an external identifier's provider from its id.

#![no_main]

use adapters::{FaultCode, Identifier, IdentifierKind, Slot, Target};
use http::Method;
use libfuzzer_sys::fuzz_target;
use onedelete_fuzz::calls::{cases, settings};
use onedelete_fuzz::seeds;

fuzz_target!(init: { seeds::write(seeds::identifiers) }, |data: &[u8]| {
    let Some((case, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let cases = cases();
    let case = cases[*case as usize % cases.len()];
    let id = case.registration.profile.id;
    let (first, second) = text.split_once('\0').unwrap_or((text, ""));
    let identifier = match case.kind {
        IdentifierKind::Id => Identifier::Id(text.into()),
        IdentifierKind::Phone => Identifier::Phone(text.into()),
        IdentifierKind::External => Identifier::External { provider: first.into(), id: second.into() },
    };
    let dialect = case.dialect();
    let plan = dialect.plan(vec![Target { slot: Slot(7), identifier: identifier.clone() }]);

    if !is_good(id, &identifier) {
        assert!(plan.calls.is_empty(), "{id}: {text:?} would be sent");
        assert!(matches!(&plan.refused[..], [(Slot(7), fault)] if fault.code == FaultCode::InvalidIdentifier), "{id}");
        return;
    }
    assert!(plan.refused.is_empty(), "{id}: {text:?} is refused");
    let [call] = &plan.calls[..] else { panic!("{id}: {} calls", plan.calls.len()) };
    assert_eq!(call.targets.len(), 1, "{id}");
    assert_eq!((call.targets[0].slot, &call.targets[0].identifier), (Slot(7), &identifier), "{id}");
    let request = &call.request;
    assert_eq!(request.method(), Method::DELETE, "{id}");
    let base = settings(case.registration)["base_url"].as_str().expect("a base URL").to_owned();
    let (route, body) = on_the_wire(id, &identifier);
    assert_eq!(request.uri().to_string(), format!("{base}{route}"), "{id}: the URL");
    assert_eq!(request.body(), body.as_bytes(), "{id}: the body");
    // What the client on the way out makes of it is the same text.
    let parsed = url::Url::parse(&request.uri().to_string()).expect("a URL");
    assert_eq!(parsed.as_str(), request.uri().to_string(), "{id}: a URL parser reads another URL");
    // Whoever is deleted, the headers are the same.
    let other = case.dialect().plan(vec![Target { slot: Slot(7), identifier: case.contact(1) }]);
    assert_eq!(request.headers(), other.calls[0].request.headers(), "{id}: a header depends on the identifier");
    assert!(!request.headers().contains_key(case.registration.profile.auth.header), "{id}: a credential");
});

/// The grammars, as the vendors' pages have them.
fn is_good(dialect: &str, identifier: &Identifier) -> bool {
    let visible = |text: &str| (1..=128).contains(&text.len()) && text.chars().all(|c| ('!'..='~').contains(&c));
    match identifier {
        Identifier::Phone(phone) => {
            let digits = phone.strip_prefix('+').unwrap_or_default();
            (1..=15).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit())
        }
        Identifier::External { provider, id } => visible(provider) && visible(id),
        Identifier::Id(id) => match dialect {
            "bas_ip" | "talkdesk" => {
                let groups: Vec<_> = id.split('-').collect();
                let lengths: Vec<_> = groups.iter().map(|group| group.len()).collect();
                lengths == [8, 4, 4, 4, 12] && groups.concat().chars().all(|c| c.is_ascii_hexdigit())
            }
            "kore_ai" => id.len() == 24 && id.chars().all(|c| c.is_ascii_hexdigit()),
            "onlyoffice" => id.parse::<i32>().is_ok_and(|number| number > 0 && number.to_string() == **id),
            "wethod" => id.parse::<i64>().is_ok_and(|number| number > 0 && number.to_string() == **id),
            other => panic!("{other}: say which ids are good here"),
        },
    }
}

/// What follows the base URL, and the body.
fn on_the_wire(dialect: &str, identifier: &Identifier) -> (String, String) {
    let text = identifier.text();
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    match (dialect, identifier) {
        ("bas_ip", _) => ("/contacts/items/link".to_owned(), format!("{{\"link_ids\":[\"{text}\"]}}")),
        ("kore_ai", _) => {
            let stream = "st-7dc994f0-4436-5134-9fa8-a94262500001";
            (format!("/agentassist/api/v1/public/{stream}/contacts/bulk-delete"), format!("{{\"ids\":[\"{text}\"]}}"))
        }
        ("onlyoffice", _) => (format!("/api/2.0/crm/contact/{text}"), String::new()),
        ("talkdesk", identifier) => {
            let item = match identifier {
                Identifier::Id(id) => format!("\"id\":\"{}\"", &**id),
                Identifier::Phone(phone) => format!("\"phone_number\":\"{}\"", &**phone),
                Identifier::External { provider, id } => {
                    format!("\"external_provider\":{},\"external_id\":{}", quoted(provider), quoted(id))
                }
            };
            ("/record-lists/d9be9636-528f-45e8-bdf8-27ffd9ee6085/records/bulks".to_owned(), format!("[{{{item}}}]"))
        }
        ("wethod", _) => (format!("/api/contact/{text}"), String::new()),
        (other, _) => panic!("{other}: say what is sent here"),
    }
}
