//! A thousand connections that are as slow as can be, in one way after another: each has to go in its time, its place is
//! free again, and a bystander hardly notices.
//!
//! The bystander asks at a steady pace in rounds that alternate: without the slow ones, and beside them. A ratio is of two
//! neighbours in one run, so that a machine that is busy with something else has the same part in both.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adapters::{DIALECTS, Identifier};
use futures_util::future::join_all;
use onedelete::mock::Mock;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::caller::{Caller, address};
use crate::figures::{Times, median, mib, ms};
use crate::gateway::{Gateway, Site, is_apart, key};
use crate::{Wrong, within};

/// Slow connections at the same time, and how many share an address.
const SLOW: usize = 1_000;
const AN_ADDRESS: usize = 190;
/// The gateway's patience in these tests: for a head, an idle connection, a body and a caller who reads nothing.
const PATIENCE: Duration = Duration::from_secs(6);
/// By then each is gone, whatever a busy machine adds.
const GONE: Duration = Duration::from_secs(60);
/// Between two bytes of one that is slow.
const DRIP: Duration = Duration::from_millis(250);
/// How long the bystander is measured, and how long it lets pass between two requests.
const MEASURED: Duration = Duration::from_millis(2_500);
const PAUSE: Duration = Duration::from_millis(5);
/// The bystander's p99 beside the slow ones, compared with that without them; the second is for a machine that others use as
/// well.
const SLOWER: [f64; 2] = [2.0, 4.0];
/// Memory that readers may take above slow heads: of large answers that nobody reads, a tenant has 32 MiB by default.
const MOST_KIB: u64 = 96 << 10;
/// Results of more than 500 bytes each: more than the kernel keeps for a caller who does not read.
const RESULTS: usize = 700;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Head,
    Body,
    Idle,
    Reader,
}

const MODES: [Mode; 4] = [Mode::Head, Mode::Body, Mode::Idle, Mode::Reader];

struct Stage {
    gateway: Gateway,
    mock: Mock,
    /// A deletion with more results than a connection holds.
    large: String,
}

pub(crate) async fn run(rounds: usize, shared: bool, quick: bool) -> Result<String, Wrong> {
    let (rounds, count) = if quick { (1, 100) } else { (rounds, SLOW) };
    let wethod = DIALECTS.iter().find(|one| one.profile.id == "wethod").unwrap();
    let lists = DIALECTS.iter().find(|one| one.profile.id == "talkdesk").unwrap();
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let (mock, bulk) = (Mock::start(wethod, local).await.unwrap(), Mock::start(lists, local).await.unwrap());
    let gateway = site(&mock, &bulk, if quick { Duration::from_secs(1) } else { PATIENCE }).start().await?;
    let large = large(&gateway).await?;
    let stage = Stage { gateway, mock, large };
    let mut next = 1_000_000;
    bystander(&stage, &mut next, if quick { Duration::from_millis(100) } else { MEASURED }).await?;
    let (mut figures, mut wrong, mut least) = (Vec::new(), Vec::new(), u64::MAX);
    for mode in if quick { &MODES[..1] } else { &MODES[..] } {
        let (mut ratios, mut longest) = (Vec::new(), Duration::ZERO);
        let (mut without, mut beside) = (Times::default(), Times::default());
        let mut memory = 0;
        for round in 0..rounds {
            let at = |what: &str| format!("{mode:?}, round {round}: {what}");
            let time = if quick { Duration::from_millis(200) } else { MEASURED };
            let mut before = bystander(&stage, &mut next, time).await.map_err(|wrong| at(&wrong))?;
            let (arrived, mut all_here) = watch::channel(0);
            let crowd = join_all((0..count).map(|n| slow(&stage, *mode, n, &arrived)));
            let standing_by = async {
                // Only when all of them are there.
                let _ = all_here.wait_for(|here| *here == count).await;
                let measured = bystander(&stage, &mut next, time).await;
                (measured, stage.gateway.vitals())
            };
            let (lasted, (during, vitals)) = tokio::join!(within("the end of the slow", GONE, crowd), standing_by);
            let lasted = lasted.map_err(|wrong| at(&wrong))?;
            let lasted: Vec<Duration> = lasted.into_iter().collect::<Result<_, Wrong>>().map_err(|wrong| at(&wrong))?;
            let mut during = during.map_err(|wrong| at(&wrong))?;
            longest = longest.max(lasted.into_iter().max().unwrap_or_default());
            memory = memory.max(vitals.rss_kib);
            ratios.push(during.percentile(99).as_secs_f64() / before.percentile(99).as_secs_f64());
            without.join(before);
            beside.join(during);
            emptied(&stage, count).await.map_err(|wrong| at(&wrong))?;
        }
        least = least.min(memory);
        if *mode == Mode::Reader && memory > least + MOST_KIB {
            wrong.push(format!("beside {mode:?}, the gateway has {} where it had {}", mib(memory), mib(least)));
        }
        let ratio = median(ratios);
        if !quick && ratio >= SLOWER[usize::from(shared)] {
            wrong.push(format!("beside {mode:?}, the bystander's p99 is {ratio:.2} times its own"));
        }
        figures.push(format!(
            "{mode:?}: all {count} gone after {:.1} s at most, bystander's p99 {} for {} ({ratio:.2} times, median of {rounds}), {}",
            longest.as_secs_f64(),
            ms(beside.percentile(99)),
            ms(without.percentile(99)),
            mib(memory),
        ));
    }
    stage.gateway.stop().await?;
    let cores = if is_apart() { "gateway on a core of its own" } else { "all on the same cores" };
    let figures = format!("{cores}; {}", figures.join("; "));
    if wrong.is_empty() { Ok(figures) } else { Err(format!("{}\n{figures}", wrong.join("\n"))) }
}

fn site(mock: &Mock, bulk: &Mock, patience: Duration) -> Site {
    let limits: toml::Table = "rate = \"off\"".parse().unwrap();
    let mut connections = toml::Table::new();
    for (name, mock) in [("c", mock), ("lists", bulk)] {
        let mut connection = mock.connection_toml();
        connection.insert("limits".to_owned(), limits.clone().into());
        connections.insert(name.to_owned(), connection.into());
    }
    let ms = patience.as_millis();
    let settings = format!(
        "store = {{ url = \"memory:\" }}\n[server]\nmin_body_bytes_per_s = 0\nmin_answer_bytes_per_s = 0\nheader_timeout_ms = {ms}\nidle_timeout_ms = {ms}\n\
         body_timeout_ms = {ms}\nwrite_timeout_ms = {ms}\n"
    );
    Site::new(&settings, &[("acme", connections)])
}

/// One that is as slow as can be: how long it was there, until the gateway had enough of it.
async fn slow(stage: &Stage, mode: Mode, n: usize, arrived: &watch::Sender<usize>) -> Result<Duration, Wrong> {
    let (host, key) = (stage.gateway.public, key("acme"));
    let socket = TcpSocket::new_v4().unwrap();
    if mode == Mode::Reader {
        socket.set_recv_buffer_size(4_096).unwrap();
    }
    socket.bind(SocketAddr::new(address(n, AN_ADDRESS), 0)).unwrap();
    let connected = socket.connect(host).await;
    let mut stream = connected.map_err(|err| format!("a slow caller found no place: {err}"))?;
    let (start, drip) = match mode {
        Mode::Head => (format!("DELETE /v1/connections/c/contacts/1 HTTP/1.1\r\nHost: {host}\r\nX-Y: "), Some(b'z')),
        Mode::Body => (
            format!(
                "POST /v1/deletions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\
                 Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
            ),
            Some(b' '),
        ),
        Mode::Idle => (String::new(), None),
        Mode::Reader => (
            format!(
                "GET /v1/deletions/{} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n",
                stage.large
            ),
            Some(b'\r'),
        ),
    };
    // Whoever is turned away at once is no slow caller.
    stream.write_all(start.as_bytes()).await.map_err(|err| format!("a slow caller was turned away: {err}"))?;
    let start = Instant::now();
    if mode == Mode::Reader {
        // The answer is there, and nobody reads it.
        let _ = stream.peek(&mut [0]).await;
    }
    arrived.send_modify(|here| *here += 1);
    hold_on(&mut stream, n, drip, mode == Mode::Reader).await;
    Ok(start.elapsed())
}

/// Sends a byte now and then, until the other side ends the connection.
async fn hold_on(stream: &mut TcpStream, n: usize, drip: Option<u8>, deaf: bool) {
    // Not all at the same moment: a thousand that are slow have nothing to do with each other.
    let first = tokio::time::Instant::now() + DRIP * (n % SLOW) as u32 / SLOW as u32;
    let mut ticks = tokio::time::interval_at(first, DRIP);
    let mut buffer = [0; 512];
    loop {
        tokio::select! {
            // One that does not read sees the end when it writes.
            read = stream.read(&mut buffer), if !deaf => {
                if matches!(read, Ok(0) | Err(_)) {
                    return;
                }
            }
            _ = ticks.tick() => {
                if let Some(byte) = drip && stream.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Asks for one contact after the other, at a steady pace.
async fn bystander(stage: &Stage, next: &mut usize, time: Duration) -> Result<Times, Wrong> {
    let mut times = Times::default();
    let lost = |err| format!("the bystander is not served: {err}");
    let from = SocketAddr::from(([127, 0, 2, 1], 0)).ip();
    let mut caller = Caller::connect(from, stage.gateway.public).await.map_err(lost)?;
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (start, host, key) = (Instant::now(), stage.gateway.public, key("acme"));
    while start.elapsed() < time {
        ticks.tick().await;
        *next += 1;
        stage.mock.seed(&Identifier::Id(next.to_string().into()), false);
        let request = format!(
            "DELETE /v1/connections/c/contacts/{next} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n\r\n"
        );
        let asked = Instant::now();
        let answer = within("the bystander's answer", Duration::from_secs(10), caller.ask(request.as_bytes())).await?;
        let answer = answer.map_err(lost)?;
        if answer.status != 200 {
            return Err(format!("the bystander was answered with {}", answer.status));
        }
        times.add(asked.elapsed());
    }
    Ok(times)
}

/// Waits until no more is open than before: what held a slow connection is free.
async fn emptied(stage: &Stage, count: usize) -> Result<(), Wrong> {
    let free = async {
        while stage.gateway.vitals().descriptors >= count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("the places of slow connections", GONE, free).await
}

/// A deletion that is finished, with more results than a connection holds.
async fn large(gateway: &Gateway) -> Result<String, Wrong> {
    let long = "\u{1f40c}".repeat(128);
    let contact = |n: usize| json!({ "phone": format!("+1415{n:07}"), "ref": long });
    let contacts: Vec<_> = (0..RESULTS).map(contact).collect();
    let body = json!({ "connection": "lists", "contacts": contacts }).to_string();
    let (host, key) = (gateway.public, key("acme"));
    let head = format!("host: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json");
    let request = format!("POST /v1/deletions HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let lost = |err| format!("the large deletion is not answered: {err}");
    let mut caller = Caller::connect(SocketAddr::from(([127, 0, 2, 1], 0)).ip(), host).await.map_err(lost)?;
    let answer = caller.ask(request.as_bytes()).await.map_err(lost)?;
    let whole: serde_json::Value = serde_json::from_slice(answer.body).unwrap_or_default();
    match (answer.status, whole["id"].as_str()) {
        (200 | 207, Some(id)) => Ok(id.to_owned()),
        (status, _) => Err(format!("the large deletion is answered with {status}")),
    }
}
