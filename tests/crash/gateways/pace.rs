//! Three gateways share a connection's pace: together they call no more often than one may, and a 429 that one of them
//! gets holds all of them back.
//!
//! It knows when calls arrive, not which gateway they come from.

use std::time::Duration;

use futures_util::future::join_all;
use onedelete::mock::Fault;
use tokio::time::Instant;

use crate::client::Client;
use crate::gateway::Site;
use crate::orders::Maker;
use crate::world::{SALES, World};
use crate::{Wrong, laws, within};

use super::cluster::{self, Cluster};

const RATE: &str = "5/s";
const ALLOWED: usize = 5;
/// The pace is kept where a call gets its turn, and the window counts where it arrives: the intent, the connection and a
/// busy machine lie between. Turns are 250 ms apart, so lateness of up to three quarters of a second adds two.
const LATE: usize = 2;
/// Of each gateway's contacts, each in a call of its own.
const CONTACTS: usize = 6;
/// The upstream asks for so much rest, once so many calls have arrived.
const REST_S: u64 = 2;
const REST_AFTER: usize = 6;
/// Each of the two others may have a turn in hand when the one is told to wait, and one may have left just then.
const IN_HAND: usize = 3;

/// The figures.
pub(super) async fn check(server: &'static str) -> Result<String, Wrong> {
    let world = World::start().await;
    let database = super::database_on(server).await;
    let site = Site::shared(&world, &database.url(), RATE);
    let (cluster, gateways) = Cluster::start(&site).await?;
    let client = Client::new();
    let mut maker = Maker::new(fastrand::Rng::new(), CONTACTS, "pace");
    let orders: Vec<_> = gateways.iter().map(|_| maker.ids(&world, SALES, CONTACTS)).collect();
    let mock = &world.links[SALES].mock;
    let asked = async {
        let posts = gateways.iter().zip(&orders).map(async |(gateway, order)| {
            client.told.asked(order);
            client.post(gateway.public, order).await.is_some_and(|answer| answer.is_acknowledgement())
        });
        join_all(posts).await
    };
    // The one that is told to wait comes again.
    let calls = gateways.len() * CONTACTS + 1;
    let arrivals = async {
        let mut arrivals = Vec::with_capacity(calls);
        for n in 1..=calls {
            mock.arrived(n).await;
            arrivals.push(Instant::now());
            if n == REST_AFTER {
                mock.fault(Fault::Busy(REST_S));
            }
        }
        arrivals
    };
    let (asked, arrivals) =
        within("the paced calls", Duration::from_secs(30), async { tokio::join!(asked, arrivals) }).await?;
    if asked.contains(&false) {
        return Err("a deletion at a paced connection was not accepted".to_owned());
    }
    client.finish_all(cluster.doors()[0]).await?;
    let told_to_wait = mock.journal().iter().position(|entry| entry.status == Some(429));
    for gateway in gateways {
        cluster::stop(gateway, &mut super::Harm::default()).await?;
    }
    laws::judge(&world, &client.told)?;

    let within_one =
        |n: usize| arrivals[n..].iter().take_while(|at| **at - arrivals[n] < Duration::from_secs(1)).count();
    let most = (0..arrivals.len()).map(within_one).max().unwrap_or(0);
    if most > ALLOWED + LATE {
        return Err(format!("{most} calls of three gateways within one second, where {RATE} is the pace"));
    }
    let at = told_to_wait.ok_or("the upstream told nobody to wait")?;
    let rest = Duration::from_secs(REST_S) - Duration::from_millis(50);
    let early = arrivals[at + 1..].iter().filter(|later| **later - arrivals[at] < rest).count();
    if early > IN_HAND {
        return Err(format!("{early} calls came although the upstream had told one of the gateways to wait"));
    }
    Ok(format!("paced: at most {most} calls in a second at {RATE}, {early} after a 429 to another"))
}
