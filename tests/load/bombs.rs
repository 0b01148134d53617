//! Upstreams whose replies are too large, without an end, or too slow, many at once: the gateway's memory stays what it is,
//! each call ends at the cap or at its deadline, and nobody is told more than that the outcome is not known.
//!
//! The upstreams are bare sockets that write what a test says, and say it once all calls are there. What a dialect makes of odd replies is tested elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adapters::DIALECTS;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::caller::{Caller, address};
use crate::figures::{mib, ms};
use crate::gateway::{Gateway, Site, key};
use crate::{Wrong, within};

/// Replies of each kind at the same time.
const EACH: usize = 50;
/// What a gzip bomb unpacks to.
const UNPACKED: u64 = 300 << 20;
/// How long one attempt may take here, and how much later its end may be on a busy machine.
const DEADLINE: Duration = Duration::from_secs(5);
const SLACK: Duration = Duration::from_secs(5);
/// How long the first call waits for the others.
const TOGETHER: Duration = Duration::from_secs(2);
/// Memory beside what the idle gateway has.
const MOST_KIB: u64 = 64 << 10;
/// What the gateway reads of a reply at most, and what the kernel's buffers on both sides can hold beside that.
const CAP: u64 = 1 << 20;
const BUFFERS: u64 = 40 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bomb {
    /// A whole reply, compressed as nobody asked for.
    Gzip,
    /// The same without saying that it is: bytes that are no reply of the dialect's.
    Unsaid,
    /// A body without an end, as fast as it is taken.
    Endless,
    /// A body without an end, of chunks.
    Chunks,
    /// A head without an end.
    Head,
    /// A byte in a second.
    Drip,
}

const BOMBS: [Bomb; 6] = [Bomb::Gzip, Bomb::Unsaid, Bomb::Endless, Bomb::Chunks, Bomb::Head, Bomb::Drip];

/// A bare upstream. Its tasks end with the runtime.
struct Bare {
    address: SocketAddr,
    calls: watch::Sender<usize>,
    open: AtomicUsize,
    /// The most bytes that were taken of one reply.
    taken: AtomicU64,
}

pub(crate) async fn run(quick: bool) -> Result<String, Wrong> {
    let (each, deadline) = if quick { (4, Duration::from_secs(1)) } else { (EACH, DEADLINE) };
    let packed = Arc::new(pack(UNPACKED));
    let mut upstreams = Vec::new();
    for bomb in BOMBS {
        upstreams.push((bomb, Bare::start(bomb, Arc::clone(&packed), each).await));
    }
    let site = site(&upstreams, each, deadline);
    let gateway = site.start().await?;
    // What is made at the first request is not the bombs'.
    warm_up(&gateway).await?;
    let idle = gateway.vitals().rss_kib;
    let (mut told, mut most) = (Vec::new(), 0);
    for (n, (bomb, bare)) in upstreams.iter().enumerate() {
        let (longest, peak) = at_once(&gateway, *bomb, n * each, each, deadline).await?;
        let gone = async {
            while bare.open.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(&format!("the end of the connections with {bomb:?}"), SLACK, gone).await?;
        let (calls, taken) = (*bare.calls.borrow(), bare.taken.load(Ordering::Relaxed));
        if calls != each {
            return Err(format!("{calls} calls where {each} contacts were asked for, with {bomb:?}"));
        }
        if taken > CAP + BUFFERS {
            return Err(format!("{taken} bytes of one reply were taken, with {bomb:?}"));
        }
        if longest > deadline + SLACK {
            return Err(format!("{bomb:?}: a call ended after {longest:?}"));
        }
        let grown = peak.saturating_sub(idle);
        most = most.max(grown);
        told.push(format!("{bomb:?} {} in {}, {} taken", mib(grown), ms(longest), mib(taken >> 10)));
    }
    let complaints = gateway.complaints();
    const EXPLAINED: [&str; 3] = ["left alone", "a call failed", "some contacts are not known to be gone"];
    if let Some((line, _)) = complaints.iter().find(|(line, _)| !EXPLAINED.iter().any(|known| line.contains(known))) {
        return Err(format!("the log has {line:?}"));
    }
    gateway.stop().await?;
    let figures = format!(
        "{each} replies of each of {} kinds at once (gzip: {} bytes for 300 MiB), all unknown after {} s + {} s at most, memory {} \
         idle and {} more at its peak; the most memory, the longest and what was taken of one reply: {}",
        BOMBS.len(),
        packed.len(),
        deadline.as_secs(),
        SLACK.as_secs(),
        mib(idle),
        mib(most),
        told.join("; "),
    );
    if most > MOST_KIB { Err(format!("memory grew too much: {figures}")) } else { Ok(figures) }
}

/// Asks for so many contacts at an upstream at once: how long the last took, and the most memory meanwhile.
async fn at_once(
    gateway: &Gateway,
    bomb: Bomb,
    first: usize,
    each: usize,
    deadline: Duration,
) -> Result<(Duration, u64), Wrong> {
    let ended = AtomicBool::new(false);
    let watching = async {
        let mut peak = 0;
        while !ended.load(Ordering::Relaxed) {
            peak = gateway.vitals().rss_kib.max(peak);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        peak
    };
    let asking = async {
        let asked = join_all((0..each).map(|n| ask(gateway, bomb, first + n)));
        let answers = within("all answers", deadline + SLACK + SLACK, asked).await;
        ended.store(true, Ordering::Relaxed);
        answers
    };
    let (peak, answers) = tokio::join!(watching, asking);
    let answers: Vec<Duration> = answers?.into_iter().collect::<Result<_, Wrong>>()?;
    Ok((answers.into_iter().max().unwrap_or_default(), peak))
}

/// A connection to each upstream, with one attempt and room for all calls at once.
fn site(upstreams: &[(Bomb, Arc<Bare>)], each: usize, deadline: Duration) -> Site {
    let wethod = DIALECTS.iter().find(|one| one.profile.id == "wethod").unwrap();
    let mut connections = toml::Table::new();
    let ms = deadline.as_millis();
    for (bomb, bare) in upstreams {
        let mut connection: toml::Table = wethod.example.parse().unwrap();
        connection.insert("base_url".to_owned(), format!("http://{}", bare.address).into());
        let more: toml::Table = format!(
            "limits = {{ rate = \"off\", max_in_flight = {each} }}\nretry = {{ max_attempts = 1 }}\n\
             timeouts = {{ response_ms = {ms} }}"
        )
        .parse()
        .unwrap();
        connection.extend(more);
        connections.insert(format!("{bomb:?}").to_lowercase(), connection.into());
    }
    // The places of the process are as many as they are by default; being busy with one kind keeps nobody from the next.
    let settings = "store = { url = \"memory:\" }\nserver = { max_lag_ms = 0 }\nupstream = { max_in_flight_per_tenant = 64, breaker_failures = 1000 }";
    Site::new(settings, &[("acme", connections)])
}

/// Plans a deletion, which sends nothing.
async fn warm_up(gateway: &Gateway) -> Result<(), Wrong> {
    let body = r#"{"connection":"gzip","contacts":[1],"dry_run":true}"#;
    let answer =
        call(gateway, 0, &format!("POST /v1/deletions HTTP/1.1\r\ncontent-length: {}", body.len()), body).await?;
    if answer.0 == 200 { Ok(()) } else { Err(format!("a dry run is answered with {}", answer.0)) }
}

/// Asks for one contact: how long it took until it was known that its outcome is not.
async fn ask(gateway: &Gateway, bomb: Bomb, n: usize) -> Result<Duration, Wrong> {
    let start = Instant::now();
    let connection = format!("{bomb:?}").to_lowercase();
    let line = format!("DELETE /v1/connections/{connection}/contacts/{} HTTP/1.1", 1_000_000 + n);
    let (status, json) = call(gateway, n, &line, "").await?;
    let is_unknown = status == 504 && json["outcome"] == "unknown" && json["absent"].is_null();
    if is_unknown { Ok(start.elapsed()) } else { Err(format!("{bomb:?} is answered with {status}: {json}")) }
}

async fn call(gateway: &Gateway, n: usize, line: &str, body: &str) -> Result<(u16, Value), Wrong> {
    let lost = |err| format!("a request is not answered: {err}");
    let mut caller = Caller::connect(address(n, 190), gateway.public).await.map_err(lost)?;
    let request = format!(
        "{line}\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\r\n{body}",
        gateway.public,
        key("acme")
    );
    // A DELETE takes no body, and no kind of one.
    let request = if body.is_empty() { request.replace("content-type: application/json\r\n", "") } else { request };
    let answer = caller.ask(request.as_bytes()).await.map_err(lost)?;
    Ok((answer.status, serde_json::from_slice(answer.body).unwrap_or_default()))
}

impl Bare {
    async fn start(bomb: Bomb, packed: Arc<Vec<u8>>, each: usize) -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let bare = Self { address, calls: watch::Sender::new(0), open: AtomicUsize::new(0), taken: AtomicU64::new(0) };
        let (bare, tasks) = (Arc::new(bare), tokio_util::task::TaskTracker::new());
        let served = Arc::clone(&bare);
        let connections = tasks.clone();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (bare, packed) = (Arc::clone(&served), Arc::clone(&packed));
                connections.spawn(async move {
                    bare.open.fetch_add(1, Ordering::Relaxed);
                    bare.serve(stream, bomb, &packed, each).await;
                    bare.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        bare
    }

    async fn serve(&self, mut stream: TcpStream, bomb: Bomb, packed: &[u8], each: usize) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut head).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        // All at once: the first that failed would keep the others from being sent.
        self.calls.send_modify(|calls| *calls += 1);
        let mut calls = self.calls.subscribe();
        let _ = tokio::time::timeout(TOGETHER, calls.wait_for(|calls| *calls >= each)).await;
        let whole = |encoding: &str| {
            let length = packed.len();
            let head = format!("HTTP/1.1 200 OK\r\n{encoding}Connection: close\r\nContent-Length: {length}\r\n\r\n");
            [head.as_bytes(), packed].concat()
        };
        let said = |lines: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{lines}").into_bytes();
        let (first, again, pause) = match bomb {
            Bomb::Gzip => (whole("Content-Type: application/json\r\nContent-Encoding: gzip\r\n"), Vec::new(), None),
            Bomb::Unsaid => (whole("Content-Type: application/json\r\n"), Vec::new(), None),
            Bomb::Endless => (said("Content-Length: 1000000000000\r\n\r\n["), vec![b' '; 1 << 16], None),
            Bomb::Chunks => {
                let chunk = [b"10000\r\n".as_slice(), &[b' '; 1 << 16], b"\r\n"].concat();
                (said("Transfer-Encoding: chunked\r\n\r\n"), chunk, None)
            }
            Bomb::Head => (said(""), [b"X-Y: ".as_slice(), &[b'z'; 200], b"\r\n"].concat(), None),
            Bomb::Drip => (said("Content-Length: 100\r\n\r\n"), b" ".to_vec(), Some(Duration::from_secs(1))),
        };
        let mut written = 0;
        let mut next = &first;
        while stream.write_all(next).await.is_ok() {
            written += next.len() as u64;
            self.taken.fetch_max(written, Ordering::Relaxed);
            next = &again;
            if again.is_empty() {
                // All was said; the other side may hang up, or keep the connection for a while.
                let _ = stream.shutdown().await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                return;
            }
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// So many zero bytes, packed as `gzip` packs them (RFC 1951, 1952).
///
/// After the first byte, each match says "258 bytes as one byte back". With a table in which a match takes one bit and so
/// does its distance, 258 bytes are 2 bits.
fn pack(zeros: u64) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits = Bits::default();
    // One block, the last, with tables of its own: 286 lengths of literals and one of a distance.
    for (value, count) in [(1, 1), (2, 2), (29, 5), (0, 5), (14, 4)] {
        bits.push(&mut out, value, count);
    }
    // Lengths of the codes for lengths, in the order of the format: 18 and 1 take one and two bits, 2 takes two.
    for length in [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 2] {
        bits.push(&mut out, length, 3);
    }
    // 18 is 0, 1 is 10, 2 is 11, each from its highest bit on.
    let (zeros_of, one, two) = ((0, 1), (0b01, 2), (0b11, 2));
    let skip = |bits: &mut Bits, out: &mut Vec<u8>, count: u32| {
        bits.push(out, zeros_of.0, zeros_of.1);
        bits.push(out, count - 11, 7);
    };
    // The literal 0 takes two bits, the end two, and a match of 258 one.
    bits.push(&mut out, two.0, two.1);
    skip(&mut bits, &mut out, 138);
    skip(&mut bits, &mut out, 117);
    bits.push(&mut out, two.0, two.1);
    skip(&mut bits, &mut out, 28);
    bits.push(&mut out, one.0, one.1);
    // The distance of one byte takes one bit.
    bits.push(&mut out, one.0, one.1);
    // 285 is 0, the literal 10, the end 11; the distance is 0.
    let matches = (zeros - 1) / 258;
    let literals = zeros - matches * 258;
    for _ in 0..literals {
        bits.push(&mut out, 0b01, 2);
    }
    for _ in 0..matches {
        bits.push(&mut out, 0, 2);
    }
    bits.push(&mut out, 0b11, 2);
    bits.end(&mut out);
    // A sum that is wrong would be found after all was unpacked; nobody gets so far.
    out.extend([0; 4]);
    out.extend((zeros as u32).to_le_bytes());
    out
}

/// Bits on their way into bytes, the lowest first.
#[derive(Default)]
struct Bits {
    held: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, out: &mut Vec<u8>, value: u32, count: u32) {
        self.held |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.count > 0 {
            out.push(self.held as u8);
        }
        *self = Self::default();
    }
}
