//! A thousand identical requests at once, with one key: one deletion, and one delete at the upstream for each contact.
//!
//! In a round with a kill, what may be repeated may be deleted once more after the restart, and nothing else may.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;

use crate::client::Client;
use crate::gateway::Site;
use crate::laws::{self, Tally};
use crate::orders::{Item, Maker, Order};
use crate::world::{CRM, World};
use crate::{End, Wrong};

const REQUESTS: usize = 1_000;
/// At a time: below what the gateway takes from one address.
const AT_ONCE: usize = 150;

pub(crate) async fn run(rounds: usize, seed: u64, kill: bool) -> Result<End, Wrong> {
    let mut rng = Rng::with_seed(seed);
    let world = World::start().await;
    let mut tally = Tally::default();
    let mut killed = 0;
    // With a single round, that one is not killed, and one more is.
    let last = rounds.max(2);
    for round in 1..=last {
        let folder = tempfile::tempdir().unwrap();
        let site = Site::new(&world, folder.path());
        let with_kill = kill || round == last;
        killed += usize::from(with_kill);
        let storm = Storm {
            client: Client::new(),
            order: Maker::new(rng.fork(), 5, &format!("storm-{round}")).small(&world),
            answers: AtomicUsize::new(0),
            new: AtomicUsize::new(0),
            other: Maker::new(rng.fork(), 5, &format!("storm-{round}")).small(&world),
        };
        let when = with_kill.then(|| rng.usize(..REQUESTS / 2));
        let played = storm.play(&site, &world, when).await;
        tally +=
            played.map_err(|wrong| format!("round {round}{}: {wrong}", if with_kill { ", killed" } else { "" }))?;
    }
    Ok(End::Held(format!("{last} rounds of {REQUESTS}, {killed} with a kill, {tally}")))
}

struct Storm {
    client: Client,
    order: Arc<Order>,
    /// Acknowledgements so far.
    answers: AtomicUsize,
    /// Of them, those that do not say that they are replayed.
    new: AtomicUsize,
    /// Asks for something else under the same key.
    other: Arc<Order>,
}

impl Storm {
    /// `when`: after so many answers the gateway is killed.
    async fn play(&self, site: &Site, world: &World, when: Option<usize>) -> Result<Tally, Wrong> {
        self.client.told.asked(&self.order);
        let gateway = site.start().await?;
        let (address, to) = watch::channel(Some(gateway.public));
        let (count, mut counted) = watch::channel(0);
        let crm = &world.links[CRM].mock;
        let first_call = crm.journal().len() + 1;
        let requests = stream::iter(0..REQUESTS).for_each_concurrent(AT_ONCE, async |_| {
            self.ask(&to, &count).await;
        });
        let gateway = match when {
            None => {
                requests.await;
                gateway
            }
            Some(answers) => {
                let kill = async {
                    // Early ones come before the first answer: while the deletion is put down, or at work.
                    let early = counted.wait_for(|count| *count >= answers);
                    match answers % 3 {
                        0 => drop(early.await),
                        1 => crm.arrived(first_call).await,
                        _ => tokio::time::sleep(Duration::from_micros(answers as u64 * 40)).await,
                    }
                    gateway.kill();
                    address.send_replace(None);
                    let next = site.start().await?;
                    address.send_replace(Some(next.public));
                    Ok::<_, Wrong>(next)
                };
                tokio::join!(kill, requests).0?
            }
        };
        self.client.finish_all(gateway.public).await?;
        let refused = self.client.post(gateway.public, &self.other).await.map(|answer| answer.status);
        gateway.stop().await?;
        if refused != Some(422) {
            return Err(format!("another request under the same key was answered with {refused:?}, and not with 422"));
        }
        let tally = laws::judge(world, &self.client.told)?;
        let (answers, new) = (self.answers.load(Ordering::Relaxed), self.new.load(Ordering::Relaxed));
        if answers != REQUESTS {
            return Err(format!("{answers} of {REQUESTS} requests were acknowledged"));
        }
        if new > 1 || (when.is_none() && new != 1) {
            return Err(format!("{new} answers say that they began the deletion"));
        }
        for item in &self.other.items {
            if matches!(item, Item::Fresh(contact) if world.calls(contact) > 0) {
                return Err("a refused request was sent".to_owned());
            }
        }
        for item in &self.order.items {
            let Item::Fresh(contact) = item else { continue };
            let calls = world.calls(contact);
            let most = if when.is_some() && contact.replay_safe { 2 } else { 1 };
            if calls > most || (calls == 0 && (when.is_none() || contact.replay_safe)) {
                return Err(format!("{calls} delete calls for one contact, where {most} may be"));
            }
        }
        Ok(tally)
    }

    async fn ask(&self, to: &watch::Receiver<Option<SocketAddr>>, count: &watch::Sender<usize>) {
        let mut to = to.clone();
        loop {
            let Ok(Some(address)) = to.wait_for(Option::is_some).await.map(|address| *address) else { return };
            match self.client.post(address, &self.order).await {
                Some(answer) if answer.is_acknowledgement() => {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    self.new.fetch_add(usize::from(!answer.replayed), Ordering::Relaxed);
                    count.send_modify(|count| *count += 1);
                    return;
                }
                Some(answer) if answer.status != 503 => {
                    let text = format!("a repeated request was answered with {}: {}", answer.status, answer.json);
                    return self.client.told.object(text);
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}
