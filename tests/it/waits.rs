//! What a share tells the rest of its connection about a reply, beside what becomes of its own contacts.
//!
//! It drives the state machine itself: no socket, and no time but the one that is said.

use std::sync::Arc;

use adapters::{DIALECTS, Dialect, Identifier, IdentifierKind, Slot, Target};
use bytes::Bytes;
use http::{Response, StatusCode};
use onedelete::engine::{Backoff, Moment, Policy, Share, Signal, Step};
use serde_json::Value;

use crate::support::ids;

/// What a share says of a reply to its first call.
fn signal(dialect: &Arc<dyn Dialect>, status: StatusCode, retry_after: Option<&'static str>) -> Signal {
    let known = ids(dialect.profile().id, 1);
    assert_eq!(dialect.profile().identifiers[0].kind, IdentifierKind::Id);
    let targets = vec![Target { slot: Slot(0), identifier: Identifier::Id(known[0].as_str().into()) }];
    let backoff = Backoff { base_ms: 500, cap_ms: 60_000 };
    let policy = Policy { max_attempts: 3, doubt_ms: 0, backoff, deadline_ms: u64::MAX, renewable: false };
    let mut share = Share::new(Arc::clone(dialect), policy, targets);
    let now = Moment { ms: 1_000, unix_s: 1_700_000_000 };
    let Step::Send(ticket, _) = share.poll(now) else { panic!("it is not sent") };
    let mut reply = Response::new(Bytes::new());
    *reply.status_mut() = status;
    if let Some(value) = retry_after {
        reply.headers_mut().insert("retry-after", http::HeaderValue::from_static(value));
    }
    share.on_reply(ticket, &reply, now, &mut fastrand::Rng::with_seed(1))
}

#[test]
fn who_is_told_to_slow_down_slows_down_as_a_whole() {
    for registration in DIALECTS {
        let table: toml::Table = registration.example.parse().unwrap();
        let Ok(Value::Object(mut settings)) = serde_json::to_value(table) else { panic!() };
        settings.retain(|key, _| !["dialect", "credentials", "allow_http", "allow_private"].contains(&key.as_str()));
        let dialect: Arc<dyn Dialect> = Arc::from((registration.open)(Value::Object(settings)).unwrap());
        let id = registration.profile.id;
        let throttled = signal(&dialect, StatusCode::TOO_MANY_REQUESTS, Some("7"));
        assert!(throttled.hold_ms.is_some_and(|ms| (7_000..=7_500).contains(&ms)), "{id}: {throttled:?}");
        // Also where it is not said for how long.
        assert!(signal(&dialect, StatusCode::TOO_MANY_REQUESTS, None).hold_ms.is_some(), "{id}");
        // An error is the breaker's business, and may ask for time besides.
        let error = signal(&dialect, StatusCode::BAD_GATEWAY, None);
        assert!(error.failing && error.hold_ms.is_none(), "{id}: {error:?}");
        let error = signal(&dialect, StatusCode::BAD_GATEWAY, Some("7"));
        assert!(error.failing && error.hold_ms.is_some_and(|ms| (7_000..=7_500).contains(&ms)), "{id}: {error:?}");
        assert!(signal(&dialect, StatusCode::UNAUTHORIZED, None).credential_refused, "{id}");
    }
}
