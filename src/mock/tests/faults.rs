//! The faults that need more than a status: resets, slow bodies, lies, broken contracts, replies of the test's own, and
//! requests that wait.

use adapters::{FaultCode, Twist};
use http::HeaderMap;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reset_is_no_end_in_order() {
    for registration in DIALECTS {
        for commit in [false, true] {
            let scene = Scene::of(registration).await;
            let call = scene.call(1);
            scene.mock.fault(Fault::Reset { commit });
            let mut bytes = Vec::new();
            let ended = connect(&scene.mock, &call.request).read_to_end(&mut bytes).map_err(|err| err.kind());
            assert_eq!((ended, bytes.len()), (Err(io::ErrorKind::ConnectionReset), 0), "{}", scene.id());
            assert_eq!(!scene.holds(&call), commit, "{}", scene.id());
            assert_eq!((scene.last().fault, scene.last().status), (Some("reset"), None));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_slow_reply_is_whole_in_the_end() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let (plain, slow) = (scene.call(1), scene.call(1));
        let plain = reply_of(&scene.mock, &plain.request);
        scene.mock.seed(&slow.targets[0].identifier, false);
        let time = Duration::from_micros(200);
        scene.mock.fault(Fault::SlowDrip(time));
        let started = Instant::now();
        let reply = reply_of(&scene.mock, &slow.request);
        assert!(started.elapsed() >= time * reply.body().len() as u32);
        assert_eq!((reply.status(), reply.body().len()), (plain.status(), plain.body().len()), "{}", scene.id());
        assert!(!scene.holds(&slow));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_slow_reply_comes_byte_by_byte() {
    let scene = Scene::of(&DIALECTS[0]).await;
    let call = scene.call(1);
    scene.mock.fault(Fault::SlowDrip(Duration::from_millis(1)));
    let mut stream = connect(&scene.mock, &call.request);
    let (mut pieces, mut some) = (0, [0; 4_096]);
    while stream.read(&mut some).unwrap() > 0 {
        pieces += 1;
    }
    // The head, and bytes of which the machine may have put a few together.
    assert!(pieces > 5, "{pieces}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_vendors_word_for_too_many_is_read_as_such() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let call = scene.call(1);
        scene.mock.fault(Fault::Throttle(7));
        let findings = scene.findings(&call);
        assert!(
            matches!(&findings[..], [Finding::Fault(fault)] if fault.code == FaultCode::UpstreamRateLimited),
            "{}: {findings:?}",
            scene.id()
        );
        assert!(scene.holds(&call));
        assert_eq!((scene.last().fault, scene.last().kind), (Some("throttle"), Kind::Delete));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn accepted_is_carried_out_and_not_said() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let call = scene.call(1);
        scene.mock.fault(Fault::Accept202);
        let findings = scene.findings(&call);
        assert!(
            matches!(&findings[..], [Finding::Fault(fault)] if fault.code == FaultCode::AcceptedUnconfirmed),
            "{}: {findings:?}",
            scene.id()
        );
        assert!(!scene.holds(&call));
        assert_eq!((scene.last().fault, scene.last().status), (Some("accept_202"), Some(202)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_lie_keeps_the_contact() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let call = scene.call(1);
        scene.mock.fault(Fault::Lie);
        assert!(matches!(scene.findings(&call)[..], [Finding::Deleted(_)]), "{}", scene.id());
        assert!(scene.holds(&call) && scene.mock.deleted().is_empty());
        assert_eq!(
            (scene.last().fault, scene.last().fault_applied, scene.last().deleted.len()),
            (Some("lie"), true, 0)
        );
        // The contact is as it was: it can be deleted.
        assert!(matches!(scene.findings(&call)[..], [Finding::Deleted(_)]), "{}", scene.id());
        // And where there is nothing to delete, there is nothing to lie about.
        scene.mock.fault(Fault::Lie);
        assert!(!matches!(scene.findings(&call)[..], [Finding::Deleted(_)]), "{}", scene.id());
        assert_eq!((scene.last().fault, scene.last().fault_applied), (Some("lie"), false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_part_that_fails_is_held_for_one_call() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let ids = [1, 2, 3].map(|n| some_id(registration, n));
        let call = scene.call_for(&ids);
        let all = call.targets.len();
        let failing = call.targets[0].identifier.clone();
        scene.mock.fault(Fault::Partial(vec![failing.clone()]));
        let findings = scene.findings(&call);
        let deleted = findings.iter().filter(|finding| matches!(finding, Finding::Deleted(_))).count();
        assert_eq!(deleted, all - 1, "{}: {findings:?}", scene.id());
        assert!(scene.holds(&call));
        assert_eq!(scene.last().deleted.len(), all - 1);
        assert_eq!((scene.last().fault, scene.last().fault_applied), (Some("partial"), true));
        // Then it can be deleted.
        let findings = scene.findings(&scene.call_for(&[failing]));
        assert!(matches!(findings[..], [Finding::Deleted(_)]), "{}: {findings:?}", scene.id());
        // Of a call that does not ask for it, nothing fails.
        scene.mock.seed(&ids[0], false);
        scene.mock.fault(Fault::Partial(vec![ids[0].clone()]));
        assert!(matches!(scene.findings(&scene.call(9))[..], [Finding::Deleted(_)]));
        assert_eq!((scene.last().fault, scene.last().fault_applied), (Some("partial"), false));
        assert!(scene.mock.holds(&ids[0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_broken_contract_goes_out_where_the_vendors_reply_can_be_broken_so() {
    for registration in DIALECTS {
        for (fault, twist) in [
            (Fault::WrongIds, Twist::WrongIds),
            (Fault::MissingIds, Twist::MissingIds),
            (Fault::Contradict, Twist::Contradict),
        ] {
            let scene = Scene::of(registration).await;
            let plain = reply_of(&scene.mock, &scene.call(1).request);
            let expected = (registration.double)().twist(twist, &plain);
            let call = scene.call(1);
            scene.mock.fault(fault.clone());
            let reply = reply_of(&scene.mock, &call.request);
            let entry = scene.last();
            assert_eq!((entry.fault, entry.fault_applied), (Some(fault.name()), expected.is_some()), "{}", scene.id());
            assert_eq!(entry.deleted.len(), 1);
            assert!(!scene.holds(&call));
            assert_eq!(reply.body() != plain.body() || reply.status() != plain.status(), expected.is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn latency_is_time_before_the_answer() {
    let scene = Scene::of(&DIALECTS[2]).await;
    let (first, second) = (scene.call(1), scene.call(2));
    scene.mock.latency(Some(Latency::Fixed { ms: u64::MAX }), 0);
    let waiting = connect(&scene.mock, &first.request);
    scene.mock.arrived(1).await;
    // It is carried out, and not answered.
    assert!(!scene.holds(&first));
    assert_eq!((scene.last().deleted.len(), scene.last().status, scene.last().fault), (1, None, None));
    drop(waiting);
    scene.mock.latency(Some(Latency::Fixed { ms: 20 }), 0);
    let started = Instant::now();
    assert_eq!(reply_of(&scene.mock, &second.request).status(), 200);
    assert!(started.elapsed() >= Duration::from_millis(20));
    assert_eq!(scene.last().status, Some(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reply_of_the_tests_own_is_not_carried_out() {
    let header =
        |name: &'static str, value| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value));
    // The length that goes out is the body's, whatever stands there.
    let headers = HeaderMap::from_iter([
        header("x-own", "1"),
        header("x-own", "2"),
        header("content-length", "7000"),
        header("transfer-encoding", "chunked"),
    ]);
    for (status, expected) in [(200, 200), (204, 204), (418, 418), (999, 999), (101, 500), (7, 500)] {
        let body = if status == 204 { "" } else { "{\"own\":1}" };
        let fault = Fault::Reply { status, headers: headers.clone(), body: body.to_owned() };
        check(fault, false, |_, reply| {
            let reply = reply.unwrap();
            assert_eq!((reply.status().as_u16(), reply.body().as_ref()), (expected, body.as_bytes()));
            assert_eq!(reply.headers().get_all("x-own").iter().collect::<Vec<_>>(), ["1", "2"]);
            assert!(!reply.headers().contains_key("transfer-encoding"));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn raw_bytes_are_all_that_comes() {
    let large = vec![b'x'; 8 << 20];
    for raw in [&b"SSH-2.0-OpenSSH_9.9\r\n"[..], b"", &[0, 255, 10], b"HTTP/1.1 ???", &large] {
        check(Fault::Raw(Bytes::copy_from_slice(raw)), false, |bytes, _| assert!(bytes == raw)).await;
    }
    // Also where a reply went before it on the same connection, and where the client asks for more.
    let scene = Scene::of(&DIALECTS[2]).await;
    scene.mock.rule(Rule::nth(Fault::Raw(Bytes::from_static(b"raw")), 2));
    let mut stream = TcpStream::connect(scene.mock.addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = "DELETE /api/2.0/crm/contact/1 HTTP/1.1\r\nhost: mock\r\n\r\n";
    stream.write_all(request.repeat(2).as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("HTTP/1.1 401 ") && text.ends_with("raw"), "{text}");
    assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    assert_eq!((scene.last().fault, scene.last().status), (Some("raw"), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_held_is_carried_out_once_it_is_let_go() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let calls = [1, 2, 3].map(|n| scene.call(n));
        let before = scene.mock.journal().len();
        scene.mock.fault_always(Some(Fault::Hold));
        let mut waiting = Vec::new();
        for (call, n) in calls.iter().zip(1..) {
            waiting.push(connect(&scene.mock, &call.request));
            scene.mock.arrived(before + n).await;
        }
        assert!(calls.iter().all(|call| scene.holds(call)), "{}", scene.id());
        let entry = scene.last();
        assert_eq!(
            (entry.fault, entry.fault_applied, entry.status, entry.deleted.len()),
            (Some("hold"), true, None, 0)
        );
        assert_eq!((scene.mock.held(), scene.mock.most_at_once()), (3, 3));
        scene.mock.fault_always(None);
        // In the order in which they came, and before it returns.
        assert_eq!(scene.mock.release(1), 1);
        assert_eq!(calls.each_ref().map(|call| scene.holds(call)), [false, true, true], "{}", scene.id());
        assert_eq!(scene.mock.deleted(), [calls[0].targets[0].identifier.clone()]);
        // Who has gone has sent it all the same.
        drop(waiting.pop());
        assert_eq!((scene.mock.release(usize::MAX), scene.mock.release(usize::MAX)), (2, 0));
        assert_eq!(scene.mock.deleted().len(), 3, "{}", scene.id());
        assert!(!calls.iter().any(|call| scene.holds(call)));
        for (call, stream) in calls.iter().zip(&mut waiting) {
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            let findings = scene.dialect.interpret(call, &read(&bytes).unwrap()).findings(call);
            assert!(matches!(findings[..], [Finding::Deleted(_)]), "{}: {findings:?}", scene.id());
        }
        let entries = scene.mock.journal();
        assert!(entries[before..].iter().all(|entry| entry.status == Some(200) && entry.deleted == entry.asked));
        assert!(scene.mock.check(&Question::DeletedTwice).ok && scene.mock.check(&Question::OnlyAsked).ok);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_held_at_a_reset_never_happens() {
    let scene = Scene::of(&DIALECTS[2]).await;
    let call = scene.call(1);
    scene.mock.fault(Fault::Hold);
    let mut waiting = connect(&scene.mock, &call.request);
    scene.mock.arrived(1).await;
    scene.mock.reset();
    let mut bytes = Vec::new();
    assert_eq!(waiting.read_to_end(&mut bytes).unwrap(), 0);
    assert_eq!((scene.mock.held(), scene.mock.release(9), scene.mock.deleted().len()), (0, 0, 0));
    let call = scene.call(1);
    assert!(matches!(scene.findings(&call)[..], [Finding::Deleted(_)]));
    assert_eq!(scene.mock.journal().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_held_request_is_answered_with_the_latency_of_its_release() {
    let scene = Scene::of(&DIALECTS[2]).await;
    let call = scene.call(1);
    scene.mock.fault(Fault::Hold);
    let waiting = connect(&scene.mock, &call.request);
    scene.mock.arrived(1).await;
    scene.mock.latency(Some(Latency::Fixed { ms: u64::MAX }), 0);
    assert_eq!(scene.mock.release(1), 1);
    assert_eq!((scene.last().deleted.len(), scene.last().status), (1, None));
    drop(waiting);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answer_may_depend_on_the_request() {
    for registration in DIALECTS {
        let scene = Scene::of(registration).await;
        let [first, second] = [1, 2].map(|n| scene.call(n));
        let before = scene.mock.journal().len();
        let whom = first.targets[0].identifier.clone();
        scene.mock.fault(Fault::Empty(503));
        scene.mock.answer_with(move |entry| {
            assert!(entry.n > before && entry.status.is_none() && entry.deleted.is_empty() && entry.fault.is_none());
            let reply = Response::builder().status(if entry.sign_in { 403 } else { 410 });
            let reply = reply.header("content-length", "1").header("x-kind", entry.kind.as_str());
            (entry.sign_in || entry.asked == [whom.clone()]).then(|| reply.body(entry.body.clone()).unwrap())
        });
        let reply = reply_of(&scene.mock, &first.request);
        assert_eq!((reply.status().as_u16(), reply.body()), (410, first.request.body()), "{}", scene.id());
        assert_eq!(reply.headers()["x-kind"], "delete");
        assert!(scene.holds(&first));
        assert_eq!((scene.last().fault, scene.last().status, scene.last().deleted.len()), (None, Some(410), 0));
        // It left the fault to the one that it leaves alone.
        assert_eq!(reply_of(&scene.mock, &second.request).status(), 503);
        if let Some(path) = scene.mock.upstream.sign_in_paths.first() {
            let sign_in = Request::post(path.as_str()).body(Bytes::new()).unwrap();
            assert_eq!(reply_of(&scene.mock, &sign_in).status(), 403);
        }
        scene.mock.clear_faults();
        assert!(matches!(scene.findings(&first)[..], [Finding::Deleted(_)]), "{}", scene.id());
    }
}
