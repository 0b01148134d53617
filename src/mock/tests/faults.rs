//! The faults that need more than a status: resets, slow bodies, lies and broken contracts.

use adapters::{FaultCode, Twist};

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
