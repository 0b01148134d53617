//! Several connections to one device: who signs in, how often, and never two at once. The device's double says what it saw.

use adapters::FaultCode;

use super::*;
use crate::engine::Lost;

/// The dialect whose upstreams are devices.
fn registration() -> &'static Registration {
    let is_one = |each: &&'static Registration| {
        sample_connection(each).dialect.sign_in().is_some_and(|sign_in| sign_in.is_a_device())
    };
    DIALECTS.iter().find(is_one).unwrap()
}

/// A connection of this tenant that signs in with this password; the double takes the one of `RIGHT`.
pub(super) fn connection(tenant: &str, password: &str) -> Connection {
    let registration = registration();
    let form = registration.profile.auth.forms.iter().find(|form| matches!(form.grant, Grant::SignIn)).unwrap();
    let member = |member: &adapters::Member| {
        let text = if member.secret { password } else { "admin" };
        (member.name, CredentialValue::Secret(text.to_owned().into()))
    };
    let credentials = Credentials { grant: &form.grant, members: form.members.iter().map(member).collect() };
    Connection { tenant: tenant.into(), credentials, ..sample_connection(registration) }
}

const RIGHT: &str = "door-demo-password";

/// A device whose sign-ins are counted, and of which no two may ever be under way.
struct Watch {
    crm: Arc<Crm>,
    at_once: Arc<AtomicUsize>,
}

impl Watch {
    fn new() -> Self {
        Self { crm: Crm::new(registration(), Duration::from_secs(5)), at_once: Arc::default() }
    }

    fn open(&self, outbound: &Outbound, connection: Connection) -> Upstream {
        let (inner, at_once) = (self.crm.stand_in(), Arc::clone(&self.at_once));
        let stand_in: StandIn = Arc::new(move |request| {
            let (inner, at_once) = (Arc::clone(&inner), Arc::clone(&at_once));
            Box::pin(async move {
                if request.method() == http::Method::DELETE {
                    return inner(request).await;
                }
                assert_eq!(at_once.fetch_add(1, Ordering::Relaxed), 0, "two sign in at once");
                let reply = inner(request).await;
                at_once.fetch_sub(1, Ordering::Relaxed);
                reply
            })
        });
        outbound.open(&Arc::new(connection)).unwrap().standing_in(stand_in, true)
    }
}

/// The credential that a call would show, or for how many seconds there is none.
async fn shown(upstream: &Upstream, connection: &Connection, watch: &Watch) -> Result<String, u64> {
    match upstream.admit(1, None).await {
        Ok(permit) => {
            upstream.send(&permit, &a_call(connection, 1)).await.unwrap();
            Ok(watch.crm.shown.lock().unwrap().last().unwrap().clone())
        }
        Err(Lost::NotSent { fault, .. }) if fault.code == FaultCode::CredentialUnavailable => match fault.wait {
            Some(adapters::Wait::For(seconds)) => Err(seconds),
            other => panic!("{other:?}"),
        },
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn connections_to_one_device_share_a_sign_in_and_strangers_take_turns() {
    let (outbound, watch) = (outbound(100), Watch::new());
    let open = |tenant: &str, password: &str| watch.open(&outbound, connection(tenant, password));
    let (first, second, stranger) = (open("acme", RIGHT), open("acme", RIGHT), open("beta", "wrong"));
    let sample = connection("acme", RIGHT);
    let told = join_all([&first, &second, &stranger].map(|upstream| shown(upstream, &sample, &watch))).await;
    assert_eq!(watch.crm.sign_ins(), 2, "one for those with the same account, one for the other");
    assert!(told[0].is_ok() && told[0] == told[1], "{told:?}");
    assert_eq!(told[2], Err(60), "nobody gets by on another's token");
    // A second tenant with the very same account is the same account; the refused one stays refused, and is alone with it.
    let third = open("gamma", RIGHT);
    assert_eq!(shown(&third, &sample, &watch).await, told[0]);
    let again = open("beta", "wrong");
    assert!(matches!(shown(&again, &sample, &watch).await, Err(1..=60)));
    assert_eq!(watch.crm.sign_ins(), 2, "a refused account is tried once, whoever has it");
}

#[tokio::test(start_paused = true)]
async fn a_device_that_locks_somebody_out_is_not_asked_by_others() {
    let (outbound, watch) = (outbound(100), Watch::new());
    let sample = connection("acme", RIGHT);
    let holder = watch.open(&outbound, connection("acme", RIGHT));
    assert!(shown(&holder, &sample, &watch).await.is_ok());
    // Wrong passwords, each once, until the device says that it takes nobody.
    let mut wrong = 0;
    let lock_s = loop {
        wrong += 1;
        assert!(wrong < 20, "the double never locks");
        let upstream = watch.open(&outbound, connection("beta", &format!("wrong-{wrong}")));
        match shown(&upstream, &sample, &watch).await {
            Err(60) => {}
            Err(lock_s) => break lock_s,
            Ok(_) => panic!("a wrong password was taken"),
        }
    };
    let asked = watch.crm.sign_ins();
    let upstream = watch.open(&outbound, connection("gamma", "never-tried"));
    let told = shown(&upstream, &sample, &watch).await;
    assert!(matches!(told, Err(left_s) if left_s <= lock_s && left_s + 60 > lock_s), "{told:?} of {lock_s}");
    assert_eq!(watch.crm.sign_ins(), asked, "a device that is locked was asked");
    // Whoever has a token goes on.
    assert!(shown(&holder, &sample, &watch).await.is_ok());
    // Once it is over, somebody may ask again.
    sleep(Duration::from_secs(lock_s + 1)).await;
    assert!(shown(&upstream, &sample, &watch).await.is_err());
    assert_eq!(watch.crm.sign_ins(), asked + 1);
}
