//! Several mocks: on one port, with one scenario, and with contacts from a file.

use super::*;

async fn on_one_port() -> Mocks {
    let named = DIALECTS.iter().map(Named::of);
    let twin = Named { name: "twin-2".to_owned(), registration: &DIALECTS[2] };
    Mocks::start_on_one_port(named.chain([twin]), (Ipv4Addr::LOCALHOST, 0).into(), None).await.unwrap()
}

/// Sends a delete for one contact, that the upstream has, through its own connection; the reply's status.
fn delete(mock: &Mock, n: usize) -> (Vec<Finding>, u16) {
    let registration = mock.registration();
    let dialect = open(registration, &mock.connection_toml());
    let identifier = some_id(registration, n);
    mock.seed(&identifier, false);
    let mut call = dialect.plan(vec![Target { slot: Slot(0), identifier }]).calls.remove(0);
    let ask = |request| reply_of(mock, &request);
    call.request = with_credential(registration, &*dialect, &mock.connection_toml(), call.request, ask);
    let reply = reply_of(mock, &call.request);
    let status = reply.status().as_u16();
    (dialect.interpret(&call, &reply).findings(&call), status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_dialect_can_stand_behind_a_prefix() {
    let mocks = on_one_port().await;
    let addresses: Vec<_> = mocks.iter().map(|(_, mock)| mock.addr()).collect();
    assert!(addresses.len() == 6 && addresses.iter().all(|addr| *addr == addresses[0]));
    for (name, mock) in mocks.iter() {
        assert!(mock.base_url().starts_with(&format!("http://{}/{name}", mock.addr())), "{}", mock.base_url());
        let (findings, _) = delete(mock, 1);
        assert!(matches!(findings[..], [Finding::Deleted(_)]), "{name}: {findings:?}");
        let entry = mock.journal().pop().unwrap();
        assert!(!entry.path.starts_with(&format!("/{name}")), "the double sees {}", entry.path);
        assert_eq!((entry.kind, mock.deleted().len()), (Kind::Delete, 1), "{name}");
    }
    let (first, _) = (mocks.iter().next().unwrap().1, ());
    for path in ["/", "/nobody/x", "/twin-20/x", "/?a=b"] {
        let request = Request::builder().method(Method::DELETE).uri(path).body(Bytes::new()).unwrap();
        assert_eq!(reply_of(first, &request).status(), 404, "{path}");
    }
    let (_, twin) = mocks.iter().last().unwrap();
    for path in ["/twin-2", "/twin-2?a=b", "/twin-2/"] {
        let request = Request::builder().method(Method::GET).uri(path).body(Bytes::new()).unwrap();
        reply_of(first, &request);
        assert!(twin.journal().pop().unwrap().path.starts_with('/'), "{path}");
    }
    assert_eq!(twin.journal().len(), 4);
    mocks.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn names_are_checked() {
    let start = |names: &[&str]| {
        let named = names.iter().map(|name| Named { name: (*name).to_owned(), registration: &DIALECTS[0] });
        let named: Vec<_> = named.map(|named| (named, (Ipv4Addr::LOCALHOST, 0).into())).collect();
        Mocks::start(named, None)
    };
    for names in [&["a", "a"][..], &[""], &["A"], &["a/b"], &["é"], &[&"x".repeat(65)]] {
        assert_eq!(start(names).await.map(drop).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{names:?}");
    }
    let mocks = start(&["a", "b-2"]).await.unwrap();
    assert_ne!(mocks.find("a").unwrap().addr(), mocks.find("b-2").unwrap().addr());
    assert_eq!(mocks.find("c").unwrap_err().known, ["a", "b-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_upstream_takes_its_own_steps() {
    let mocks = on_one_port().await;
    let one = mocks.find(DIALECTS[1].profile.id).unwrap();
    let other = mocks.find("twin-2").unwrap();
    let mut scenario = Scenario::default()
        .then(DIALECTS[1].profile.id, Fault::Empty(502))
        .then("twin-2", Fault::Plain)
        .then("twin-2", Fault::Empty(503))
        .then(DIALECTS[1].profile.id, Fault::Empty(504));
    scenario.steps[3].times = 2;
    mocks.play(scenario.clone()).unwrap();
    one.fault_always(Some(Fault::Empty(599)));
    one.rule(Rule::always(Fault::Empty(598)));
    let taken = || mocks.progress().steps.iter().map(|(_, taken)| *taken).collect::<Vec<_>>();
    let done = || mocks.check(&[Question::ScenarioDone.everywhere()]).unwrap()[0].ok;
    assert!(taken() == [0, 0, 0, 0] && !done());
    assert_eq!([1, 2].map(|n| delete(other, n).1), [200, 503]);
    assert_eq!(taken(), [0, 1, 1, 0]);
    assert!(mocks.check(&[Question::ScenarioDone.at("twin-2")]).unwrap()[0].ok && !done());
    // What is no delete takes no step.
    let elsewhere = Request::builder().method(Method::GET).uri("/twin-2/nowhere").body(Bytes::new()).unwrap();
    reply_of(other, &elsewhere);
    assert_eq!([1, 2, 3, 4].map(|n| delete(one, n).1), [502, 504, 504, 598]);
    assert!(taken() == [1, 1, 1, 2] && mocks.progress().is_done() && done());
    scenario.steps[0].upstream = "nobody".to_owned();
    assert!(mocks.play(scenario).is_err() && done(), "the one before is still there");
    mocks.reset();
    assert!(mocks.progress().steps.is_empty() && one.journal().is_empty() && one.rules().is_empty());
    assert!(!done(), "there is no scenario");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn contacts_come_from_a_file() {
    let mocks = on_one_port().await;
    let text = "{\"upstream\":\"twin-2\",\"id\":7}\n\n{\"upstream\":\"twin-2\",\"id\":\"8\",\"held\":true}\n";
    assert_eq!(mocks.seed_lines(text).unwrap(), 2);
    let twin = mocks.find("twin-2").unwrap();
    assert_eq!(twin.contacts(), [(Identifier::Id("7".into()), false), (Identifier::Id("8".into()), true)]);
    for (text, expected) in [
        ("{\"upstream\":\"twin-2\",\"id\":\"9\"}\n{", "line 2: "),
        ("{\"id\":\"9\"}", "line 1: `upstream` is missing"),
        ("{\"upstream\":\"nobody\",\"id\":\"9\"}", "line 1: there is no upstream with this name"),
        ("{\"upstream\":\"twin-2\",\"id\":\"s3cret\"}", "line 1: `id` must be "),
        ("{\"upstream\":\"twin-2\",\"phone\":\"+49\"}", "line 1: this upstream names contacts by id"),
        ("{\"upstream\":\"twin-2\",\"id\":\"9\",\"hold\":true}", "line 1: /hold: unknown field"),
    ] {
        let err = mocks.seed_lines(text).unwrap_err().to_string();
        assert!(err.starts_with(expected) && !err.contains("s3cret"), "{err}");
    }
    assert_eq!(twin.contacts().len(), 2, "a file with a mistake seeds nothing");
}
