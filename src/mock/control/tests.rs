//! The control API over HTTP: every route, what it refuses, and that its description is true.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use adapters::{DIALECTS, Identifier};
use serde_json::{Value, json};

use super::*;
use crate::mock::Named;

/// The dialect whose delete names one contact and whose credential needs no sign-in, under two names; and one that takes
/// more than one kind of identifier.
struct Scene {
    mocks: Arc<Mocks>,
    control: Control,
}

/// An answer: status, headers in lower case, body.
struct Told(u16, BTreeMap<String, String>, Value);

async fn scene() -> Scene {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let named = |name: &str, at: usize| (Named { name: name.to_owned(), registration: &DIALECTS[at] }, listen);
    let mocks = Mocks::start([named("one", 2), named("two", 2), named("lists", 3)], None).await.unwrap();
    let mocks = Arc::new(mocks);
    let control = Control::start(Arc::clone(&mocks), listen).await.unwrap();
    Scene { mocks, control }
}

impl Scene {
    fn ask(&self, method: &str, path: &str, body: &Value) -> Told {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        ask(self.control.addr(), &format!("{method} {path}"), "", &body)
    }

    /// The status and the body.
    fn told(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let Told(status, _, json) = self.ask(method, path, body);
        (status, json)
    }

    fn get(&self, path: &str) -> Value {
        let (status, json) = self.told("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    /// Sends a delete to an upstream; the status.
    fn delete(&self, upstream: &str, id: u32) -> u16 {
        let mock = self.mocks.find(upstream).unwrap();
        let connection = mock.connection_toml();
        let token = connection["credentials"]["token"].as_str().unwrap().trim_start_matches("plain:");
        let line = format!("DELETE /api/2.0/crm/contact/{id}");
        ask(mock.addr(), &line, &format!("authorization: {token}\r\n"), "").0
    }
}

fn ask(to: SocketAddr, line: &str, headers: &str, body: &str) -> Told {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let length = body.len();
    let head =
        format!("{line} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.to_lowercase(), v.to_owned()));
    Told(status, headers.collect(), serde_json::from_str(body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_route_is_described_and_every_described_route_exists() {
    let scene = scene().await;
    let openapi = scene.get("/openapi.json");
    assert_eq!(openapi["openapi"], "3.1.0");
    let paths = openapi["paths"].as_object().unwrap();
    let served: BTreeSet<_> = routes().iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(served, paths.keys().cloned().collect());
    for (path, item) in paths {
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        let mut described: BTreeSet<_> = methods.map(|method| method.to_uppercase()).collect();
        if described.contains("GET") {
            described.insert("HEAD".to_owned());
        }
        let Told(status, headers, problem) =
            scene.ask("PATCH", &path.replace("{name}", "one").replace("{id}", "1"), &Value::Null);
        assert_eq!((status, &problem["status"]), (405, &json!(405)), "{path}");
        let allowed = headers["allow"].split(',').map(|method| method.trim().to_owned()).collect();
        assert_eq!(described, allowed, "{path}");
    }
    // What it refers to is there.
    let text = openapi.to_string();
    for name in text.split("\"#/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(openapi.pointer(&format!("/{name}")).is_some(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn upstreams_are_listed_with_their_connections() {
    let scene = scene().await;
    assert_eq!(scene.get("/health")["status"], "ok");
    let all = scene.get("/upstreams");
    let names: Vec<_> = all.as_array().unwrap().iter().map(|each| each["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "two", "lists"]);
    let mock = scene.mocks.find("two").unwrap();
    assert_eq!(all[1]["base_url"], mock.base_url());
    assert_eq!(all[1]["dialect"], DIALECTS[2].profile.id);
    let toml: toml::Table = all[1]["connection_toml"].as_str().unwrap().parse().unwrap();
    assert_eq!(toml, mock.connection_toml());
    assert_eq!(all[1]["connection"], serde_json::to_value(toml).unwrap());
    assert_eq!((&all[1]["latency"], &all[1]["limits"]), (&Value::Null, &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn contacts_are_seeded_listed_and_forgotten() {
    let scene = scene().await;
    let contacts = "/upstreams/one/contacts";
    let body = json!([7, "8", { "id": "9", "held": true }]);
    assert_eq!(scene.told("PUT", contacts, &body), (200, json!({ "seeded": 3 })));
    let expected = json!([{ "id": "7", "held": false }, { "id": "8", "held": false }, { "id": "9", "held": true }]);
    assert_eq!(scene.get(contacts), expected);
    assert_eq!((scene.delete("one", 7), scene.delete("one", 9)), (200, 403));
    assert_eq!(scene.get(contacts).as_array().unwrap().len(), 2);
    let bad = [
        (json!([7, { "id": "x" }]), "/1", "`id` must be"),
        (json!([{ "phone": "+491" }]), "/0", "this upstream names contacts by id"),
        (json!([7, {}]), "/1", "must have exactly one of"),
        (json!([{ "id": 7, "upstream": "two" }]), "/0/upstream", "It is another upstream"),
        (json!({ "contacts": [] }), "", "must be a sequence"),
        (Value::Null, "", "EOF"),
    ];
    for (body, pointer, detail) in bad {
        let Told(status, headers, problem) = scene.ask("PUT", contacts, &body);
        assert_eq!((status, headers["content-type"].as_str()), (400, "application/problem+json"), "{body}");
        assert_eq!(problem["pointer"], pointer, "{problem}");
        assert!(problem["detail"].as_str().unwrap().starts_with(detail), "{problem}");
    }
    assert_eq!(scene.get(contacts).as_array().unwrap().len(), 2, "a mistake seeds nothing");
    assert_eq!(scene.told("DELETE", contacts, &Value::Null).0, 204);
    assert_eq!((scene.get(contacts), scene.get("/deleted")), (json!([]), json!([{ "upstream": "one", "id": "7" }])));
    let other = json!([{ "phone": "+4912345" }, { "external": { "provider": "salesforce", "id": "003" } }]);
    assert_eq!(scene.told("PUT", "/upstreams/lists/contacts", &other).0, 200);
    assert_eq!(scene.mocks.find("lists").unwrap().contacts().len(), 2);
    let (status, problem) = scene.told("GET", "/upstreams/three/contacts", &Value::Null);
    assert_eq!((status, &problem["known"]), (404, &json!(["one", "two", "lists"])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn faults_are_set_and_taken_away() {
    let scene = scene().await;
    let faults = "/upstreams/one/faults";
    let (status, rule) = scene.told("POST", faults, &json!({ "fault": "html", "status": 502, "when": { "nth": 2 } }));
    assert_eq!((status, &rule["id"], &rule["seen"]), (201, &json!(1), &json!(0)));
    assert_eq!(scene.told("POST", faults, &json!({ "fault": "empty", "status": 503, "times": 1 })).0, 201);
    assert_eq!([1, 2, 3].map(|id| scene.delete("one", id)), [503, 502, 404]);
    let applied: Vec<_> = scene.get(faults).as_array().unwrap().iter().map(|rule| rule["applied"].clone()).collect();
    assert_eq!(applied, [1, 1]);
    assert_eq!(scene.told("DELETE", "/upstreams/one/faults/1", &Value::Null).0, 204);
    let (status, problem) = scene.told("DELETE", "/upstreams/one/faults/1", &Value::Null);
    assert_eq!((status, &problem["known"]), (404, &json!(["2"])));
    let wrong = json!({ "fault": "partial", "failing": [7, "x"] });
    assert_eq!(scene.told("POST", faults, &wrong).1["pointer"], "/failing/1");
    let wrong = json!({ "fault": "lie", "when": { "contact": "x" } });
    assert_eq!(scene.told("POST", faults, &wrong).1["pointer"], "/when/contact");
    assert_eq!(scene.told("DELETE", faults, &Value::Null).0, 204);
    assert_eq!(scene.get(faults), json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_held_is_shown_and_let_go() {
    let scene = scene().await;
    let (release, held) = ("/upstreams/one/release", || scene.get("/upstreams")[0]["held"].clone());
    scene.told("PUT", "/upstreams/one/contacts", &json!([1, 2, 3]));
    scene.told("POST", "/upstreams/one/faults", &json!({ "fault": "hold", "times": 3 }));
    let mock = scene.mocks.find("one").unwrap();
    std::thread::scope(|threads| {
        let waiting: Vec<_> = [1, 2, 3]
            .map(|id| {
                threads.spawn({
                    let scene = &scene;
                    move || scene.delete("one", id)
                })
            })
            .into();
        // The journal has them as they come, and nothing is deleted yet.
        while mock.journal().len() < 3 {
            std::thread::yield_now();
        }
        assert_eq!((held(), scene.get("/deleted")), (json!(3), json!([])));
        let first = scene.get("/journal")["entries"][0].clone();
        assert_eq!(
            (&first["fault"], &first["answered"], &first["deleted"]),
            (&json!("hold"), &Value::Null, &json!([]))
        );
        assert_eq!(scene.told("POST", release, &json!({ "n": 1 })), (200, json!({ "released": 1 })));
        let first_again = scene.get("/journal")["entries"][0].clone();
        assert_eq!((&first_again["answered"], &first_again["deleted"]), (&json!(200), &first["asked"]));
        assert_eq!(held(), json!(2));
        let (status, problem) = scene.told("POST", release, &json!({ "n": "one" }));
        assert_eq!((status, &problem["pointer"]), (400, &json!("/n")));
        assert_eq!(scene.told("POST", "/upstreams/three/release", &Value::Null).0, 404);
        assert_eq!(scene.told("POST", release, &Value::Null), (200, json!({ "released": 2 })));
        assert!(waiting.into_iter().all(|each| each.join().unwrap() == 200));
    });
    assert_eq!((held(), scene.get("/upstreams")[0]["most_at_once"].clone()), (json!(0), json!(3)));
    assert_eq!(scene.told("POST", release, &Value::Null), (200, json!({ "released": 0 })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reply_and_bytes_of_ones_own_go_out() {
    let scene = scene().await;
    let faults = "/upstreams/one/faults";
    let reply = json!({ "fault": "reply", "status": 418, "headers": { "x-a": "1" }, "body": "[7]", "times": 1 });
    assert_eq!(scene.told("POST", faults, &reply).1["headers"], json!({ "x-a": "1" }));
    let raw = "HTTP/1.1 219 So\r\nx-b: 2\r\n\r\n{}";
    assert_eq!(scene.told("POST", faults, &json!({ "fault": "raw", "bytes": raw })).0, 201);
    let told = || ask(scene.mocks.find("one").unwrap().addr(), "DELETE /api/2.0/crm/contact/7", "", "");
    let Told(status, headers, body) = told();
    assert_eq!((status, headers["x-a"].as_str(), body), (418, "1", json!([7])));
    let Told(status, headers, body) = told();
    assert_eq!((status, headers["x-b"].as_str(), body), (219, "2", json!({})));
    let entries = scene.get("/journal")["entries"].clone();
    let of = |at: usize| (entries[at]["fault"].clone(), entries[at]["answered"].clone());
    assert_eq!([of(0), of(1)], [(json!("reply"), json!(418)), (json!("raw"), Value::Null)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn latency_and_limits_are_set_and_shown() {
    let scene = scene().await;
    let latency = json!({ "latency": "fixed", "ms": 1, "seed": 0 });
    assert_eq!(scene.told("PUT", "/upstreams/one/latency", &latency), (200, latency.clone()));
    let limits = json!({ "requests": 1, "window_s": 3_600 });
    assert_eq!(scene.told("PUT", "/upstreams/one/limits", &limits), (200, limits.clone()));
    let one = &scene.get("/upstreams")[0];
    assert_eq!((&one["latency"], &one["limits"]), (&latency, &limits));
    assert_eq!([1, 2].map(|id| scene.delete("one", id)), [404, 429]);
    assert_eq!(scene.get("/journal?kind=throttled")["entries"][0]["asked"], json!([{ "id": "2" }]));
    for what in ["latency", "limits"] {
        assert_eq!(scene.told("DELETE", &format!("/upstreams/one/{what}"), &Value::Null).0, 204);
        assert_eq!(scene.get("/upstreams")[0][what], Value::Null);
    }
    assert_eq!(scene.delete("one", 3), 404);
    // This vendor documents none.
    let none = json!({ "requests": null, "window_s": null });
    assert_eq!(scene.told("PUT", "/upstreams/one/limits", &json!({ "vendor": true })), (200, none));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_scenario_runs_over_two_upstreams_and_is_checked() {
    let scene = scene().await;
    scene.told("PUT", "/upstreams/one/contacts", &json!([1, 2]));
    let steps = json!([
        { "upstream": "one", "fault": "empty", "status": 503 },
        { "upstream": "two", "fault": "none", "times": 2 },
        { "upstream": "one", "fault": "lie" },
    ]);
    let (status, progress) = scene.told("PUT", "/scenario", &json!({ "steps": steps }));
    assert_eq!((status, &progress["done"]), (200, &json!(false)));
    assert_eq!([1, 1, 1, 2].map(|id| scene.delete("one", id)), [503, 200, 200, 200]);
    scene.delete("two", 1);
    let taken = |progress: &Value| {
        progress["steps"].as_array().unwrap().iter().map(|step| step["taken"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(taken(&scene.get("/scenario")), [1, 1, 1]);
    let checks = json!({ "checks": [
        { "check": "deleted_twice" },
        { "check": "only_asked", "upstream": "one" },
        { "check": "only", "contacts": [1, 2] },
        { "check": "count", "kind": "delete", "exactly": 5 },
        { "check": "count", "upstream": "two", "kind": "delete", "at_most": 1 },
        { "check": "no_call_between", "from_ms": 0, "to_ms": 1 },
        { "check": "calls_per_contact_at_most", "upstream": "one", "n": 2 },
        { "check": "scenario_done" },
    ] });
    let (status, told) = scene.told("POST", "/checks", &checks);
    let holds: Vec<_> = told["results"].as_array().unwrap().iter().map(|each| each["ok"].as_bool().unwrap()).collect();
    assert_eq!((status, &told["ok"]), (200, &json!(false)));
    assert_eq!(holds, [true, true, true, true, true, true, false, false], "{told}");
    assert_eq!(told["results"][6]["entries"][0], json!({ "upstream": "one", "n": 1 }));
    scene.delete("two", 2);
    assert_eq!(scene.get("/scenario")["done"], true);
    for (body, pointer) in [
        (json!({ "steps": [{ "upstream": "three", "fault": "lie" }] }), "/steps/0/upstream"),
        (json!({ "steps": [{ "upstream": "one", "fault": "partial", "failing": ["x"] }] }), "/steps/0/failing/0"),
        (json!({ "steps": [{ "upstream": "one", "fault": "lie", "ms": 1 }] }), "/steps/0"),
    ] {
        let (status, problem) = scene.told("PUT", "/scenario", &body);
        assert_eq!((status, &problem["pointer"]), (400, &json!(pointer)), "{problem}");
    }
    let wrong = json!({ "checks": [{ "check": "only_asked", "upstream": "three" }] });
    assert_eq!(scene.told("POST", "/checks", &wrong).1["pointer"], "/checks/0/upstream");
    assert_eq!(scene.told("DELETE", "/scenario", &Value::Null).0, 204);
    assert_eq!(scene.get("/scenario"), json!({ "done": true, "steps": [] }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_journal_masks_credentials() {
    let scene = scene().await;
    scene.told("PUT", "/upstreams/one/contacts", &json!([7]));
    scene.told("POST", "/upstreams/one/faults", &json!({ "fault": "wrong_ids", "when": { "nth": 2 } }));
    scene.delete("one", 7);
    let lists = scene.mocks.find("lists").unwrap();
    let path = lists.upstream.sign_in_paths[0].clone();
    let headers = "authorization: Basic dGQ6c2VjcmV0\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    ask(lists.addr(), &format!("POST {path}?password=hunter2"), headers, "client_secret=hunter2");
    ask(lists.addr(), "POST /nowhere", headers, "{\"a\":1}");
    let journal = scene.get("/journal");
    let entries = journal["entries"].as_array().unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!((kinds, &journal["more"]), (vec!["delete", "sign_in", "other"], &json!(false)));
    let text = journal.to_string();
    for secret in ["hunter2", "dGQ6c2VjcmV0", "onlyoffice-demo-token"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
    let first = &entries[0];
    assert_eq!((&first["n"], &first["method"], &first["answered"]), (&json!(1), &json!("DELETE"), &json!(200)));
    assert_eq!((&first["deleted"], &first["asked"]), (&json!([{ "id": "7" }]), &json!([{ "id": "7" }])));
    assert_eq!((&first["fault"], &first["fault_applied"]), (&Value::Null, &Value::Null));
    assert_eq!((&first["headers"]["authorization"], &entries[2]["body_json"]), (&json!("***"), &json!({ "a": 1 })));
    let shown = scene.get("/journal?upstream=lists&kind=sign_in&credentials=true").to_string();
    for secret in ["password=hunter2", "client_secret=hunter2", "dGQ6c2VjcmV0"] {
        assert!(shown.contains(secret), "{shown}");
    }
    assert_eq!(scene.get("/journal?upstream=lists&after=1")["entries"].as_array().unwrap().len(), 1);
    let one = scene.get("/journal?limit=1");
    assert_eq!((one["entries"].as_array().unwrap().len(), &one["more"]), (1, &json!(true)));
    for (query, status) in [
        ("upstream=three", 404),
        ("kind=write", 400),
        ("after=x", 400),
        ("credentials=1", 400),
        ("kinds=read", 400),
        ("after=1&after=2", 400),
    ] {
        assert_eq!(scene.told("GET", &format!("/journal?{query}"), &Value::Null).0, status, "{query}");
    }
    assert_eq!(scene.told("GET", "/deleted?upstream=three", &Value::Null).0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reset_is_for_one_or_for_all() {
    let scene = scene().await;
    for name in ["one", "two"] {
        scene.told("PUT", &format!("/upstreams/{name}/contacts"), &json!([7]));
        scene.delete(name, 8);
    }
    assert_eq!(scene.told("POST", "/reset?upstream=one", &Value::Null).0, 204);
    assert!(!scene.mocks.find("one").unwrap().holds(&Identifier::Id("7".into())));
    assert_eq!(scene.get("/journal")["entries"].as_array().unwrap().len(), 1);
    assert_eq!(scene.told("POST", "/reset?upstream=three", &Value::Null).0, 404);
    assert_eq!(scene.told("POST", "/reset", &Value::Null).0, 204);
    assert_eq!(scene.get("/journal")["entries"], json!([]));
    assert!(scene.mocks.iter().all(|(_, mock)| mock.contacts().is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_not_there_is_said_to_be_elsewhere() {
    let scene = scene().await;
    let (status, problem) = scene.told("GET", "/nowhere", &Value::Null);
    assert_eq!((status, &problem["title"]), (404, &json!("Not Found")));
    assert!(problem["known"].as_array().unwrap().contains(&json!("/journal")));
    let Scene { mocks, control } = scene;
    let addr = control.addr();
    assert_eq!(format!("{control:?}"), format!("Control({addr})"));
    assert_eq!(control.url(), format!("http://{addr}"));
    control.stop().await;
    assert!(TcpStream::connect(addr).is_err() && TcpStream::connect(mocks.find("one").unwrap().addr()).is_ok());
}
