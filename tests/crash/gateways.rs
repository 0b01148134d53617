//! Several gateways on one Postgres database, hurt at random: killed, frozen for longer than the lease, stopped in order.
//! A gateway that was frozen wakes up as a zombie: it believes that it still has what others have taken over.
//!
//! The laws are the same as for one gateway. What is particular:
//!
//! - Every takeover may repeat what was under way, so a native id may be in more calls than one. It stays within its
//!   `attempts`, as always: each call is put down before it is sent, whoever sends it.
//! - A zombie that had put a call down before it froze may send it after another gateway has ruled it `unknown`. So a
//!   phone or an external id that is `unknown` may be deleted late, and is still in one call at most.
//! - Whoever looks, looks at any gateway: what one of them said, none of them takes back.
//!
//! The database server itself is never hurt here.

mod callers;
mod cluster;
mod left_alone;
mod pace;

use std::fmt;
use std::ops::AddAssign;
use std::pin::pin;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::FutureExt;
use futures_util::stream::{self, StreamExt};
use onedelete::mock::Fault;
use tokio::sync::watch;

use self::callers::Callers;
use self::cluster::{Cluster, Plan};
use self::left_alone::{LeftAlone, Longest};
use crate::client::{Client, few};
use crate::gateway::{LEASE_S, Site, tail};
use crate::laws::{self, Tally};
use crate::postgres::{self, Database};
use crate::world::World;
use crate::{End, Wrong, within};

/// Schedules at a time: most of one is waiting for leases to run out.
const AT_ONCE: usize = 3;
/// No part and no deletion is without somebody who works it for longer: a lease, a second until somebody looks, and what
/// a busy machine adds.
const LONGEST_ALONE: Duration = Duration::from_secs(LEASE_S + 5);
/// From the last event, with calm upstreams, to the end of all deletions: one takeover, and the work itself.
const FINISH: Duration = Duration::from_secs(LEASE_S + 9 + 30);

/// What the gateways went through.
#[derive(Debug, Default, Clone, Copy)]
struct Harm {
    kills: usize,
    freezes: usize,
    stops: usize,
    cancels: usize,
    /// Parts that were taken up again, and how often a gateway found that it had lost one.
    taken_over: usize,
    lost: usize,
}

impl AddAssign for Harm {
    fn add_assign(&mut self, other: Self) {
        self.kills += other.kills;
        self.freezes += other.freezes;
        self.stops += other.stops;
        self.cancels += other.cancels;
        self.taken_over += other.taken_over;
        self.lost += other.lost;
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, freezes, stops, cancels, taken_over, lost } = self;
        write!(f, "{kills} kills, {freezes} freezes, {stops} stops, {cancels} cancels, ")?;
        write!(f, "{taken_over} parts taken up again, {lost} found lost by a zombie")
    }
}

/// Schedule N has the seed plus N, so that one alone can be repeated. `quick`: a short one.
pub(crate) async fn run(schedules: usize, seed: u64, quick: bool) -> Result<End, Wrong> {
    let server = match tokio::task::spawn_blocking(postgres::shared).await.unwrap() {
        Ok(server) => server,
        Err(why) if std::env::var_os("ONEDELETE_REQUIRE_POSTGRES").is_some() => {
            return Err(format!("no Postgres: {why}"));
        }
        Err(why) => return Ok(End::Skipped(format!("no Postgres ({why})"))),
    };
    let (mut tally, mut harm, mut alone) = (Tally::default(), Harm::default(), Longest::default());
    let each = stream::iter(0..schedules).map(async |n| {
        let seed = seed.wrapping_add(n as u64);
        let played = play(server, Rng::with_seed(seed), quick).await;
        played.map_err(|wrong| format!("schedule {n}, by itself seed {seed}: {wrong}"))
    });
    let mut each = pin!(each.buffer_unordered(AT_ONCE));
    while let Some(played) = each.next().await {
        let (of_one, hurt, left) = played?;
        tally += of_one;
        harm += hurt;
        alone = alone.max(left);
    }
    let paced = if quick { String::new() } else { format!(", {}", pace::check(server).await?) };
    Ok(End::Held(format!("{schedules} schedules ({harm}), {tally}; {alone}{paced}")))
}

/// One schedule, in a database of its own.
async fn play(server: &'static str, rng: Rng, quick: bool) -> Result<(Tally, Harm, Longest), Wrong> {
    let database = database_on(server).await;
    let played = play_in(&database.url(), rng, quick).await;
    tokio::task::spawn_blocking(|| drop(database)).await.unwrap();
    played
}

/// Makes a database; not here, and it is not to be dropped here either: the server does that only when all who are
/// signing in have done so, and those of other schedules are waiting for this thread.
async fn database_on(server: &'static str) -> Database {
    tokio::task::spawn_blocking(|| Database::on(server)).await.unwrap()
}

async fn play_in(url: &str, mut rng: Rng, quick: bool) -> Result<(Tally, Harm, Longest), Wrong> {
    let world = World::start().await;
    let site = Site::shared(&world, url, "off");
    let plan = Plan::new(&mut rng, quick);
    let (cluster, gateways) = Cluster::start(&site).await?;
    let client = Client::new();
    let left_alone = LeftAlone::default();
    let (ending, end) = watch::channel(false);
    let (over, finished) = watch::channel(false);
    for link in &world.links {
        // So that there is always something under way.
        link.mock.fault_always(Some(Fault::Delay(Duration::from_millis(rng.u64(5..40)))));
    }
    let callers = Callers { client: &client, world: &world, cluster: &cluster, end: end.clone(), quick };
    let cancels = callers.load(rng.fork());
    let trouble = world.trouble(rng.fork(), 12, end.clone());
    let watching = left_alone.watch(url, finished);
    let events = async {
        let hurt = cluster.hurt(gateways, plan).await?;
        ending.send_replace(true);
        world.links.iter().for_each(|link| link.mock.fault_always(None));
        Ok::<_, Wrong>(hurt)
    };
    let finish = async {
        let ((mut living, mut harm), cancels, ()) = tokio::try_join!(events, cancels.map(Ok), trouble.map(Ok))?;
        harm.cancels = cancels;
        let open = cluster.doors();
        let wrong = client.told.wrong();
        if !wrong.is_empty() {
            return Err(few(&wrong));
        }
        let ended = within("the end of all deletions", FINISH, client.finish_all(open[rng.usize(..open.len())])).await;
        if let Err(wrong) = ended.and_then(|inner| inner) {
            let open = left_alone::open(url).await?;
            let logs = living.iter().map(|gateway| format!("{}\n{}", gateway.public, tail(&gateway.lines())));
            return Err(format!("{wrong}\n{}\n{}", open.join("\n"), logs.collect::<Vec<_>>().join("\n")));
        }
        for door in open {
            client.look_at_all(door).await?;
        }
        over.send_replace(true);
        for gateway in &living {
            let status = client.admin(gateway.admin, "readyz").await;
            if status != 200 {
                return Err(format!("a gateway that lives is not ready: {status}"));
            }
        }
        for gateway in living.drain(..) {
            cluster::stop(gateway, &mut harm).await?;
        }
        Ok::<_, Wrong>(harm)
    };
    let (harm, ()) = tokio::try_join!(finish, watching)?;
    let tally = laws::judge(&world, &client.told)?;
    let alone = left_alone.longest();
    if alone.part.max(alone.end) > LONGEST_ALONE {
        return Err(format!("{alone}, where {LONGEST_ALONE:?} is the most"));
    }
    Ok((tally, harm, alone))
}
