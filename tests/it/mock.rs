//! `onedelete mock` as a program: what scripts read from it, and a gateway that works with it.

use std::io::{BufRead, BufReader};
use std::process::Command;

use adapters::{DIALECTS, Identifier};
use onedelete::mock::{Fault, Mocks, Named, Question, Scenario};
use serde_json::{Value, json};

use crate::cli::{Watched, ended, program, run};
use crate::support::{Setup, attempts, ids, send, within};

/// Starts it, and reads the line that says where it listens.
async fn start(arguments: &[&str]) -> (Watched, Value) {
    let mut child = Watched(program(&[&["mock", "--output", "json"], arguments].concat(), &[]).spawn().unwrap());
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        out.read_line(&mut line).map(|_| (line, out))
    });
    let (line, out) = within("the mock's line", line).await.unwrap().unwrap();
    child.0.stdout = Some(out.into_inner());
    (child, serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line}")))
}

#[tokio::test]
async fn a_script_starts_it_and_a_gateway_deletes() {
    let setup = Setup::new();
    let folder = setup.write();
    let known = ids("wethod", 3);
    let seeds = folder.join("seeds.jsonl");
    let lines =
        [json!({ "upstream": "sales", "id": known[0] }), json!({ "upstream": "sales", "id": known[1], "held": true })];
    std::fs::write(&seeds, lines.map(|line| line.to_string()).join("\n")).unwrap();
    let tenant = folder.join("tenants/mock.toml");
    let (seeds, tenant) = (seeds.to_str().unwrap(), tenant.to_str().unwrap());
    let arguments = ["sales=wethod", "crm=kore_ai", "--port", "0", "--seed-file", seeds, "--tenant-file", tenant];
    let (child, line) = start(&arguments).await;
    let names: Vec<_> =
        line["upstreams"].as_array().unwrap().iter().map(|each| each["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["sales", "crm"]);

    let gateway = setup.start().await;
    let key = line["key"].as_str().unwrap();
    let contacts: Vec<_> = known.iter().map(|id| json!({ "id": id })).collect();
    let request = gateway.client.post(gateway.url("/v1/deletions")).header("content-type", "application/json");
    let answer = send(request.bearer_auth(key).body(json!({ "contacts": contacts }).to_string())).await;
    assert_eq!(answer.outcomes(), ["deleted", "rejected", "not_found"], "{}", answer.text);

    let control = line["control"].as_str().unwrap();
    let deleted = send(gateway.client.get(format!("{control}/deleted"))).await;
    assert_eq!(deleted.json, json!([{ "upstream": "sales", "id": known[0] }]));
    let checks = json!({ "checks": [{ "check": "only_asked" }, { "check": "count", "kind": "delete", "exactly": 3 }] });
    let checked = send(gateway.client.post(format!("{control}/checks")).body(checks.to_string())).await;
    assert_eq!((checked.status, &checked.json["ok"]), (200, &json!(true)), "{}", checked.text);
    gateway.stop().await;

    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(within("the end of the mock", ended(child)).await.code, Some(0));
}

#[tokio::test]
async fn all_can_stand_on_one_port_without_a_control_api() {
    let (_child, line) = start(&["--one-port", "127.0.0.1:0", "--control", "off", "--limits", "vendor"]).await;
    assert_eq!((&line["control"], &line["key"]), (&Value::Null, &Value::Null));
    let upstreams = line["upstreams"].as_array().unwrap();
    assert_eq!(upstreams.len(), DIALECTS.len());
    let origin = |each: &Value| {
        let url = each["base_url"].as_str().unwrap();
        let (origin, _) = url.split_once(&format!("/{}", each["name"].as_str().unwrap())).unwrap();
        origin.to_owned()
    };
    assert!(upstreams.iter().all(|each| origin(each) == origin(&upstreams[0])), "{line}");
}

#[tokio::test]
async fn wrong_arguments_are_a_matter_of_usage() {
    let folder = tempfile::tempdir().unwrap();
    let seeds = folder.path().join("seeds.jsonl");
    std::fs::write(&seeds, "{\"id\":\"s3cret\"}").unwrap();
    let seeds = seeds.to_str().unwrap();
    for wrong in [
        &["nobody"][..],
        &["a=nobody"],
        &["kore_ai:x"],
        &["kore_ai", "kore_ai"],
        &["A=kore_ai"],
        &["kore_ai", "--dialect", "wethod"],
        &["kore_ai:9", "--one-port", "127.0.0.1:0"],
        &["--one-port", "127.0.0.1:0", "--port", "9"],
        &["--control", "everywhere"],
        &["--limits", "60"],
        &["--limits", "60/0"],
        &["--output", "jsonl"],
        &["--seed-file", "/nonexistent/seeds"],
        &["wethod", "--port", "0", "--seed-file", seeds],
    ] {
        let done = run(&[&["mock"], wrong].concat(), &[]).await;
        assert_eq!(done.code, Some(2), "{wrong:?}: {}", done.err);
        assert!(!done.err.contains("s3cret"), "{}", done.err);
    }
}

#[tokio::test]
async fn a_gateway_and_a_scenario_over_two_upstreams_behind_prefixes() {
    let named = ["kore_ai", "wethod"].map(|id| Named::of(adapters::find(id).unwrap()));
    let mocks = Mocks::start_on_one_port(named, ([127, 0, 0, 1], 0).into(), None).await.unwrap();
    let [crm, sales] = ["kore_ai", "wethod"].map(|name| mocks.find(name).unwrap());
    let setup = Setup::new().mock("acme", "crm", crm, attempts(3)).mock("acme", "sales", sales, attempts(3));
    let gateway = setup.start().await;
    let (many, one) = (ids("kore_ai", 3), ids("wethod", 1));
    let of = |text: &String| Identifier::Id(text.as_str().into());
    many.iter().for_each(|text| crm.seed(&of(text), false));
    sales.seed(&of(&one[0]), false);
    let scenario = Scenario::default()
        .then("kore_ai", Fault::DropBeforeCommit)
        .then("kore_ai", Fault::Partial(vec![of(&many[1])]))
        .then("wethod", Fault::Reset { commit: false })
        .then("wethod", Fault::Plain);
    mocks.play(scenario).unwrap();
    let mut contacts: Vec<_> = many.iter().map(|id| json!({ "connection": "crm", "id": id })).collect();
    contacts.push(json!({ "connection": "sales", "id": one[0] }));
    let answer = gateway.post("acme", &json!({ "contacts": contacts })).await;
    let answer = gateway.finished("acme", &answer.id()).await;
    assert_eq!(answer.outcomes()[0], "deleted", "{}", answer.text);
    assert_ne!(answer.outcomes()[1], "deleted", "{}", answer.text);
    assert_eq!(answer.outcomes()[2..], ["deleted", "deleted"], "{}", answer.text);
    let allowed = [&many[0], &many[2], &one[0]].map(of).to_vec();
    let checks = [
        Question::DeletedTwice.everywhere(),
        Question::OnlyAsked.everywhere(),
        Question::Only { contacts: allowed }.everywhere(),
        Question::ScenarioDone.everywhere(),
    ];
    for verdict in mocks.check(&checks).unwrap() {
        assert!(verdict.ok, "{}: {}", verdict.check, verdict.why);
    }
    gateway.stop().await;
    mocks.stop().await;
}
