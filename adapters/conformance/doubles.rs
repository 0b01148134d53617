//! The laws of the doubles: what every mock of an upstream promises, checked over all dialects.
//!
//! What only one vendor does stands in that dialect's `tests.rs`.

use super::*;
use crate::contract::Plan;
use crate::dialect::{Asked, Double, Limit, Twist};

const TWISTS: [Twist; 3] = [Twist::WrongIds, Twist::MissingIds, Twist::Contradict];

/// The example, and where several contacts may share one fate, that too.
fn examples(registration: &Registration) -> Vec<Box<dyn Dialect>> {
    let mut all = vec![example(registration)];
    if registration.profile.evidence.contains(&Evidence::Aggregate) {
        let batch = Map::from_iter([("attribution".to_owned(), "batch".into())]);
        all.push(with_settings(registration, &batch));
    }
    all
}

/// Contacts that can be deleted, are held, are missing, and so on.
fn seed_in_turn(double: &mut dyn Double, identifiers: &[Identifier]) {
    for (n, identifier) in identifiers.iter().enumerate().filter(|(n, _)| n % 3 != 2) {
        double.seed(identifier, n % 3 == 1);
    }
}

/// The contacts of a plan and their calls, as requests that the double accepts.
fn requests(registration: &Registration, double: &mut dyn Double, plan: Plan) -> Vec<(Call, Request<Bytes>)> {
    assert!(plan.refused.is_empty());
    let signed = |call: Call| {
        let request = with_credential(registration, double, &call);
        (call, request)
    };
    plan.calls.into_iter().map(signed).collect()
}

fn identifiers(call: &Call) -> Vec<Identifier> {
    call.targets.iter().map(|target| target.identifier.clone()).collect()
}

/// Whether a finding says nothing false of a contact.
fn is_true(finding: &Finding, was_there: bool, is_there: bool) -> bool {
    let gone_now = was_there && !is_there;
    match finding {
        Finding::Deleted(_) => gone_now,
        Finding::NotFound(_) => !was_there,
        Finding::Fault(fault) => {
            (fault.code.outcome() == Outcome::Unknown || !gone_now) && (!fault.still_there || is_there)
        }
    }
}

#[test]
fn a_double_has_what_it_is_given_until_it_is_taken_away() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        for kind in kinds(registration) {
            let everyone = some_identifiers(registration, kind, 12);
            let mut double = (registration.double)();
            assert!(double.contacts().is_empty(), "{id}");
            seed_in_turn(&mut *double, &everyone);
            let expected = |n: usize| [Some(false), Some(true), None][n % 3];
            for (n, identifier) in everyone.iter().enumerate() {
                assert_eq!(double.held(identifier), expected(n), "{id} {kind:?}");
                assert_eq!(double.holds(identifier), expected(n).is_some(), "{id} {kind:?}");
            }
            let listed = double.contacts();
            assert_eq!(listed.len(), 8, "{id} {kind:?}");
            assert!(listed.iter().all(|(identifier, held)| double.held(identifier) == Some(*held)), "{id}");

            // The order is that of the contacts and not that in which they came.
            let mut other = (registration.double)();
            listed.iter().rev().for_each(|(identifier, held)| other.seed(identifier, *held));
            assert_eq!(other.contacts(), listed, "{id} {kind:?}");

            // The last word on a contact counts.
            double.seed(&everyone[0], true);
            assert_eq!((double.held(&everyone[0]), double.contacts().len()), (Some(true), 8), "{id}");
            everyone.iter().chain(&everyone).for_each(|identifier| double.forget(identifier));
            assert!(double.contacts().is_empty() && !everyone.iter().any(|each| double.holds(each)), "{id}");
        }
    }
}

#[test]
fn a_double_takes_any_identifier_without_harm() {
    for registration in DIALECTS {
        let mut double = (registration.double)();
        for identifier in hostile_identifiers() {
            double.seed(&identifier, false);
            assert!(double.held(&identifier).is_none_or(|held| !held));
            double.forget(&identifier);
            assert!(!double.holds(&identifier), "{}", registration.profile.id);
        }
        assert!(double.contacts().is_empty(), "{}", registration.profile.id);
    }
}

#[test]
fn a_double_knows_what_a_request_asks_for() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let double = (registration.double)();
        for kind in kinds(registration) {
            for dialect in examples(registration) {
                for call in dialect.plan(targets(some_identifiers(registration, kind, 3))).calls {
                    // Nobody is signed in: what is asked for is another matter than whether it is done.
                    assert_eq!(double.asked(&call.request), Asked::Delete(identifiers(&call)), "{id} {kind:?}");
                    let mut elsewhere = call.request.clone();
                    *elsewhere.uri_mut() = "https://upstream.example/nowhere".parse().unwrap();
                    assert_eq!(double.asked(&elsewhere), Asked::Other, "{id}");
                    let mut otherwise = call.request.clone();
                    *otherwise.method_mut() = http::Method::TRACE;
                    assert_eq!(double.asked(&otherwise), Asked::Other, "{id}");
                }
            }
        }
        let dialect = example(registration);
        let forms = registration.profile.auth.forms.iter().filter(|form| matches!(form.grant, Grant::SignIn));
        for form in forms {
            // The example's URLs, and any text for the rest.
            let credentials = &example_settings(registration)["credentials"];
            let member = |name| credentials.get(name).and_then(Value::as_str).unwrap_or("x");
            let members: Vec<_> = form.members.iter().map(|each| (each.name, member(each.name))).collect();
            let request = dialect.sign_in().unwrap().request(&Account(&members)).unwrap();
            assert_eq!(double.asked(&request), Asked::SignIn, "{id}");
        }
    }
}

#[test]
fn no_body_is_too_wild_for_a_double() {
    for registration in DIALECTS {
        let mut rng = fastrand::Rng::with_seed(8);
        let (_, call) = one_call(registration, IdentifierKind::Id, 3);
        let mut double = (registration.double)();
        let ours = identifiers(&call);
        ours.iter().for_each(|identifier| double.seed(identifier, false));
        let signed = with_credential(registration, &mut *double, &call);
        let bodies = wild_replies(registration, &mut rng).into_iter().map(|reply| reply.into_body());
        let own = std::iter::repeat_with(|| Bytes::from(mutated(call.request.body(), &mut rng))).take(200);
        for body in own.collect::<Vec<_>>().into_iter().chain(bodies) {
            let mut request = signed.clone();
            *request.body_mut() = body;
            let Asked::Delete(asked) = double.asked(&request) else { panic!("{}", registration.profile.id) };
            let answer = double.answer(&request, 1_000);
            assert!(answer.deleted.iter().all(|each| asked.contains(each)), "{}", registration.profile.id);
            answer.deleted.iter().for_each(|each| double.seed(each, false));
        }
    }
}

#[test]
fn what_was_deleted_was_asked_for_and_is_gone() {
    for registration in DIALECTS {
        for kind in kinds(registration) {
            for dialect in examples(registration) {
                let everyone = some_identifiers(registration, kind, 9);
                let mut double = (registration.double)();
                seed_in_turn(&mut *double, &everyone);
                let plan = dialect.plan(targets(everyone.clone()));
                let mut deleted = Vec::new();
                for (call, request) in requests(registration, &mut *double, plan) {
                    let asked = double.asked(&request);
                    let answer = double.answer(&request, 1_000);
                    assert_eq!(asked, Asked::Delete(identifiers(&call)));
                    assert_eq!(double.asked(&request), asked, "the answer changed the question");
                    assert!(answer.deleted.iter().all(|each| identifiers(&call).contains(each)));
                    deleted.extend(answer.deleted);
                }
                let expected: Vec<_> = everyone.iter().step_by(3).cloned().collect();
                assert_eq!(deleted, expected, "{} {kind:?}", registration.profile.id);
                assert_eq!(double.contacts().len(), 3, "the held ones are left");
            }
        }
    }
}

#[test]
fn the_reply_to_too_many_requests_is_read_as_that() {
    for registration in DIALECTS {
        let id = registration.profile.id;
        let double = (registration.double)();
        let (dialect, call) = one_call(registration, IdentifierKind::Id, 1);
        let wait = |wait_s| {
            let reading = dialect.interpret(&call, &double.throttled(wait_s));
            let Reading::TurnedAway(TurnedAway::Throttled(fault)) = reading else { panic!("{id}: {reading:?}") };
            fault.wait
        };
        let shown = |wait_s| format!("{:?}", double.throttled(wait_s));
        // Where the vendor's reply has no place for a wait, it is the same whatever is asked for.
        if shown(7) != shown(11) {
            assert_eq!((wait(7), wait(11)), (Some(Wait::For(7)), Some(Wait::For(11))), "{id}");
        }
        assert_eq!(double.throttled(7).status(), StatusCode::TOO_MANY_REQUESTS, "{id}");
        for twist in TWISTS {
            assert!(double.twist(twist, &double.throttled(7)).is_none(), "{id}");
        }
    }
}

#[test]
fn a_doubles_limit_is_the_profiles_pace() {
    for registration in DIALECTS {
        let pace = registration.profile.pace.map(|pace| Limit { requests: pace.calls, window_s: pace.per_s.into() });
        assert_eq!((registration.double)().limit(), pace, "{}", registration.profile.id);
    }
}

/// One call for contacts of which some can be deleted, and its reply with one twist. Nothing false may be read from it.
fn twisted(registration: &Registration, dialect: &dyn Dialect, everyone: &[Identifier], all: bool, twist: Twist) {
    let name = format!("{} {twist:?} of {}", registration.profile.id, everyone.len());
    let mut double = (registration.double)();
    if all {
        everyone.iter().for_each(|identifier| double.seed(identifier, false));
    } else {
        seed_in_turn(&mut *double, everyone);
    }
    let plan = dialect.plan(targets(everyone.to_vec()));
    for (call, request) in requests(registration, &mut *double, plan) {
        let before: Vec<_> = call.targets.iter().map(|target| double.holds(&target.identifier)).collect();
        let answer = double.answer(&request, 1_000);
        let is_status = registration.profile.evidence == [Evidence::Status];
        let Some(reply) = double.twist(twist, &answer.response) else {
            assert!(answer.deleted.is_empty() || (is_status && twist != Twist::Contradict), "{name}: nothing to twist");
            continue;
        };
        assert!(!answer.deleted.is_empty(), "{name}: twists what says nothing");
        assert_eq!(reply.status(), StatusCode::OK, "{name}");
        let text = String::from_utf8_lossy(reply.body()).to_ascii_lowercase();
        let findings = dialect.interpret(&call, &reply).findings(&call);
        let mut doubted = 0;
        for ((target, finding), was_there) in call.targets.iter().zip(&findings).zip(before) {
            let is_there = double.holds(&target.identifier);
            assert!(is_true(finding, was_there, is_there), "{name}: {finding:?}");
            if matches!(finding, Finding::Deleted(_)) {
                assert_eq!(twist, Twist::MissingIds, "{name}: believed");
                assert!(text.contains(&target.identifier.text().to_ascii_lowercase()), "{name}: not named");
            } else if was_there && !is_there {
                doubted += 1;
            }
        }
        assert!(doubted > 0, "{name}: the twist took nothing away");
    }
}

#[test]
fn a_twisted_reply_makes_nobody_say_what_is_not_so() {
    for registration in DIALECTS {
        for kind in kinds(registration) {
            for dialect in examples(registration) {
                for n in [1, 2, 3, 9] {
                    let everyone = some_identifiers(registration, kind, n);
                    for twist in TWISTS {
                        twisted(registration, &*dialect, &everyone, true, twist);
                        twisted(registration, &*dialect, &everyone, false, twist);
                    }
                }
            }
        }
    }
}

#[test]
fn a_refusal_cannot_be_twisted() {
    for registration in DIALECTS {
        let (_, call) = one_call(registration, IdentifierKind::Id, 2);
        let mut double = (registration.double)();
        let request = with_credential(registration, &mut *double, &call);
        for reply in [double.answer(&call.request, 1_000).response, double.answer(&request, 1_000).response] {
            for twist in TWISTS {
                assert!(double.twist(twist, &reply).is_none(), "{} {twist:?}", registration.profile.id);
            }
        }
    }
}
