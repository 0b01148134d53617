//! `onedelete delete` with files, against a gateway that answers as a test tells it: lost answers, cut streams, refusals.
//!
//! What a real gateway makes of it stands at the end. Bars on terminals are not looked at.
//! Above 500 lines because the gateway that loses answers is needed by every test in it and by no other.

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::{Run, Watched, caller, ended, lines_until, program, run};
use crate::support::{Setup, id, ids, key, mock, within};

const ID: &str = "del_01m80h0kkmedfbzpnvwth83n5b";

/// A request as the fake gateway got it.
#[derive(Debug, Clone)]
struct Asked {
    /// Method and path with query.
    line: String,
    headers: HeaderMap,
    body: String,
    /// How many requests with this line came before.
    before: usize,
}

impl Asked {
    fn is(&self, line: &str) -> bool {
        self.line == line
    }

    fn key(&self) -> &str {
        self.headers["idempotency-key"].to_str().unwrap()
    }
}

/// A body of pieces, which may break off.
struct Pieces {
    pieces: VecDeque<Bytes>,
    end: End,
}

enum End {
    Whole,
    Cut,
    /// Nothing more comes, and no end.
    Never,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            // Only on the next turn: what was said before has to be on its way.
            End::Cut => {
                self.end = End::Never;
                context.waker().wake_by_ref();
                Poll::Ready(Some(Err(io::Error::other("cut"))))
            }
            End::Never => Poll::Pending,
        }
    }
}

/// An answer; `None` closes the connection without one.
type Answer = Option<Response<Pieces>>;

fn answer(status: u16, text: impl Into<Bytes>) -> Response<Pieces> {
    let body = Pieces { pieces: [text.into()].into(), end: End::Whole };
    Response::builder().status(status).body(body).unwrap()
}

fn ending(mut answer: Response<Pieces>, end: End) -> Answer {
    answer.body_mut().end = end;
    Some(answer)
}

fn problem(status: u16, code: &str, errors: Value) -> Response<Pieces> {
    let whole = json!({"title": "No.", "status": status, "code": code, "attempted": false, "errors": errors});
    answer(status, whole.to_string())
}

/// A gateway that answers from a script.
struct Fake {
    url: String,
    journal: Arc<Mutex<Vec<Asked>>>,
    stopping: CancellationToken,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl Fake {
    async fn start(script: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (journal, stopping, tasks) =
            (Arc::<Mutex<Vec<Asked>>>::default(), CancellationToken::new(), TaskTracker::new());
        let (kept, inner) = (Arc::clone(&journal), tasks.clone());
        let (script, stop) = (Arc::new(script), stopping.clone());
        let accepting = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (journal, script) = (Arc::clone(&kept), Arc::clone(&script));
                let service = service_fn(move |request| said(Arc::clone(&journal), Arc::clone(&script), request));
                let serving = async move {
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                };
                inner.spawn(stop.clone().run_until_cancelled_owned(serving));
            }
        };
        tasks.spawn(stopping.clone().run_until_cancelled_owned(accepting));
        Self { url, journal, stopping }
    }

    fn asked(&self) -> Vec<Asked> {
        self.journal.lock().unwrap().clone()
    }

    /// The lines of all requests, in order.
    fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    async fn delete(&self, arguments: &[&str]) -> Run {
        let arguments = [&["delete", "--yes"], arguments].concat();
        run(&arguments, &caller(&self.url, &key("acme"))).await
    }
}

async fn said<S: Fn(&Asked) -> Answer>(
    journal: Arc<Mutex<Vec<Asked>>>,
    script: Arc<S>,
    request: http::Request<Incoming>,
) -> io::Result<Response<Pieces>> {
    let (head, mut body) = request.into_parts();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
        text.extend_from_slice(&data);
    }
    let line = format!("{} {}", head.method, head.uri);
    let asked = {
        let mut journal = journal.lock().unwrap();
        let before = journal.iter().filter(|earlier| earlier.line == line).count();
        journal.push(Asked { line, headers: head.headers, body: String::from_utf8(text).unwrap(), before });
        journal.last().unwrap().clone()
    };
    script(&asked).ok_or_else(|| io::Error::other("lost"))
}

fn deletion(state: &str, counts: Value) -> String {
    json!({"id": ID, "state": state, "created_at": "2026-11-22T02:16:32Z", "counts": counts,
           "results_url": format!("/v1/deletions/{ID}/results")})
    .to_string()
}

fn event(name: &str, data: &str) -> String {
    format!(": keep-alive\n\nevent: {name}\ndata: {data}\n\n")
}

fn result(index: usize, outcome: &str) -> String {
    let absent = matches!(outcome, "deleted" | "not_found").then_some(true);
    format!("{}\n", json!({"index": index, "connection": "c", "outcome": outcome, "absent": absent}))
}

fn results(count: usize) -> String {
    (0..count).map(|index| result(index, "deleted")).collect()
}

/// A sound gateway's answer about a deletion of so many contacts, all of which are deleted.
fn sound(asked: &Asked, count: usize) -> Answer {
    let done = deletion("finished", json!({"requested": count, "deleted": count}));
    let half = deletion("running", json!({"requested": count, "deleted": count / 2, "pending": count - count / 2}));
    let path = asked.line.split(['?', ' ']).nth(1).unwrap();
    Some(match path.strip_prefix("/v1/deletions").unwrap().strip_prefix(&format!("/{ID}")) {
        None => answer(202, half),
        Some("/events") => {
            let mut stream = answer(200, event("progress", &half) + &event("finished", &done));
            stream.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            stream
        }
        Some("/results") => answer(200, results(count)),
        Some(_) => answer(200, done),
    })
}

const POST: &str = "POST /v1/deletions";

fn of(path: &str) -> String {
    format!("GET /v1/deletions/{ID}{path}")
}

/// A file in a folder of its own.
fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

fn note(file: &str) -> PathBuf {
    Path::new(&format!("{file}.onedelete")).to_owned()
}

fn numbers(count: usize) -> String {
    (0..count).map(|n| format!("{}\n", 1_000_000 + n)).collect()
}

const MANY: usize = 25_000;

fn indices(out: &str) -> Vec<u64> {
    out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["index"].as_u64().unwrap()).collect()
}

fn all_indices(count: usize) -> Vec<u64> {
    (0..count as u64).collect()
}

#[tokio::test]
async fn a_large_file_is_sent_as_lines_and_its_results_come_as_lines() {
    let fake = Fake::start(|asked| sound(asked, MANY)).await;
    let rows: String = (0..MANY).map(|n| format!("{n},\"row {n}\"\r\n")).collect();
    let (_folder, path) = file("ids.csv", &format!("\u{feff}ID,Ref\r\n{rows}"));
    let arguments = ["--max", "25000", "--file", &path, "--output", "jsonl", "--reason", "a&b c", "--connection", "c"];
    let done = fake.delete(&arguments).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(indices(&done.out), all_indices(MANY));
    assert!(done.err.contains(&format!("25000 of 25000 are absent; deletion {ID}")), "{}", done.err);
    assert!(!note(&path).exists(), "the note was left behind");
    let asked = fake.asked();
    let posted = "POST /v1/deletions?connection=c&reason=a%26b%20c".to_owned();
    assert_eq!(fake.lines(), [posted, of("/events"), of("/results")]);
    assert_eq!(asked[0].headers["content-type"], "application/x-ndjson");
    let sent: Vec<Value> = asked[0].body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((sent.len(), &sent[7]), (MANY, &json!({"id": "7", "ref": "row 7"})));
    // The same as a document.
    let (_folder, path) = file("ids.txt", &numbers(MANY));
    let whole = fake.delete(&["--max", "25000", "--file", &path, "--output", "json", "--quiet"]).await;
    assert_eq!((whole.code, whole.err.as_str()), (Some(0), ""));
    let whole: Value = serde_json::from_str(&whole.out).unwrap();
    assert_eq!((&whole["id"], &whole["counts"]["deleted"]), (&json!(ID), &json!(MANY)));
    assert_eq!(whole["results"].as_array().unwrap().len(), MANY);
    // And as a table, which shows sums: nothing else needs to be read.
    let table = fake.delete(&["--max", "25000", "--file", &path]).await;
    assert_eq!(table.code, Some(0), "{}", table.err);
    assert!(table.out.lines().count() == 3 && table.out.contains("25000"), "{}", table.out);
    assert!(table.err.contains("--output jsonl"), "{}", table.err);
    let read = fake.lines().iter().filter(|line| **line == of("/results")).count();
    assert_eq!(read, 2, "results were read for the table");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_key() {
    let fake = Fake::start(|asked| match (asked.is(POST), asked.before) {
        (true, 0) => None,
        (true, 1) => ending(answer(202, "{\"id\": \"del_"), End::Cut),
        (true, 2) => Some(answer(502, "<html>")),
        (true, _) => {
            let mut replayed = sound(asked, MANY).unwrap();
            replayed.headers_mut().insert("idempotency-replayed", "true".parse().unwrap());
            Some(replayed)
        }
        _ => sound(asked, MANY),
    })
    .await;
    let (_folder, path) = file("ids.txt", &numbers(MANY));
    let done = fake.delete(&["--max", "25000", "--file", &path, "--output", "jsonl"]).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(done.out.lines().count(), MANY);
    let posts: Vec<_> = fake.asked().into_iter().filter(|asked| asked.is(POST)).collect();
    assert_eq!(posts.len(), 4);
    for post in &posts[1..] {
        assert_eq!((post.key(), &post.body), (posts[0].key(), &posts[0].body));
    }
    assert!(!note(&path).exists());
}

#[tokio::test]
async fn a_busy_gateway_is_waited_for() {
    for (status, after) in [(503, Some("1")), (429, Some("0")), (503, None)] {
        let fake = Fake::start(move |asked| match (asked.is(POST), asked.before) {
            (true, 0 | 1) => {
                let mut busy = problem(status, "overloaded", json!([]));
                if let Some(after) = after {
                    busy.headers_mut().insert("retry-after", after.parse().unwrap());
                }
                Some(busy)
            }
            _ => sound(asked, 2),
        })
        .await;
        let done = fake.delete(&["--output", "jsonl", "1", "2"]).await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert_eq!(indices(&done.out), [0, 1]);
        assert_eq!(fake.lines(), [POST.to_owned(), POST.to_owned(), POST.to_owned(), of("/events"), of("/results")]);
    }
}

#[tokio::test]
async fn results_that_are_cut_are_written_once_all_the_same() {
    let (_folder, path) = file("ids.txt", &numbers(MANY));
    for form in ["jsonl", "json"] {
        let lines = results(MANY);
        let half = lines.len() / 2;
        let fake = Fake::start(move |asked| match (asked.is(&of("/results")), asked.before) {
            (true, 0) => ending(answer(200, lines[..half].to_owned()), End::Cut),
            // It ends in order, only too early.
            (true, 1) => Some(answer(200, results(MANY - 1))),
            (true, 2) => Some(answer(500, "")),
            _ => sound(asked, MANY),
        })
        .await;
        let done = fake.delete(&["--max", "25000", "--file", &path, "--output", form]).await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        assert_eq!(fake.lines().iter().filter(|line| **line == of("/results")).count(), 4);
        if form == "jsonl" {
            assert_eq!(indices(&done.out), all_indices(MANY));
        } else {
            let whole: Value = serde_json::from_str(&done.out).unwrap();
            let read = whole["results"].as_array().unwrap().iter().map(|row| row["index"].as_u64().unwrap());
            assert_eq!(read.collect::<Vec<_>>(), all_indices(MANY));
        }
    }
}

#[tokio::test]
async fn events_that_break_off_or_are_missing_change_nothing() {
    // Streams that are cut, that end too early, that cannot be read, that are none; then a look that finds the end.
    for case in 0..5 {
        let fake = Fake::start(move |asked| {
            let running = deletion("running", json!({"requested": 2, "deleted": 1, "pending": 1}));
            if asked.is(&of("/events")) {
                let mut stream = answer(200, event("progress", &running));
                stream.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
                return match case {
                    0 => ending(stream, End::Cut),
                    1 => Some(stream),
                    2 => Some(stream.map(|_| answer(200, event("finished", "{")).into_body())),
                    3 => Some(problem(404, "not_found", json!([]))),
                    _ => None,
                };
            }
            match (asked.is(&of("")), asked.before) {
                (true, 0) => Some(answer(200, running)),
                (true, 1) => Some(answer(503, "")),
                _ => sound(asked, 2),
            }
        })
        .await;
        let done = fake.delete(&["--output", "jsonl", "1", "2"]).await;
        assert_eq!((done.code, indices(&done.out)), (Some(0), vec![0, 1]), "{case}: {}", done.err);
        assert_eq!(fake.lines().iter().filter(|line| **line == of("")).count(), 3, "{case}: {:?}", fake.lines());
    }
}

#[tokio::test]
async fn whoever_stops_waiting_goes_on_with_the_same_command() {
    let silent = Arc::new(AtomicBool::new(true));
    let is_silent = Arc::clone(&silent);
    let fake = Fake::start(move |asked| {
        if asked.is(&of("/events")) && is_silent.load(Ordering::SeqCst) {
            let mut stream = answer(200, ": nothing yet\n\n");
            stream.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            return ending(stream, End::Never);
        }
        sound(asked, MANY)
    })
    .await;
    let (_folder, path) = file("ids.txt", &numbers(MANY));
    let key = key("acme");
    let variables = caller(&fake.url, &key);
    let arguments = ["delete", "--yes", "--max", "26000", "--output", "jsonl", "--file", &path];
    let mut child = Watched(program(&arguments, &variables).spawn().unwrap());
    let mut errors = BufReader::new(child.0.stderr.take().unwrap());
    let waiting = tokio::task::spawn_blocking(move || (lines_until(&mut errors, "waiting for its end"), errors));
    let (_, errors) = within("the acceptance", waiting).await.unwrap();
    let kept = note(&path);
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let entry: Value = serde_json::from_str(&std::fs::read_to_string(&kept).unwrap()).unwrap();
    assert_eq!((&entry["url"], &entry["deletion"], &entry["version"]), (&json!(fake.url), &json!(ID), &json!(1)));
    assert_eq!(entry["idempotency_key"], fake.asked()[0].key());
    let pid = child.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    child.0.stderr = Some(errors.into_inner());
    let stopped = within("the end", ended(child)).await;
    assert_eq!((stopped.code, stopped.out.as_str()), (Some(3), ""), "{}", stopped.err);
    for part in ["goes on at the gateway", ID, "--cancel", "the same command"] {
        assert!(stopped.err.contains(part), "{part} is not in {}", stopped.err);
    }

    // Other contacts or another gateway are not mistaken for it, and nothing is sent.
    // A last look of the one that was stopped may still come in.
    let sent = || fake.lines().iter().filter(|line| line.starts_with("POST ")).count();
    let before = sent();
    let others = run(&[&arguments[..], &["4711"]].concat(), &variables).await;
    let elsewhere = run(&[&arguments[..], &["--url", "http://127.0.0.1:9"]].concat(), &variables).await;
    let reason = run(&[&arguments[..], &["--reason", "other"]].concat(), &variables).await;
    for refused in [others, elsewhere, reason] {
        assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{}", refused.err);
        assert!(refused.err.contains("ids.txt.onedelete") && refused.err.contains("Delete it"), "{}", refused.err);
        assert!(!refused.err.contains("4711"), "{}", refused.err);
    }
    assert_eq!(sent(), before);

    silent.store(false, Ordering::SeqCst);
    let again = run(&arguments, &variables).await;
    assert_eq!(again.code, Some(0), "{}", again.err);
    assert!(again.err.contains("going on with"), "{}", again.err);
    assert_eq!(indices(&again.out), all_indices(MANY));
    assert!(!kept.exists());
    assert_eq!(fake.lines().iter().filter(|line| *line == POST).count(), 1, "it was sent again");
}

#[tokio::test]
async fn a_note_of_a_run_that_was_killed_gives_its_key_to_the_next() {
    let fake = Fake::start(|asked| sound(asked, MANY)).await;
    let (_folder, path) = file("ids.txt", &numbers(MANY));
    let named = ["--max", "25000", "--file", &path, "--output", "jsonl", "--idempotency-key", "mine"];
    // With a key of its own, the caller is who remembers it.
    assert_eq!(fake.delete(&named).await.code, Some(0));
    assert_eq!(fake.asked()[0].key(), "mine");
    // A run that could not learn the end, because the gateway breaks everything off after the acceptance.
    let broken = Fake::start(|asked| match asked.is(POST) {
        true => sound(asked, MANY),
        false => Some(problem(403, "forbidden", json!([]))),
    })
    .await;
    let stopped = broken.delete(&named[..6]).await;
    assert_eq!(stopped.code, Some(3), "{}", stopped.err);
    let kept = std::fs::read_to_string(note(&path)).unwrap();
    let mut entry: Value = serde_json::from_str(&kept).unwrap();
    assert!(stopped.err.contains(entry["idempotency_key"].as_str().unwrap()), "{}", stopped.err);
    // One that was killed earlier would not have known the id.
    entry["url"] = fake.url.clone().into();
    entry.as_object_mut().unwrap().remove("deletion");
    std::fs::write(note(&path), entry.to_string()).unwrap();
    let again = fake.delete(&named[..6]).await;
    assert_eq!((again.code, again.out.lines().count()), (Some(0), MANY), "{}", again.err);
    let posts: Vec<_> = fake.asked().into_iter().filter(|asked| asked.is(POST)).collect();
    assert_eq!((posts.len(), posts[1].key()), (2, entry["idempotency_key"].as_str().unwrap()));
    assert!(!note(&path).exists());
    // Where there can be no note, the key is told before anything is sent.
    let long = "x".repeat(250);
    let (_folder, path) = file(&long, &numbers(2));
    let warned = Fake::start(|asked| sound(asked, 2)).await;
    let done = warned.delete(&["--file", &path, "--quiet"]).await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains(&format!("--idempotency-key {}", warned.asked()[0].key())), "{}", done.err);
}

#[tokio::test]
async fn what_is_wrong_in_a_file_is_found_before_anything_is_sent() {
    let fake = Fake::start(|_| None).await;
    for (name, text, more, parts) in [
        ("c.jsonl", "1\n\n{\"id\": 4711\n".to_owned(), &[][..], &["c.jsonl: line 3", "not JSON"][..]),
        ("c.jsonl", "{\"id\": 1, \"colour\": \"4711\"}\n".to_owned(), &[], &["c.jsonl: line 1", "known"]),
        ("c.csv", "id,colour\n4711,red\n".to_owned(), &[], &["c.csv: line 1", "\"colour\""]),
        (
            "c.csv",
            "CustomerID,city\n4711,Rome\n".to_owned(),
            &["--id-column", "customerid"],
            &["c.csv: line 1", "\"city\""],
        ),
        ("c.csv", "id,phone\n1,\n,\n".to_owned(), &[], &["c.csv: line 3", "names no contact"]),
        ("c.csv", "id\n".to_owned(), &[], &["no contacts"]),
        ("c.txt", numbers(10_001), &[], &["10001", "--max 10000"]),
        ("c.txt", numbers(10_001), &["--max", "20000", "--dry-run"], &["--dry-run", "10000"]),
        ("c.txt", numbers(2), &["--outcome", "gone"], &["deleted", "unknown"]),
        ("c.txt", numbers(2), &["--follow", ID], &["--follow"]),
    ] {
        let (_folder, path) = file(name, &text);
        let refused = fake.delete(&[more, &["--file", &path]].concat()).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{}", refused.err);
        for part in parts {
            assert!(refused.err.contains(part), "{part} is not in {}", refused.err);
        }
        assert!(!refused.err.contains("4711"), "{}", refused.err);
        assert!(!note(&path).exists());
    }
    let missing = fake.delete(&["--file", "/no/such/file.csv"]).await;
    assert_eq!(missing.code, Some(2));
    assert!(missing.err.contains("/no/such/file.csv"), "{}", missing.err);
    assert_eq!(fake.lines(), [""; 0]);
}

#[tokio::test]
async fn a_refusal_of_the_gateway_names_the_line_and_leaves_nothing_behind() {
    let fake = Fake::start(|asked| {
        let wrong = |n: u32| json!({"pointer": format!("/contacts/{n}"), "code": "x", "message": "is wrong"});
        let many = asked.line.contains("reason=many");
        Some(problem(400, "invalid_request", json!([wrong(if many { 12_000 } else { 1 })])))
    })
    .await;
    let rows = |n: usize| format!("id\n\n{}", numbers(n));
    for (count, reason, line) in [(3, "few", 4), (MANY, "many", 12_003)] {
        let (_folder, path) = file("ids.csv", &rows(count));
        let refused = fake.delete(&["--max", "25000", "--reason", reason, "--file", &path]).await;
        assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{}", refused.err);
        assert!(refused.err.contains(&format!("ids.csv, line {line} (")), "{}", refused.err);
        assert!(!note(&path).exists());
    }
}

#[tokio::test]
async fn a_refusal_that_does_not_wait_for_the_contacts_is_heard() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It reads the head, answers, and closes the connection with contacts in it: twice for a wrong key would be an error.
    let gateway = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        lines_until(&mut reader, "\r\n\r\n");
        let body = json!({"title": "No.", "code": "unauthenticated", "attempted": false}).to_string();
        let head = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        io::Write::write_all(reader.get_mut(), (head + &body).as_bytes()).unwrap();
    });
    let (_folder, path) = file("ids.txt", &numbers(MANY));
    let (key, arguments) = (key("acme"), ["delete", "--yes", "--max", "25000", "--file", &path]);
    let refused = run(&arguments, &caller(&url, &key)).await;
    assert_eq!((refused.code, refused.out.as_str()), (Some(2), ""), "{}", refused.err);
    assert!(refused.err.contains("401") && !note(&path).exists(), "{}", refused.err);
    gateway.join().unwrap();
}

#[tokio::test]
async fn exit_codes_and_filters_go_by_the_gateways_counts() {
    let outcomes = ["deleted", "failed", "unknown", "skipped", "not_found"];
    let fake = Fake::start(move |asked| {
        let path = asked.line.split(' ').nth(1).unwrap().to_owned();
        match path.split_once("?outcome=") {
            Some((_, wanted)) => {
                let wanted: Vec<_> = wanted.split(',').collect();
                let all = outcomes.iter().enumerate().filter(|(_, outcome)| wanted.contains(outcome));
                Some(answer(200, all.map(|(index, outcome)| result(index, outcome)).collect::<String>()))
            }
            None if path.ends_with("/results") => Some(answer(
                200,
                outcomes.iter().enumerate().map(|(n, outcome)| result(n, outcome)).collect::<String>(),
            )),
            None => {
                let counts =
                    json!({"requested": 5, "deleted": 1, "failed": 1, "unknown": 1, "skipped": 1, "not_found": 1});
                Some(answer(200, deletion("finished", counts)))
            }
        }
    })
    .await;
    let all = fake.delete(&["--output", "jsonl", "1", "2", "3", "4", "5"]).await;
    assert_eq!((all.code, indices(&all.out)), (Some(1), vec![0, 1, 2, 3, 4]), "{}", all.err);
    let some = fake.delete(&["--output", "jsonl", "--outcome", "failed,unknown", "1", "2", "3", "4", "5"]).await;
    assert_eq!((some.code, indices(&some.out)), (Some(1), vec![1, 2]), "{}", some.err);
    // Somebody else's deletion, only looked at.
    let before = fake.asked().len();
    let followed = run(&["delete", "--follow", ID], &caller(&fake.url, &key("acme"))).await;
    assert_eq!(followed.code, Some(1), "{}", followed.err);
    assert!(followed.out.contains("not_found") && followed.err.contains("2 of 5 are absent"), "{}", followed.out);
    let cancelled = run(&["delete", "--follow", ID, "--cancel"], &caller(&fake.url, &key("acme"))).await;
    assert_eq!(cancelled.code, Some(1), "{}", cancelled.err);
    let lines = fake.lines().split_off(before);
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("POST")).collect::<Vec<_>>(),
        [&format!("{POST}/{ID}/cancel")]
    );
}

#[tokio::test]
async fn a_deletion_that_is_not_there_cannot_be_followed() {
    let fake = Fake::start(|_| Some(problem(404, "not_found", json!([])))).await;
    for more in [&[][..], &["--cancel"]] {
        let arguments = [&["delete", "--follow", ID], more].concat();
        let absent = run(&arguments, &caller(&fake.url, &key("acme"))).await;
        assert_eq!((absent.code, absent.out.as_str()), (Some(2), ""), "{}", absent.err);
    }
}

#[tokio::test]
async fn a_csv_file_is_deleted_where_its_rows_say() {
    let (sales, lists) = (mock("wethod").await, mock("talkdesk").await);
    let setup = Setup::new().mock("acme", "sales", &sales, |_| {}).mock("acme", "lists", &lists, |_| {});
    let gateway = setup.start().await;
    let known = ids("wethod", 3);
    known.iter().for_each(|each| sales.seed(&id(each), false));
    let phone = adapters::Identifier::Phone("+14155550133".into());
    lists.seed(&phone, false);
    let rows: String = known.iter().enumerate().map(|(n, id)| format!("{id},,r-{n},\r\n")).collect();
    let (_folder, path) =
        file("mixed.csv", &format!("CustomerID,phone,ref,connection\r\n{rows},+14155550133,,lists\r\n"));
    let key = key("acme");
    let url = gateway.url("");
    let arguments = ["delete", "--yes", "--id-column", "customerid", "--output", "jsonl", "--file", &path];
    let done = run(&arguments, &caller(&url, &key)).await;
    assert_eq!((done.code, indices(&done.out)), (Some(0), vec![0, 1, 2, 3]), "{}", done.err);
    assert_eq!((sales.deleted().len(), lists.deleted()), (3, vec![phone]));
    assert!(done.out.contains("r-2") && !note(&path).exists());
    // Once more it is another deletion: the first was seen to its end.
    let again = run(&arguments, &caller(&url, &key)).await;
    assert!(!again.err.contains("going on with"), "{}", again.err);
    gateway.stop().await;
}

#[tokio::test]

async fn more_contacts_than_a_document_holds_are_deleted() {
    let sales = mock("wethod").await;
    let gateway = Setup::new().mock("acme", "sales", &sales, |_| {}).start().await;
    let known = ids("wethod", 12_000);
    known.iter().take(11_990).for_each(|each| sales.seed(&id(each), false));
    let (_folder, path) = file("ids.txt", &known.join("\n"));
    let (key, url) = (key("acme"), gateway.url(""));
    let arguments = ["delete", "--yes", "--max", "12000", "--output", "jsonl", "--file", &path];
    let done = run(&arguments, &caller(&url, &key)).await;
    assert_eq!((done.code, indices(&done.out)), (Some(0), all_indices(12_000)), "{}", done.err);
    assert_eq!(sales.deleted().len(), 11_990);
    assert!(!note(&path).exists());
    let id = done.err.rsplit("deletion ").next().unwrap().trim();
    let arguments = ["delete", "--follow", id, "--output", "jsonl", "--outcome", "not_found"];
    let followed = run(&arguments, &caller(&url, &key)).await;
    assert_eq!((followed.code, indices(&followed.out)), (Some(0), (11_990..12_000).collect()), "{}", followed.err);
    gateway.stop().await;
}
