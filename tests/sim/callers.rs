//! The callers of one tenant: they ask, ask again where an answer was lost, look, cancel and hang up.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::Wrong;
use crate::gateway::{PUBLIC, key};
use crate::laws::few;
use crate::net::Dialler;
use crate::orders::Order;
use crate::told::Told;
use crate::trace::Trace;

/// A caller gives up on an answer after so long.
const PATIENCE: Duration = Duration::from_secs(40);
/// Until everything is finished once all is well: budgets, pauses of an hour after wrong sign-ins, and more.
const FINISH: Duration = Duration::from_secs(6 * 3_600);

/// All callers of one tenant.
pub(crate) struct Callers {
    pub(crate) tenant: usize,
    pub(crate) dialler: Dialler,
    pub(crate) told: Told,
    pub(crate) trace: Arc<Trace>,
    /// Whether all is well again: then nobody hangs up.
    pub(crate) peace: watch::Receiver<bool>,
}

/// An answer: its status and its JSON.
struct Answer {
    status: u16,
    json: Value,
}

impl Callers {
    /// Places one order and goes on with it, until all is well.
    pub(crate) async fn carry(&self, order: &Arc<Order>, mut rng: Rng, moody: bool, after_ms: u64) {
        let mut peace = self.peace.clone();
        tokio::select! {
            biased;
            _ = peace.wait_for(|peace| *peace) => {}
            () = async {
                sleep(Duration::from_millis(after_ms)).await;
                if self.submit(order, &mut rng, moody).await {
                    self.follow(order, &mut rng, moody).await;
                }
            } => {}
        }
    }

    /// Asks until it is acknowledged. Whether it was: without a key, it is asked for once.
    async fn submit(&self, order: &Arc<Order>, rng: &mut Rng, moody: bool) -> bool {
        self.told.asked(order);
        loop {
            let hurried = moody && rng.u8(..4) == 0;
            let patience = if hurried { Duration::from_millis(rng.u64(1..5_000)) } else { PATIENCE };
            match timeout(patience, self.post(order)).await.ok().flatten() {
                Some(answer) if is_acknowledgement(&answer) => return true,
                Some(answer) if ![409, 429, 503].contains(&answer.status) => {
                    self.told.object(format!("order {}: answered with {}: {}", order.n, answer.status, answer.json));
                    return false;
                }
                // Without `attempted: false` it may have been accepted.
                Some(answer) if order.key.is_none() && answer.json["attempted"] != false => return false,
                None if order.key.is_none() => return false,
                _ => sleep(Duration::from_millis(rng.u64(100..5_000))).await,
            }
        }
    }

    async fn post(&self, order: &Order) -> Option<Answer> {
        let (query, kind) = match order.lines {
            true => (format!("?reference=DSR-{}", order.n), "application/x-ndjson"),
            false => (String::new(), "application/json"),
        };
        let mut head = format!("POST /v1/deletions{query} HTTP/1.1\r\ncontent-type: {kind}\r\n");
        if let Some(key) = &order.key {
            head += &format!("idempotency-key: {key}\r\n");
        }
        if order.respond_async {
            head += "prefer: respond-async\r\n";
        }
        let before = self.told.known(order.n);
        let answer = self.ask(head, &order.body).await?;
        if is_acknowledgement(&answer) {
            self.told.heard(order.n, before, answer.status, &answer.json);
        }
        Some(answer)
    }

    /// Looks at a deletion now and then until it is finished; some have it cancelled.
    async fn follow(&self, order: &Order, rng: &mut Rng, moody: bool) {
        let mut pause = Duration::from_millis(rng.u64(50..2_000));
        while !self.told.is_finished(order.n) && order.followed {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(120));
            let Some(id) = self.id(order.n) else { return };
            if moody && rng.u8(..6) == 0 {
                let _ = timeout(PATIENCE, self.cancel(order.n, &id)).await;
            }
            if let Ok(Err(wrong)) = timeout(PATIENCE, self.look(order.n, &id)).await {
                self.told.object(wrong);
            }
        }
    }

    async fn cancel(&self, order: usize, id: &str) {
        self.told.cancelling(order);
        let before = self.told.known(order);
        let head = format!("POST /v1/deletions/{id}/cancel HTTP/1.1\r\nprefer: respond-async\r\n");
        match self.ask(head, "").await {
            Some(answer) if [200, 202].contains(&answer.status) => self.told.heard(order, before, 0, &answer.json),
            None | Some(Answer { status: 429 | 503, .. }) => {}
            Some(answer) => self.told.object(format!("{id} was to be cancelled: answered with {}", answer.status)),
        }
    }

    /// Looks at a deletion once. Wrong if it is answered and not there; `false` if it is not answered.
    async fn look(&self, order: usize, id: &str) -> Result<bool, Wrong> {
        let before = self.told.known(order);
        let Some(answer) = self.ask(format!("GET /v1/deletions/{id} HTTP/1.1\r\n"), "").await else {
            return Ok(false);
        };
        match answer.status {
            200 => {
                self.told.heard(order, before, 0, &answer.json);
                Ok(true)
            }
            429 | 503 => Ok(false),
            status => Err(format!("{id} was acknowledged, and is answered with {status}")),
        }
    }

    /// Waits until every acknowledged deletion is finished: all is well by now.
    pub(crate) async fn finish(&self, mut rng: Rng) -> Result<(), Wrong> {
        let finishing = async {
            let mut unanswered = Vec::new();
            self.told.each(|memo| {
                if memo.id.is_none() && memo.order.key.is_some() {
                    unanswered.push(Arc::clone(&memo.order));
                }
            });
            for order in unanswered {
                self.submit(&order, &mut rng, false).await;
            }
            let mut pause = Duration::from_millis(500);
            loop {
                let open: Vec<_> = self.told.acknowledged().into_iter().filter(|(.., finished)| !finished).collect();
                if open.is_empty() {
                    return Ok(());
                }
                for (order, id, _) in open {
                    self.look(order, &id).await?;
                }
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(300));
            }
        };
        timeout(FINISH, finishing).await.unwrap_or_else(|_| Err(format!("not finished {FINISH:?} after all was well")))
    }

    /// Looks once at every acknowledged deletion.
    pub(crate) async fn look_at_all(&self) -> Result<(), Wrong> {
        for (order, id, _) in self.told.acknowledged() {
            let mut seen = false;
            for _ in 0..5 {
                seen = seen || self.look(order, &id).await?;
                if !seen {
                    sleep(Duration::from_secs(1)).await;
                }
            }
            if !seen {
                return Err(format!("{id} was acknowledged, and cannot be looked at"));
            }
        }
        let wrong = self.told.wrong();
        if wrong.is_empty() { Ok(()) } else { Err(few(&wrong)) }
    }

    fn id(&self, order: usize) -> Option<String> {
        self.told.acknowledged().into_iter().find(|(n, ..)| *n == order).map(|(_, id, _)| id)
    }

    /// One request on a connection of its own. `None` if the answer was lost.
    async fn ask(&self, head: String, body: &str) -> Option<Answer> {
        let asking = async {
            let mut line = self.dialler.connect(PUBLIC).await.ok()?;
            let (key, length) = (key(self.tenant), body.len());
            let rest = format!(
                "host: gateway\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            line.write_all(format!("{head}{rest}{body}").as_bytes()).await.ok()?;
            let mut whole = Vec::new();
            // What came before a reset is not an answer, unless it is whole.
            let _ = line.read_to_end(&mut whole).await;
            read(&whole)
        };
        let answer = timeout(PATIENCE * 2, asking).await.ok().flatten();
        self.trace.put("answered", self.tenant as u64, answer.as_ref().map_or(0, |answer| u64::from(answer.status)));
        answer
    }
}

fn is_acknowledgement(answer: &Answer) -> bool {
    [200, 202, 207].contains(&answer.status)
}

/// A whole answer, if it is one.
fn read(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let body = &bytes[end + 4..];
    let whole = match header("content-length:") {
        Some(length) => body.get(..length.parse().ok()?)?.to_vec(),
        None => chunks(body)?,
    };
    Some(Answer { status, json: serde_json::from_slice(&whole).unwrap_or_default() })
}

/// A body that came in chunks, if the last one is there.
fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 4 + size..)?;
    }
}
