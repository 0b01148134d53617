//! Three gateways with one configuration and one store, and what becomes of each of them.
//!
//! One of them at least is always whole, so that there is somebody to take over.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::{try_join_all, try_join3};
use tokio::sync::{Semaphore, watch};

use super::Harm;
use crate::Wrong;
use crate::gateway::{Gateway, LEASE_S, Site, tail};

/// How many there are.
pub(super) const COUNT: usize = 3;

pub(super) struct Cluster<'s> {
    site: &'s Site,
    /// Where each of them listens, unless it is known not to. A frozen one is not known.
    doors: watch::Sender<[Option<SocketAddr>; COUNT]>,
    /// One permit for each that may be hurt at the same time.
    hurt: Semaphore,
}

/// What happens to each gateway, one thing after the other.
pub(super) struct Plan([Vec<Event>; COUNT]);

/// Something that happens to a gateway, after a while.
struct Event {
    after: Duration,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// `kill -9`, and a start after a while, if it ever is started again.
    Kill(Option<Duration>),
    /// SIGSTOP for so long, then SIGCONT.
    Freeze(Duration),
    /// SIGTERM, the end in order, and a start after a while.
    Stop(Option<Duration>),
}

impl Plan {
    pub(super) fn new(rng: &mut Rng, quick: bool) -> Self {
        let ms = |rng: &mut Rng, from: u64, to: u64| Duration::from_millis(rng.u64(from..to));
        let lease_ms = LEASE_S * 1_000;
        let mut plan = [const { Vec::new() }; COUNT];
        if quick {
            plan[0].push(Event { after: ms(rng, 100, 500), what: What::Kill(None) });
            let what = What::Freeze(ms(rng, lease_ms + 200, lease_ms + 500));
            plan[1].push(Event { after: ms(rng, 50, 400), what });
        } else {
            // Each thing happens, and each to any of them.
            let mut kinds = [0, 1, 2];
            let mut one_is_gone = false;
            rng.shuffle(&mut kinds);
            for (events, first) in plan.iter_mut().zip(kinds) {
                let more = (rng.u8(..6) == 0).then(|| rng.u8(..3));
                for kind in std::iter::once(first).chain(more) {
                    // One at most stays away: the others' events want somebody to take over.
                    let stays_away = !one_is_gone && kind != 1 && rng.u8(..3) == 0;
                    one_is_gone |= stays_away;
                    let pause = (!stays_away).then(|| ms(rng, 0, 1_500));
                    let what = match kind {
                        0 => What::Kill(pause),
                        1 => What::Freeze(ms(rng, lease_ms + 200, lease_ms + 1_300)),
                        _ => What::Stop(pause),
                    };
                    events.push(Event { after: ms(rng, 200, 1_200), what });
                }
            }
        }
        Self(plan)
    }
}

impl<'s> Cluster<'s> {
    /// Starts all at once: they make the tables of the empty database side by side.
    pub(super) async fn start(site: &'s Site) -> Result<(Self, [Gateway; COUNT]), Wrong> {
        let (a, b, c) = try_join3(site.start(), site.start(), site.start()).await?;
        let gateways = [a, b, c];
        let doors = watch::Sender::new(gateways.each_ref().map(|gateway| Some(gateway.public)));
        Ok((Self { site, doors, hurt: Semaphore::new(COUNT - 1) }, gateways))
    }

    /// Where somebody may listen.
    pub(super) fn doors(&self) -> Vec<SocketAddr> {
        self.doors.borrow().iter().flatten().copied().collect()
    }

    /// One of them; not this one, if there is another.
    pub(super) fn door(&self, rng: &mut Rng, other_than: Option<SocketAddr>) -> SocketAddr {
        let mut doors = self.doors();
        if doors.len() > 1 {
            doors.retain(|door| Some(*door) != other_than);
        }
        doors[rng.usize(..doors.len())]
    }

    /// Lets all happen. Those that live afterwards, and what they went through.
    pub(super) async fn hurt(&self, gateways: [Gateway; COUNT], plan: Plan) -> Result<(Vec<Gateway>, Harm), Wrong> {
        let fates =
            gateways.into_iter().zip(plan.0).enumerate().map(|(n, (gateway, events))| self.fate(n, gateway, events));
        let (mut living, mut harm) = (Vec::new(), Harm::default());
        for (gateway, of_one) in try_join_all(fates).await? {
            living.extend(gateway);
            harm += of_one;
        }
        Ok((living, harm))
    }

    /// What becomes of one.
    async fn fate(&self, n: usize, gateway: Gateway, events: Vec<Event>) -> Result<(Option<Gateway>, Harm), Wrong> {
        let mut harm = Harm::default();
        let mut gateway = gateway;
        for Event { after, what } in events {
            tokio::time::sleep(after).await;
            let permit = self.hurt.acquire().await.unwrap();
            let pause = match what {
                What::Freeze(time) => {
                    gateway.signal("STOP");
                    tokio::time::sleep(time).await;
                    gateway.signal("CONT");
                    harm.freezes += 1;
                    continue;
                }
                What::Kill(pause) => {
                    let lines = gateway.log();
                    gateway.kill();
                    self.set_door(n, None);
                    count(&lines.lock().unwrap(), &mut harm);
                    harm.kills += 1;
                    pause
                }
                What::Stop(pause) => {
                    self.set_door(n, None);
                    stop(gateway, &mut harm).await?;
                    harm.stops += 1;
                    pause
                }
            };
            let Some(pause) = pause else {
                permit.forget();
                return Ok((None, harm));
            };
            tokio::time::sleep(pause).await;
            gateway = self.site.start().await?;
            self.set_door(n, Some(gateway.public));
        }
        Ok((Some(gateway), harm))
    }

    fn set_door(&self, n: usize, door: Option<SocketAddr>) {
        self.doors.send_modify(|doors| doors[n] = door);
    }
}

/// Has a gateway end in order, and reads what it logged.
pub(super) async fn stop(gateway: Gateway, harm: &mut Harm) -> Result<(), Wrong> {
    let (status, log) = gateway.stop().await?;
    count(&log, harm);
    if status.success() { Ok(()) } else { Err(format!("it did not end in order: {status}\n{}", tail(&log))) }
}

fn count(log: &[String], harm: &mut Harm) {
    let lines = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    harm.taken_over += lines("taken up again");
    harm.lost += lines("the part is not held here any more");
}
