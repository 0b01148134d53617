//! The callers of several gateways: they ask at one, repeat at another what was not answered, look at a third, and have
//! deletions cancelled where they do not run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use tokio::sync::watch;

use super::cluster::Cluster;
use crate::client::{Client, shared};
use crate::orders::{Maker, Order};
use crate::world::World;

const CLIENTS: usize = 4;
const LARGEST: usize = 150;
/// More than are worked as one part.
const OF_MANY: usize = 10_000;
/// What takes longer is taken for lost: the gateway may be frozen.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_WITH_MANY: Duration = Duration::from_secs(8);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two looks at a deletion of many contacts.
const PAUSE_WITH_MANY: Duration = Duration::from_millis(700);

pub(super) struct Callers<'c> {
    pub(super) client: &'c Client,
    pub(super) world: &'c World,
    pub(super) cluster: &'c Cluster<'c>,
    pub(super) end: watch::Receiver<bool>,
    pub(super) quick: bool,
}

impl Callers<'_> {
    /// Asks until told to end. How many deletions were cancelled.
    pub(super) async fn load(&self, mut rng: Rng) -> usize {
        let order = shared(Maker::new(rng.fork(), LARGEST, "gateways").keyless());
        let cancels = AtomicUsize::new(0);
        let clients = [(); CLIENTS].map(|()| self.one(rng.fork(), || order(self.world), &cancels, 5));
        // Orders of many are numbered beside the others.
        let mut many = Maker::new(rng.fork(), LARGEST, "many").from(1_000_000);
        let (mut sizes, most) = (rng.fork(), if self.quick { 200 } else { 2_500 });
        let large = move || many.large(self.world, OF_MANY + sizes.usize(100..most));
        // One after the other; every third is cancelled.
        let large = self.one(rng.fork(), large, &cancels, 3);
        tokio::join!(join_all(clients), large);
        cancels.into_inner()
    }

    /// One caller, who has one deletion in so many cancelled, of those that are looked after.
    async fn one(
        &self,
        mut rng: Rng,
        mut order: impl FnMut() -> Arc<Order>,
        cancels: &AtomicUsize,
        cancelled_in: usize,
    ) {
        while !*self.end.borrow() {
            let order = order();
            let cancel = order.respond_async && rng.usize(..cancelled_in) == 0;
            let Some(at) = self.submit(&mut rng, &order).await else { continue };
            if cancel {
                tokio::time::sleep(Duration::from_millis(rng.u64(..400))).await;
                self.cancel(&mut rng, &order, at).await;
                cancels.fetch_add(1, Ordering::Relaxed);
            }
            if order.followed || cancel {
                self.follow(&mut rng, &order, at).await;
            }
        }
    }

    /// Asks until it is acknowledged: where. `None` if it was refused, or lost and without a key.
    async fn submit(&self, rng: &mut Rng, order: &Arc<Order>) -> Option<SocketAddr> {
        let told = &self.client.told;
        told.asked(order);
        let patience = if order.lines { PATIENCE_WITH_MANY } else { PATIENCE };
        let mut at = None;
        loop {
            let door = self.cluster.door(rng, at);
            at = Some(door);
            let answer = tokio::time::timeout(patience, self.client.post(door, order)).await.ok().flatten();
            match answer {
                Some(answer) if answer.is_acknowledgement() => return at,
                Some(answer) if answer.status != 503 => {
                    told.object(format!("order {}: answered with {}: {}", order.n, answer.status, answer.json));
                    return None;
                }
                Some(answer) if order.key.is_none() && answer.json["attempted"] != false => return None,
                None if order.key.is_none() => return None,
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Has it cancelled at another gateway than that which took it, and again until that is certain.
    async fn cancel(&self, rng: &mut Rng, order: &Order, taken_at: SocketAddr) {
        let Some(id) = self.id(order) else { return };
        loop {
            let door = self.cluster.door(rng, Some(taken_at));
            match tokio::time::timeout(PATIENCE, self.client.cancel(door, order.n, &id)).await {
                Ok(Ok(true)) => return,
                Ok(Err(wrong)) => return self.client.told.object(wrong),
                Ok(Ok(false)) | Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Looks, or asks for the same once more, at other gateways than the last, until it is finished or told to end.
    async fn follow(&self, rng: &mut Rng, order: &Arc<Order>, at: SocketAddr) {
        let Some(id) = self.id(order) else { return };
        let (pause, mut at) = (if order.lines { PAUSE_WITH_MANY } else { PAUSE }, at);
        while !*self.end.borrow() && !self.client.told.is_finished(order.n) {
            at = self.cluster.door(rng, Some(at));
            if order.key.is_some() && !order.lines && rng.u8(..8) == 0 {
                let _ = tokio::time::timeout(PATIENCE, self.client.post(at, order)).await;
            } else if let Ok(Err(wrong)) = tokio::time::timeout(PATIENCE, self.client.look(at, order.n, &id)).await {
                return self.client.told.object(wrong);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn id(&self, order: &Order) -> Option<String> {
        self.client.told.acknowledged().into_iter().find(|(n, ..)| *n == order.n).map(|(_, id, _)| id)
    }
}
