//! Which request meets with what: rules, limits, the journal's kinds, and a reset.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// The dialect whose delete names one contact and whose credential needs no sign-in.
fn plain() -> &'static Registration {
    &DIALECTS[2]
}

fn statuses(scene: &Scene, calls: std::ops::RangeInclusive<usize>) -> Vec<u16> {
    calls.map(|n| reply_of(&scene.mock, &scene.call(n).request).status().as_u16()).collect()
}

fn rule(fault: Fault, when: Match) -> Rule {
    Rule { fault, when, times: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn rules_go_by_number_and_by_times() {
    let scene = Scene::of(plain()).await;
    scene.mock.rule(Rule::nth(Fault::Empty(502), 2));
    scene.mock.rule(rule(Fault::Empty(503), Match { every: Some(3), ..Match::default() }));
    let twice = scene.mock.rule(Rule { times: Some(2), ..Rule::always(Fault::Empty(504)) });
    assert_eq!(statuses(&scene, 1..=7), [504, 502, 503, 504, 200, 503, 200]);
    let standing = scene.mock.rules();
    assert_eq!(standing.iter().map(|each| (each.seen, each.applied)).collect::<Vec<_>>(), [(7, 1), (7, 2), (7, 2)]);
    assert_eq!(scene.mock.journal()[1].fault, Some("empty"));
    assert!(scene.mock.drop_rule(twice) && !scene.mock.drop_rule(twice));
    scene.mock.clear_rules();
    assert!(scene.mock.rules().is_empty());
    assert!(scene.mock.rule(Rule::always(Fault::Stall)) > twice, "numbers are not given twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_rule_can_be_about_a_contact_or_a_route() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let of_2 = Match { contact: Some(some_id(registration, 2)), ..Match::default() };
        let id = scene.mock.rule(rule(Fault::Empty(502), of_2));
        scene.mock.rule(rule(Fault::Empty(503), Match { route: Route::Read, ..Match::default() }));
        assert_eq!(statuses(&scene, 1..=3), [200, 502, 200], "{}", scene.id());
        assert_eq!(scene.mock.rules()[0].seen, 1);
        assert!(scene.mock.drop_rule(id));
        let mut expected = [200, 200];
        if scene.mock.journal().iter().any(|entry| entry.sign_in) {
            // Whoever cannot sign in sends no delete.
            let sign_in = Match { route: Route::SignIn, nth: Some(2), ..Match::default() };
            scene.mock.rule(rule(Fault::Delay(Duration::from_millis(1)), sign_in));
            statuses(&scene, 4..=5);
            let journal = scene.mock.journal();
            let late: Vec<_> = journal.iter().filter(|entry| entry.fault == Some("delay")).collect();
            assert!(late.len() == 1 && late[0].kind == Kind::SignIn, "{journal:?}");
            expected = [200, 200];
        }
        assert_eq!(statuses(&scene, 6..=7), expected, "{}", scene.id());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_plain_answer_spares_a_request() {
    let scene = Scene::of(plain()).await;
    scene.mock.fault_always(Some(Fault::Empty(500)));
    scene.mock.rule(Rule::nth(Fault::Plain, 2));
    assert_eq!(statuses(&scene, 1..=3), [500, 200, 500]);
    assert_eq!(scene.mock.journal()[1].fault, None);
    scene.mock.fault(Fault::Empty(502));
    scene.mock.clear_faults();
    assert_eq!(statuses(&scene, 4..=4), [200]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_too_many_is_refused_before_any_fault() {
    static NOW_S: AtomicU64 = AtomicU64::new(1_000_000_000);
    let now = || NOW_S.load(Ordering::Relaxed);
    let mock = Mock::start_with_clock(plain(), (Ipv4Addr::LOCALHOST, 0).into(), now).await.unwrap();
    let dialect = open(plain(), &mock.connection_toml());
    let scene = Scene { registration: plain(), mock, dialect };
    let limit = Limit { requests: 2, window_s: 60 };
    assert_eq!(scene.mock.limit(Some(Limits::Of(limit))), Some(limit));
    scene.mock.rule(Rule::nth(Fault::Empty(502), 3));
    let call = scene.call(9);
    assert_eq!(statuses(&scene, 1..=2), [200, 200]);
    assert_eq!(reply_of(&scene.mock, &call.request).status(), 429);
    assert!(scene.holds(&call));
    let entry = scene.last();
    assert_eq!((entry.kind, entry.fault, entry.asked.len(), entry.deleted.len()), (Kind::Throttled, None, 1, 0));
    assert_eq!(entry.at_ms, 1_000_000_000_000);
    NOW_S.store(1_000_000_060, Ordering::Relaxed);
    // The rule has not counted what was refused.
    assert_eq!(statuses(&scene, 3..=4), [502, 200]);
    assert_eq!(scene.mock.limit(None), None);
    assert_eq!(statuses(&scene, 5..=6), [200, 200]);
    assert_eq!(scene.mock.limit(Some(Limits::Vendor)), (plain().double)().limit());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_journal_says_what_a_request_was() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let call = scene.call(1);
        reply_of(&scene.mock, &call.request);
        let entry = scene.last();
        assert_eq!((entry.kind, entry.at_ms, entry.fault), (Kind::Delete, 1_000_000_000_000, None), "{}", scene.id());
        assert_eq!(entry.asked, [call.targets[0].identifier.clone()]);
        let elsewhere = Request::builder().method(Method::POST).uri("/nowhere").body(Bytes::new()).unwrap();
        reply_of(&scene.mock, &elsewhere);
        assert_eq!((scene.last().kind, scene.last().asked.len()), (Kind::Other, 0), "{}", scene.id());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reset_brings_back_the_start() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let (gone, waits) = (scene.call(1), scene.call(2));
        let (kept, again) = (some_id(registration, 3), some_id(registration, 4));
        reply_of(&scene.mock, &gone.request);
        scene.mock.seed(&kept, true);
        let n = scene.mock.journal().len();
        scene.mock.fault(Fault::Delay(Duration::from_millis(300)));
        let mut waiting = connect(&scene.mock, &waits.request);
        scene.mock.arrived(n + 1).await;
        scene.mock.rule(Rule::always(Fault::Stall));
        scene.mock.fault_always(Some(Fault::Stall));
        scene.mock.latency(Some(Latency::Fixed { ms: 60_000 }), 0);
        scene.mock.limit(Some(Limits::Of(Limit { requests: 0, window_s: 60 })));
        scene.mock.reset();
        assert!(scene.mock.journal().is_empty() && scene.mock.deleted().is_empty() && scene.mock.rules().is_empty());
        assert!(!scene.mock.holds(&kept) && scene.mock.contacts().is_empty());
        let before = scene.mock.journal().len();
        assert_eq!(reply_of(&scene.mock, &scene.call_for(&[again]).request).status(), 200);
        scene.mock.arrived(before + 1).await;
        // The answer that came late belongs to no entry of the new journal.
        let statuses: Vec<_> = scene.mock.journal().iter().map(|entry| entry.status).collect();
        let mut text = Vec::new();
        waiting.read_to_end(&mut text).unwrap();
        assert!(text.starts_with(b"HTTP/1.1 200"), "{}", scene.id());
        assert_eq!(scene.mock.journal().iter().map(|entry| entry.status).collect::<Vec<_>>(), statuses);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_there_can_be_listed_and_forgotten() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let (free, held) = (some_id(registration, 1), some_id(registration, 2));
        scene.mock.seed(&free, false);
        scene.mock.seed(&held, true);
        let mut contacts = scene.mock.contacts();
        contacts.sort_by_key(|(_, held)| *held);
        assert_eq!(contacts, [(free.clone(), false), (held, true)], "{}", scene.id());
        scene.mock.forget(&free);
        assert!(!scene.mock.holds(&free) && scene.mock.deleted().is_empty());
    }
}
