//! Bodies of JSON: what is read is what stands there, each member once; what is refused is not repeated.

#![no_main]

use libfuzzer_sys::fuzz_target;
use onedelete::api::fuzzing::{Asked, Whole, request};
use onedelete_fuzz::tree::{Tree, may_name};
use onedelete_fuzz::{CANARY, seeds};

fuzz_target!(init: { seeds::write(seeds::requests) }, |data: &[u8]| {
    let tree = Tree::of(data);
    match request(data) {
        Ok(Whole { contacts, texts, dry_run }) => {
            let tree = tree.expect("what is read is JSON");
            assert!(!tree.stutters(), "a member stands twice");
            let members = ["contacts", "connection", "reason", "reference", "dry_run"];
            assert!(tree.members().iter().all(|(name, _)| members.contains(&name.as_str())), "an unknown member");
            let listed = tree.one(&["contacts"]).expect("contacts").items();
            assert!(!listed.is_empty());
            assert_eq!(contacts.len(), listed.len());
            for (asked, item) in contacts.iter().zip(listed) {
                assert_same(asked, item);
            }
            for (name, text) in ["connection", "reason", "reference"].into_iter().zip(&texts) {
                assert_eq!(text.as_deref(), tree.one(&[name]).and_then(Tree::string), "{name}");
            }
            assert!(texts[1..].iter().flatten().all(|text| text.chars().count() <= 128));
            assert_eq!(dry_run, tree.one(&["dry_run"]) == Some(&Tree::Flag(true)));
        }
        Err(problem) => {
            // Names of members are repeated, so that their mistakes can be seen; nothing else is.
            let shown = format!("{problem:?}");
            let a_name = shown.contains("unknown_member") || shown.contains("duplicate_member");
            assert!(!shown.contains(CANARY) || (a_name && may_name(data, CANARY)), "a refusal repeats a value");
        }
    }
});

fn assert_same(asked: &Asked, item: &Tree) {
    use adapters::Identifier;
    let one = |name: &str| item.one(&[name]).filter(|value| value.is_something()).cloned();
    assert_eq!(asked.reference, one("ref").and_then(|text| text.string().map(str::to_owned)));
    assert_eq!(asked.connection, one("connection").and_then(|text| text.string().map(str::to_owned)));
    let named = ["id", "phone", "external"].iter().filter(|name| one(name).is_some()).count();
    match &asked.identifier {
        Identifier::Id(id) if item.members().is_empty() => assert_eq!(item.text(), Some(&**id)),
        Identifier::Id(id) => assert_eq!((named, one("id").as_ref().and_then(Tree::text)), (1, Some(&**id))),
        Identifier::Phone(phone) => {
            assert_eq!((named, one("phone").as_ref().and_then(Tree::string)), (1, Some(&**phone)))
        }
        Identifier::External { provider, id } => {
            let external = one("external").expect("an external identifier");
            let text = |name: &str| external.one(&[name]).and_then(Tree::string).map(str::to_owned);
            assert_eq!(
                (named, text("provider").as_deref(), text("id").as_deref()),
                (1, Some(&**provider), Some(&**id))
            );
        }
    }
}
