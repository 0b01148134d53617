//! What stands for what, without a wire.

use adapters::vocabulary::Vocabulary;
use adapters::{DIALECTS, Identifier};

use super::disguise::Disguise;

fn disguise(dialect: usize, keep_text: bool) -> Disguise {
    let settings = [("acme-real".to_owned(), "acme".to_owned())];
    Disguise::new(DIALECTS[dialect].profile, Vocabulary::default(), settings, keep_text)
}

fn id(text: &str) -> Identifier {
    Identifier::Id(text.into())
}

#[test]
fn a_pseudonym_is_admitted_and_the_same_every_time() {
    let forms = ["C0FFEE11-dead-4bee-8f00-9a7e5a11c0de", "c0ffee11dead4bee8f00aaa1", "2147483640", "7"];
    for registration in DIALECTS {
        let profile = registration.profile;
        let mut disguise = Disguise::new(profile, Vocabulary::default(), [], false);
        for form in forms.iter().filter(|form| profile.admit(&id(form)).is_ok()) {
            let stand_in = disguise.contact(&id(form));
            assert!(profile.admit(&stand_in).is_ok() && stand_in != id(form), "{}: {}", profile.id, stand_in.text());
            assert!(stand_in.text().len() <= form.len());
            assert_eq!(disguise.contact(&id(form)), stand_in, "{}", profile.id);
            let body = format!("[\"{}\",{{\"id\":\"{form}\"}}]", form.to_ascii_lowercase());
            assert_eq!(
                disguise.body(body.as_bytes()),
                body.replace(form, stand_in.text()).replace(&form.to_ascii_lowercase(), stand_in.text())
            );
        }
        for rule in profile.identifiers {
            let others = [
                Identifier::Phone("+493055577311".into()),
                Identifier::External { provider: "Sales Force".replace(' ', "").into(), id: "003Ab".into() },
            ];
            for other in others.iter().filter(|other| other.kind() == rule.kind) {
                let stand_in = disguise.contact(other);
                assert!((rule.accepts)(&stand_in) && stand_in.text() != other.text(), "{}", profile.id);
            }
        }
    }
}

#[test]
fn two_contacts_stay_two() {
    let mut disguise = disguise(0, false);
    let ids: Vec<_> = (1..100).flat_map(|n| [format!("{n}"), format!("{n:024x}"), format!("003a{n}")]).collect();
    let mut seen: Vec<_> =
        ids.iter().map(|text| disguise.contact(&id(text))).map(|each| each.text().to_owned()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), ids.len());
    let external = |text: &str| Identifier::External { provider: "salesforce".into(), id: text.into() };
    assert_ne!(disguise.contact(&external("003AB")), disguise.contact(&external("003ab")));
}

#[test]
fn a_small_number_counts_and_is_an_identifier_only_where_it_is_named_so() {
    let mut disguise = disguise(2, false);
    let stand_in = disguise.contact(&id("7")).text().to_owned();
    let body =
        disguise.body(b"{\"count\":7,\"id\":7,\"ids\":[7],\"owner_id\":7,\"phone\":4930555888,\"at\":52.5200065}");
    let expected = format!(
        "{{\"count\":7,\"id\":{stand_in},\"ids\":[{stand_in}],\"owner_id\":{stand_in},\"phone\":1000000000,\"at\":0.5}}"
    );
    assert_eq!(body, expected);
}

#[test]
fn texts_go_unless_they_are_asked_for() {
    let body = br#"{"message":"Ada Byron is c0ffee11dead4bee8f00aaa1 at acme-real","state":"gone","first_name":"ada","t":"s3cret-token"}"#;
    let mut without = disguise(1, false);
    without.hide("s3cret-token");
    let expected = r#"{"message":"<text>","state":"gone","first_name":"<text>","t":"<credential>"}"#;
    assert_eq!(without.body(body), expected);
    let mut with = disguise(1, true);
    with.hide("s3cret-token");
    let expected = r#"{"message":"Ada Byron is 000000000000000000000001 at acme","state":"gone","first_name":"ada","t":"<credential>"}"#;
    assert_eq!(with.body(body), expected);
    assert_eq!(
        with.body(b"<p>see s3cret-token: C0FFEE11DEAD4BEE8F00AAA1</p>"),
        "<p>see <credential>: 000000000000000000000001</p>"
    );
    for page in [&b"<p>Ada</p>"[..], b"\xff\xfe", b"{\"a\":"] {
        assert_eq!(without.body(page), "<text>");
    }
    assert_eq!(without.body(b""), "");
}
