//! What somebody who is woken at night finds in the log about one deletion: who, where, what, how often, and what to do next.

use onedelete::mock::Fault;
use serde_json::{Value, json};

use crate::cli::program;
use crate::served::Process;
use crate::support::{Setup, attempts, id, ids, key, mock, send};

/// The log of a gateway whose upstream failed all along, in this format; the deletion's id, and the contacts.
async fn log_of_a_bad_night(arguments: &[&str], variables: &[(&str, &str)]) -> (String, String, Vec<String>) {
    let mock = mock("wethod").await;
    let known = ids("wethod", 3);
    known.iter().for_each(|each| mock.seed(&id(each), false));
    mock.fault_always(Some(Fault::Empty(500)));
    let setup = Setup::new().set("upstream.breaker_failures", 1_000).mock("acme", "sales", &mock, attempts(2));
    let folder = setup.write();
    let config = folder.join("onedelete.toml");
    let all = [&["serve", "--config", config.to_str().unwrap()], arguments].concat();
    let process = Process::start(program(&all, variables)).await;
    let url = format!("http://{}/v1/deletions", process.public);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(url).bearer_auth(key("acme")).header("content-type", "application/json");
    let request = request.header("x-request-id", "ticket-4711");
    let request = request.header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let answer = send(request.body(json!({ "contacts": known }).to_string())).await;
    assert_eq!(answer.outcomes(), ["unknown"; 3], "{}", answer.text);
    let ended = process.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    (ended.log, answer.id(), known)
}

#[tokio::test]
async fn the_lines_of_a_deletion_say_who_where_what_how_often_and_what_next() {
    // What the command line says comes before what the settings say.
    let (log, deletion, known) =
        log_of_a_bad_night(&["--log-format", "json"], &[("ONEDELETE__LOG__FORMAT", "text")]).await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let about: Vec<_> = lines.iter().filter(|line| line["deletion"] == *deletion).collect();
    let said: Vec<_> = about.iter().map(|line| line["message"].as_str().unwrap()).collect();
    let expected = [
        "a call failed; the next ones that do are counted",
        "some contacts are not known to be gone",
        "deletion finished",
        "answered",
    ];
    assert_eq!(said, expected, "{log}");
    for line in &about {
        assert_eq!(line["trace"], "4bf92f3577b34da6a3ce929d0e0e4736", "{line}");
    }
    for line in &about[..2] {
        assert_eq!((&line["tenant"], &line["connection"]), (&json!("acme"), &json!("sales")), "{line}");
        assert_eq!((&line["level"], &line["request"]), (&json!("WARN"), &json!("ticket-4711")), "{line}");
    }
    assert_eq!((&about[0]["status"], &about[0]["attempt"]), (&json!(500), &json!(1)));
    let end = about[1];
    let counts = ["deleted", "not_found", "rejected", "failed", "unknown", "skipped"].map(|name| end[name].as_u64());
    assert_eq!(counts, [0, 0, 0, 0, 3, 0].map(Some), "{end}");
    assert_eq!((&end["calls_failed"], &end["error"]), (&json!(6), &json!("upstream_error")), "{end}");
    assert!(end["next"].as_str().unwrap().contains("`retry`"), "{end}");
    assert_eq!((&about[3]["request"], &about[3]["status"]), (&json!("ticket-4711"), &json!(207)));
    assert!(known.iter().all(|each| !log.contains(each.as_str())), "{log}");
}

#[tokio::test]
async fn the_same_stands_in_a_log_for_people() {
    let (log, deletion, known) =
        log_of_a_bad_night(&["--log-format", "text"], &[("ONEDELETE__LOG__FORMAT", "json")]).await;
    let line = log.lines().find(|line| line.contains("some contacts are not known to be gone")).expect(&log);
    for part in [
        &*format!("deletion={deletion}"),
        "WARN",
        "tenant=\"acme\"",
        "connection=\"sales\"",
        "request=\"ticket-4711\"",
        "unknown=3",
        "calls_failed=6",
        "next=\"",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(known.iter().all(|each| !log.contains(each.as_str())), "{log}");
}
