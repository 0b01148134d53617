//! Five readers of replies: whatever the bytes, no contact is called deleted, or not there, without proof of it.
//!
//! An input is a case, a number of contacts, a status, a content coding, a wait, and the body.

#![no_main]

use adapters::{Finding, Outcome, Reading, SignInReading, TurnedAway};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use libfuzzer_sys::fuzz_target;
use onedelete_fuzz::calls::cases;
use onedelete_fuzz::proof::{Reply, with_a_stranger};
use onedelete_fuzz::seeds::{self, STATUSES};

fuzz_target!(init: { seeds::write(seeds::replies) }, |data: &[u8]| {
    let [case, contacts, status, coding, wait, body @ ..] = data else { return };
    let cases = cases();
    let case = cases[*case as usize % cases.len()];
    let dialect = case.dialect();
    let call = case.call(&*dialect, *contacts as usize % 4 + 1);
    let id = case.registration.profile.id;

    let mut reply = Response::new(Bytes::copy_from_slice(body));
    *reply.status_mut() = StatusCode::from_u16(STATUSES[*status as usize % STATUSES.len()]).expect("a status");
    match coding {
        224.. => drop(reply.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"))),
        192.. => drop(reply.headers_mut().insert("content-encoding", HeaderValue::from_static("identity"))),
        _ => {}
    }
    if let 1..=9 = wait {
        reply.headers_mut().insert("retry-after", HeaderValue::from(u16::from(*wait)));
    }

    let reading = dialect.interpret(&call, &reply);
    let shown = format!("{reading:?}").to_ascii_lowercase();
    if let Reading::TurnedAway(TurnedAway::Credential(fault) | TurnedAway::Throttled(fault) | TurnedAway::Fault(fault)) =
        &reading
    {
        assert_ne!(fault.code.outcome(), Outcome::Unknown, "{id}: a call that was not processed left nothing in doubt");
    }
    let findings = reading.findings(&call);
    assert_eq!(findings.len(), call.targets.len(), "{id}");
    let proof = Reply::of(&reply);
    for (position, finding) in findings.iter().enumerate() {
        let text = call.targets[position].identifier.text().to_ascii_lowercase();
        assert!(!shown.contains(&text), "{id}: a reading repeats an identifier");
        match finding {
            Finding::Deleted(how) => {
                assert!(case.registration.profile.evidence.contains(how), "{id}: evidence that the profile does not name");
                assert!(proof.can_delete(id, &call, position), "{id}: deleted without proof");
            }
            Finding::NotFound(_) => assert!(proof.can_miss(id, &call, position), "{id}: not found without proof"),
            Finding::Fault(_) => {}
        }
    }

    if let Some(changed) = with_a_stranger(id, &reply) {
        let after = dialect.interpret(&call, &changed).findings(&call);
        for (before, after) in findings.iter().zip(&after) {
            let absent = |finding: &Finding| !matches!(finding, Finding::Fault(_));
            assert_eq!(absent(before), absent(after), "{id}: somebody else's success changed this contact's outcome");
        }
    }

    if let Some(sign_in) = dialect.sign_in()
        && let SignInReading::Token { value, .. } = sign_in.read(&reply)
    {
        assert!(reply.status().is_success(), "{id}: a token under {}", reply.status());
        assert!(HeaderValue::try_from(&value).is_ok() && !value.is_empty(), "{id}: a token that no header can carry");
    }
});
