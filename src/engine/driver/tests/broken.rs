//! Bugs, in virtual time: a task panics, and nothing that was said or is said later is false for it.
//!
//! The engine, the way out and a dialect's double are the real ones; the panic is put where the wire, the dialect or the way
//! to the connections is. Truth is the double's.

use std::sync::Mutex;

use adapters::{Call, Dialect, Double, Evidence, Grant, Outcome, Plan, Profile, Reading, Registration, SignIn, Target};
use bytes::Bytes;

use super::*;
use crate::engine::Settled;
use crate::outbound::{Outbound, Rules, StandIn, sample, sample_connection};
use crate::store::Results;

/// Where the bug is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    /// Before the upstream hears of the call.
    Sending,
    /// After it has carried it out.
    Receiving,
    /// When its reply is read.
    Reading,
}

/// So many panics are left.
#[derive(Debug, Default)]
struct Left(AtomicUsize);

impl Left {
    fn panic(&self) {
        let one_less = |left: usize| left.checked_sub(1);
        if self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            panic!("a bug");
        }
    }
}

/// A dialect with a bug where it reads replies.
#[derive(Debug)]
struct Buggy {
    inner: Arc<dyn Dialect>,
    left: Arc<Left>,
}

impl Dialect for Buggy {
    fn profile(&self) -> &'static Profile {
        self.inner.profile()
    }
    fn plan(&self, targets: Vec<Target>) -> Plan {
        self.inner.plan(targets)
    }
    fn interpret(&self, call: &Call, reply: &http::Response<Bytes>) -> Reading {
        self.left.panic();
        self.inner.interpret(call, reply)
    }
    fn contacts_of(&self, request: &http::Request<Bytes>) -> Option<Vec<Identifier>> {
        self.inner.contacts_of(request)
    }
    fn max_contacts_per_call(&self) -> usize {
        self.inner.max_contacts_per_call()
    }
    fn sign_in(&self) -> Option<&dyn SignIn> {
        self.inner.sign_in()
    }
}

/// A dialect with one contact a call and a fixed credential.
fn registration() -> &'static Registration {
    sample(|grant| matches!(grant, Grant::Fixed))
}

fn some_id() -> Identifier {
    let forms = ["7000001", "00000000000000000000000a", "91c615e3-1040-4815-8ecb-00000000000a"];
    let mut ids = forms.into_iter().map(|text| Identifier::Id(text.into()));
    ids.find(|id| registration().profile.admit(id).is_ok()).unwrap()
}

fn bounds() -> Bounds {
    Bounds {
        deadline_ms: 86_400_000,
        max_open_contacts: 10,
        max_open_contacts_per_tenant: 10,
        max_worked_contacts: 10,
        max_worked_contacts_per_tenant: 10,
    }
}

/// Carries out one deletion of one contact, with so many panics on its way: its result, the calls that arrived, and whether
/// the upstream still has the contact.
async fn carried_out(bug: Bug, panics: usize) -> (Settled, usize, bool) {
    clock::now();
    let left = Arc::new(Left(AtomicUsize::new(panics)));
    let calls = Arc::new(AtomicUsize::new(0));
    let double: Arc<Mutex<Box<dyn Double>>> = Arc::new(Mutex::new((registration().double)()));
    let contact = some_id();
    double.lock().unwrap().seed(&contact, false);

    let mut connection = sample_connection(registration());
    if bug == Bug::Reading {
        connection.dialect = Arc::new(Buggy { inner: connection.dialect, left: Arc::clone(&left) });
    }
    let connection = Arc::new(connection);
    let stand_in: StandIn = {
        let (double, calls) = (Arc::clone(&double), Arc::clone(&calls));
        Arc::new(move |request| {
            let (double, calls, left) = (Arc::clone(&double), Arc::clone(&calls), Arc::clone(&left));
            Box::pin(async move {
                if bug == Bug::Sending {
                    left.panic();
                }
                calls.fetch_add(1, Ordering::Relaxed);
                let reply = double.lock().unwrap().answer(&request, 1_800_000_000).response;
                if bug == Bug::Receiving {
                    left.panic();
                }
                Ok(reply)
            })
        })
    };
    let rules = Rules { max_in_flight: 1, max_in_flight_per_tenant: 1, breaker_failures: 5, breaker_open_ms: 30_000 };
    let upstream = Outbound::new(rules).open(&connection).unwrap().standing_in(stand_in, true);
    let route = Route { connection, upstream: Arc::new(upstream) };

    let engine = Arc::new(Engine::new(Arc::new(Memory::default()), bounds()));
    let (dispatching, routes) = (Arc::clone(&engine), vec![Some(route.clone())]);
    engine.tend(move || {
        let routes = routes.clone();
        Arc::clone(&dispatching).dispatch(move |_| routes.clone())
    });
    let id = DeletionId::new();
    let tenant = &route.connection.tenant;
    let head = Head {
        id,
        tenant: Arc::clone(tenant),
        created_ms: clock::unix_ms(),
        reason: None,
        reference: None,
        shares: vec!["c".into()],
    };
    let last = Arc::new(Part::of(0, 0, vec![Contact::bare(0, contact.clone())], Vec::new()));
    let accept = Accept { head, last, claim: None, hold: false };
    let handle = engine.submit(accept, engine.draft(id, tenant), vec![route.clone()]);
    assert_eq!(handle.accepted.await.unwrap(), Ok(Accepted::New));
    if panics > 0 {
        // Whoever waits for it here learns that this work has no end, and of the deletion that it has none yet.
        assert!(handle.finished.unwrap().wait_for(Option::is_some).await.is_err());
        assert_eq!(engine.read(id).await.unwrap().unwrap().finished_ms, None);
        assert_eq!(engine.page(id, 0).await.unwrap().unwrap().results, Results::open(1));
    }
    assert!(engine.wait(id, Duration::from_secs(3_600)).await, "{bug:?}: it is not taken up again");
    let settled = engine.page(id, 0).await.unwrap().unwrap().results.get(0).unwrap().clone();
    assert!(engine.healthy() && engine.has_room(tenant, 10), "{bug:?}: it left something behind");
    engine.idle().await;
    let there = double.lock().unwrap().holds(&contact);
    (settled, calls.load(Ordering::Relaxed), there)
}

#[tokio::test(start_paused = true)]
async fn what_was_in_flight_when_its_work_broke_off_is_in_doubt() {
    for bug in [Bug::Sending, Bug::Receiving, Bug::Reading] {
        let told = |settled: &Settled| (settled.outcome, settled.evidence, settled.attempts);
        let (plain, calls, there) = carried_out(bug, 0).await;
        assert_eq!((told(&plain).0, told(&plain).2, calls, there), (Outcome::Deleted, 1, 1, false), "{bug:?}");
        let (settled, calls, there) = carried_out(bug, 1).await;
        let arrived = if bug == Bug::Sending { 1 } else { 2 };
        assert_eq!((settled.attempts, calls, there), (2, arrived, false), "{bug:?}: {settled:?}");
        // That it is gone by then may be our own doing, and is said to be.
        let honest = match bug {
            Bug::Sending => settled.outcome == Outcome::Deleted,
            _ => told(&settled) == (Outcome::NotFound, Evidence::Inferred, 2),
        };
        assert!(honest, "{bug:?}: {settled:?}");
        // A bug that is always there: an end all the same, and one that claims nothing.
        let (settled, calls, there) = carried_out(bug, 1_000).await;
        assert_eq!(settled.outcome, Outcome::Unknown, "{bug:?}: {settled:?}");
        assert_eq!((calls > 0, there), (bug != Bug::Sending, bug == Bug::Sending), "{bug:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_of_the_engine_that_panics_is_begun_again_and_keeps_nothing() {
    // The clock of this process begins when it is first read: not later than the other tests' time.
    clock::now();
    let ledger = Held::new(1_000);
    let id = accepted(&ledger).await;
    let engine = Arc::new(Engine::new(Arc::clone(&ledger) as Arc<dyn Ledger>, bounds()));
    let (dispatching, left) = (Arc::clone(&engine), Arc::new(Left(AtomicUsize::new(3))));
    engine.tend(move || {
        let left = Arc::clone(&left);
        Arc::clone(&dispatching).dispatch(move |head| {
            left.panic();
            vec![None; head.shares.len()]
        })
    });
    ledger.claimed.notified().await;
    // The fourth time somebody finds where it goes; nothing can be sent there, so it waits to be cancelled.
    let enough = async {
        while ledger.claims.load(Ordering::Relaxed) < 4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(3_600), enough).await.is_ok(), "nobody claims any more");
    engine.cancel(id).await.unwrap();
    assert!(engine.wait(id, Duration::from_secs(600)).await, "what was claimed when the task broke off is lost");
    engine.idle().await;
}
