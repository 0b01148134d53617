//! The callers: they ask, repeat what was not answered, and look at what they were told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use tokio::sync::watch;

use crate::gateway::key;
pub(crate) use crate::laws::few;
use crate::orders::{Maker, Order};
use crate::told::Told;
use crate::world::World;
use crate::{Wrong, within};

/// Between two tries: a gateway that is being started again has nothing to be waited for by.
const PAUSE: Duration = Duration::from_millis(5);
/// Until everything that was accepted is finished.
const FINISH: Duration = Duration::from_secs(60);

/// Finished deletions that are looked at again after each restart.
const LOOKED_AT_AGAIN: usize = 150;

/// A client of the gateway, wherever that listens now.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) told: Arc<Told>,
}

/// An answer: its status, whether it was replayed, its JSON.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) replayed: bool,
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn is_acknowledgement(&self) -> bool {
        [200, 202, 207].contains(&self.status)
    }
}

impl Client {
    pub(crate) fn new() -> Self {
        let http = reqwest::Client::builder().no_proxy().retry(reqwest::retry::never());
        let http = http.timeout(Duration::from_secs(40)).pool_idle_timeout(Duration::from_secs(3)).build().unwrap();
        Self { http, told: Arc::default() }
    }

    /// Asks once. `None` if the answer was lost.
    pub(crate) async fn post(&self, to: SocketAddr, order: &Order) -> Option<Answer> {
        let (query, kind) = match order.lines {
            true => (format!("?reference=DSR-{}", order.n), "application/x-ndjson"),
            false => (String::new(), "application/json"),
        };
        let mut request = self.http.post(format!("http://{to}/v1/deletions{query}")).header("content-type", kind);
        if let Some(key) = &order.key {
            request = request.header("idempotency-key", key);
        }
        if order.respond_async {
            request = request.header("prefer", "respond-async");
        }
        let before = self.told.known(order.n);
        let answer = send(request.bearer_auth(key()).body(order.body.clone())).await?;
        if answer.is_acknowledgement() {
            self.told.heard(order.n, before, answer.status, &answer.json);
        }
        Some(answer)
    }

    /// Asks until it is acknowledged, at whatever gateway there is. Whether it was: without a key, it is asked for once.
    pub(crate) async fn submit(&self, to: &watch::Receiver<Option<SocketAddr>>, order: &Arc<Order>) -> bool {
        self.told.asked(order);
        let mut to = to.clone();
        loop {
            let Ok(Some(address)) = to.wait_for(Option::is_some).await.map(|address| *address) else { return false };
            match self.post(address, order).await {
                Some(answer) if answer.is_acknowledgement() => return true,
                Some(answer) if answer.status != 503 => {
                    self.told.object(format!("order {}: answered with {}: {}", order.n, answer.status, answer.json));
                    return false;
                }
                // Without `attempted: false` it may have been accepted.
                Some(answer) if order.key.is_none() && answer.json["attempted"] != false => return false,
                None if order.key.is_none() => return false,
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Asks for one deletion after the other, until told to end.
    pub(crate) async fn load(
        &self,
        world: &World,
        to: watch::Receiver<Option<SocketAddr>>,
        mut maker: impl FnMut(&World) -> Arc<Order>,
        end: watch::Receiver<bool>,
    ) {
        while !*end.borrow() {
            let order = maker(world);
            if self.submit(&to, &order).await && order.followed {
                // So that not all that is asked for piles up behind the answers that nobody waits for.
                self.follow(&to, order.n, &end).await;
            }
        }
    }

    /// Looks at a deletion until it is finished, or until told to end.
    async fn follow(&self, to: &watch::Receiver<Option<SocketAddr>>, order: usize, end: &watch::Receiver<bool>) {
        while !*end.borrow() {
            let Some((_, id, false)) = self.told.acknowledged().into_iter().find(|(n, ..)| *n == order) else { return };
            let address = *to.borrow();
            if let Some(address) = address {
                let _ = self.look(address, order, &id).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks at a deletion once. Wrong if it is answered and not there; `false` if it is not answered.
    pub(crate) async fn look(&self, to: SocketAddr, order: usize, id: &str) -> Result<bool, Wrong> {
        let request = self.http.get(format!("http://{to}/v1/deletions/{id}")).bearer_auth(key());
        let before = self.told.known(order);
        let Some(answer) = send(request).await else { return Ok(false) };
        match answer.status {
            200 => {
                self.told.heard(order, before, 0, &answer.json);
                Ok(true)
            }
            503 => Ok(false),
            status => Err(format!("{id} was acknowledged, and is answered with {status}")),
        }
    }

    /// Has a deletion cancelled. Whether that is certain now.
    pub(crate) async fn cancel(&self, to: SocketAddr, order: usize, id: &str) -> Result<bool, Wrong> {
        self.told.cancelling(order);
        let request = self.http.post(format!("http://{to}/v1/deletions/{id}/cancel")).bearer_auth(key());
        let before = self.told.known(order);
        let Some(answer) = send(request.header("prefer", "respond-async")).await else { return Ok(false) };
        match answer.status {
            200 | 202 => {
                self.told.heard(order, before, 0, &answer.json);
                Ok(true)
            }
            503 => Ok(false),
            status => Err(format!("{id} was to be cancelled, which is answered with {status}")),
        }
    }

    /// Looks once at every acknowledged deletion.
    pub(crate) async fn look_at_all(&self, to: SocketAddr) -> Result<(), Wrong> {
        self.look_at(to, self.told.acknowledged()).await
    }

    /// Looks once at those that were not seen finished, and at the latest of those that were.
    pub(crate) async fn look_at_latest(&self, to: SocketAddr) -> Result<(), Wrong> {
        let mut all = self.told.acknowledged();
        let mut again = LOOKED_AT_AGAIN;
        all.reverse();
        all.retain(|(.., finished)| {
            again = again.saturating_sub(usize::from(*finished));
            !finished || again > 0
        });
        self.look_at(to, all).await
    }

    async fn look_at(&self, to: SocketAddr, all: Vec<(usize, String, bool)>) -> Result<(), Wrong> {
        let looks = stream::iter(all).map(async |(order, id, _)| match self.look(to, order, &id).await {
            Ok(true) => None,
            Ok(false) => Some(format!("{id} was acknowledged, and cannot be looked at")),
            Err(wrong) => Some(wrong),
        });
        let wrong: Vec<_> = looks.buffer_unordered(8).filter_map(std::future::ready).collect().await;
        if wrong.is_empty() { Ok(()) } else { Err(few(&wrong)) }
    }

    /// How many acknowledged deletions are not there.
    pub(crate) async fn missing(&self, to: SocketAddr) -> usize {
        let mut missing = 0;
        for (order, id, _) in self.told.acknowledged() {
            missing += usize::from(self.look(to, order, &id).await.is_err());
        }
        missing
    }

    /// Waits until every acknowledged deletion is finished.
    pub(crate) async fn finish_all(&self, to: SocketAddr) -> Result<(), Wrong> {
        let finished = async {
            loop {
                let open: Vec<_> = self.told.acknowledged().into_iter().filter(|(.., finished)| !finished).collect();
                let Some((order, id, _)) = open.first() else { return Ok(()) };
                self.look(to, *order, id).await?;
                tokio::time::sleep(PAUSE).await;
            }
        };
        let finished = within("the end of all deletions", FINISH, finished).await;
        finished.and_then(|inner| inner).map_err(|wrong| {
            let open = self.told.acknowledged().iter().filter(|(.., finished)| !finished).count();
            format!("{wrong} ({open} acknowledged deletions are not finished)")
        })
    }

    /// The status of a page of the admin listener; 0 if it is not answered.
    pub(crate) async fn admin(&self, to: SocketAddr, page: &str) -> u16 {
        send(self.http.get(format!("http://{to}/{page}"))).await.map_or(0, |answer| answer.status)
    }
}

/// Orders for several clients at once, each with a number of its own.
pub(crate) fn shared(maker: Maker) -> impl Fn(&World) -> Arc<Order> {
    let maker = std::sync::Mutex::new(maker);
    move |world| maker.lock().unwrap().order(world)
}

async fn send(request: reqwest::RequestBuilder) -> Option<Answer> {
    let mut reply = request.send().await.ok()?;
    let status = reply.status().as_u16();
    let replayed = reply.headers().get("idempotency-replayed").is_some_and(|value| value == "true");
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
    }
    Some(Answer { status, replayed, json: serde_json::from_slice(&body).unwrap_or_default() })
}
