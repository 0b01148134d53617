//! Checks, each where it holds and where it does not.

use adapters::{DIALECTS, Identifier};
use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::mock::{Entry, Fault, Kind, Place, Progress, Question, Record, Scenario, Verdict, check};

/// The dialect with ids in hexadecimal digits.
const HEX: usize = 1;

fn id(text: &str) -> Identifier {
    Identifier::Id(text.into())
}

fn entry(n: usize, kind: Kind, asked: &[&str], deleted: &[&str]) -> Entry {
    Entry {
        n,
        at_ms: 1_000 * n as u64,
        kind,
        method: Method::DELETE,
        path: "/".to_owned(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
        sign_in: kind == Kind::SignIn,
        asked: asked.iter().map(|text| id(text)).collect(),
        deleted: deleted.iter().map(|text| id(text)).collect(),
        fault: None,
        fault_applied: false,
        status: Some(200),
    }
}

fn record(upstream: &str, entries: Vec<Entry>) -> Record {
    let count = |kind| entries.iter().filter(|entry| entry.kind == kind).count();
    Record {
        upstream: upstream.to_owned(),
        profile: DIALECTS[HEX].profile,
        deleted: entries.iter().flat_map(|entry| entry.deleted.clone()).collect(),
        kinds: Kind::ALL.into_iter().map(|kind| (kind, count(kind))).collect(),
        entries,
    }
}

const A: &str = "6960cbe9b155d194e2f0000a";
const B: &str = "6960cbe9b155d194e2f0000b";
const BIG_A: &str = "6960CBE9B155D194E2F0000A";

fn ask(question: Question, records: &[Record]) -> Verdict {
    check(&question, None, records, &Progress::default())
}

fn places(verdict: &Verdict) -> Vec<(&str, usize)> {
    verdict.entries.iter().map(|Place { upstream, n }| (upstream.as_str(), *n)).collect()
}

#[test]
fn a_contact_is_deleted_once() {
    let once = || record("one", vec![entry(1, Kind::Delete, &[A, B], &[A, B]), entry(2, Kind::Delete, &[A], &[])]);
    let twice = record("two", vec![entry(1, Kind::Delete, &[A], &[A]), entry(2, Kind::Delete, &[BIG_A], &[BIG_A])]);
    let alone = ask(Question::DeletedTwice, &[once(), record("other", vec![entry(1, Kind::Delete, &[A], &[A])])]);
    assert!(alone.ok && alone.entries.is_empty(), "two upstreams have two contacts");
    let both = ask(Question::DeletedTwice, &[once(), twice]);
    assert!(!both.ok);
    assert_eq!(places(&both), [("two", 1), ("two", 2)]);
    assert!(!both.why.to_lowercase().contains(A), "{}", both.why);
}

#[test]
fn nobody_is_deleted_who_was_not_asked_for() {
    let records = [record("one", vec![entry(1, Kind::Delete, &[A], &[BIG_A]), entry(2, Kind::Delete, &[A], &[B])])];
    let verdict = ask(Question::OnlyAsked, &records);
    assert_eq!((verdict.ok, places(&verdict)), (false, vec![("one", 2)]));
    assert!(ask(Question::OnlyAsked, &[record("one", vec![entry(1, Kind::Delete, &[A, B], &[A])])]).ok);
    let verdict = ask(Question::Only { contacts: vec![id(A)] }, &records);
    assert_eq!((verdict.ok, places(&verdict)), (false, vec![("one", 2)]));
    assert!(ask(Question::Only { contacts: vec![id(BIG_A), id(B)] }, &records).ok);
}

#[test]
fn an_upstream_is_left_alone() {
    let entries = vec![entry(1, Kind::Delete, &[A], &[]), entry(2, Kind::SignIn, &[], &[])];
    let records = [record("one", entries)];
    let between = |from_ms, to_ms| places(&ask(Question::NoCallBetween { from_ms, to_ms }, &records)).len();
    assert_eq!([between(1_001, 1_999), between(1_000, 2_000), between(2_001, u64::MAX)], [0, 2, 0]);
    assert!(ask(Question::NoCallAfterN { n: 2 }, &records).ok);
    assert_eq!(places(&ask(Question::NoCallAfterN { n: 1 }, &records)), [("one", 2)]);
}

#[test]
fn requests_are_counted() {
    let entries = || vec![entry(1, Kind::SignIn, &[], &[]), entry(2, Kind::Delete, &[A], &[A])];
    let records = [record("one", entries()), record("two", entries())];
    let count =
        |kind, exactly, at_least, at_most| ask(Question::Count { kind, exactly, at_least, at_most }, &records).ok;
    assert!(count(Some(Kind::Delete), Some(2), None, None) && count(None, Some(4), None, None));
    assert!(count(Some(Kind::Delete), None, Some(2), Some(2)) && !count(Some(Kind::Delete), None, Some(3), None));
    assert!(!count(None, None, None, Some(3)) && count(Some(Kind::Throttled), Some(0), None, None));
    let question = Question::Count { kind: Some(Kind::Delete), exactly: Some(1), at_least: None, at_most: None };
    assert_eq!(places(&ask(question, &records)), [("one", 2), ("two", 2)]);
}

#[test]
fn a_contact_is_asked_for_so_often() {
    let entries = vec![
        entry(1, Kind::Delete, &[A, BIG_A, B], &[]),
        entry(2, Kind::Throttled, &[A], &[]),
        entry(3, Kind::Delete, &[BIG_A], &[]),
    ];
    let records = [record("one", entries)];
    assert!(ask(Question::CallsPerContactAtMost { n: 2 }, &records).ok);
    let verdict = ask(Question::CallsPerContactAtMost { n: 1 }, &records);
    assert_eq!((verdict.ok, places(&verdict)), (false, vec![("one", 1), ("one", 3)]));
}

#[test]
fn a_journal_that_is_not_whole_proves_nothing() {
    let mut record = record("one", vec![entry(8, Kind::Delete, &[A], &[A])]);
    record.kinds[0].1 = 8;
    let records = [record];
    let any_time = Question::NoCallBetween { from_ms: 0, to_ms: 1 };
    for question in [Question::OnlyAsked, Question::CallsPerContactAtMost { n: 1 }, any_time] {
        let verdict = ask(question, &records);
        assert!(!verdict.ok && verdict.why.contains("the oldest 7 requests"), "{}", verdict.why);
    }
    // What is counted, and who was deleted, is kept for good.
    assert!(ask(Question::NoCallAfterN { n: 8 }, &records).ok && !ask(Question::NoCallAfterN { n: 7 }, &records).ok);
    assert!(ask(Question::DeletedTwice, &records).ok && ask(Question::Only { contacts: vec![id(A)] }, &records).ok);
    let exactly = Question::Count { kind: Some(Kind::Delete), exactly: Some(8), at_least: None, at_most: None };
    assert!(ask(exactly, &records).ok);
}

#[test]
fn a_scenario_is_done_when_every_step_was_taken() {
    let scenario = Scenario::default().then("one", Fault::Stall).then("two", Fault::Plain);
    let progress = Progress { steps: scenario.steps.into_iter().zip([0, 1]).collect() };
    let done = |upstream, progress: &Progress| check(&Question::ScenarioDone, upstream, &[], progress).ok;
    assert!(!done(None, &progress) && !done(Some("one"), &progress) && done(Some("two"), &progress));
    assert!(!done(None, &Progress::default()));
}
