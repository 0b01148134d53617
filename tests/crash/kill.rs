//! `kill -9` at random moments, while several clients ask for deletions and upstreams fail now and then.

use std::net::SocketAddr;

use fastrand::Rng;
use futures_util::future::{FutureExt, join_all};
use tokio::sync::watch;

use crate::client::{Client, few, shared};
use crate::gateway::{Gateway, Site, Start};
use crate::orders::Maker;
use crate::shim::Disk;
use crate::world::World;
use crate::{End, Wrong, laws};

const CLIENTS: usize = 5;
const LARGEST: usize = 200;
/// A gateway lives for so many acknowledgements at most.
const LIFE: usize = 12;
/// After so many kills, what is new in the journals is read, before they forget it.
const READ_EVERY: usize = 20;

pub(crate) async fn run(points: usize, seed: u64) -> Result<End, Wrong> {
    let mut rng = Rng::with_seed(seed);
    let world = World::start().await;
    let (folder, libraries) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let site = Site::new(&world, folder.path());
    let sound = Start::default();
    // Without a C compiler, there is no slow one.
    let slow = Disk::Slow.start(libraries.path());
    let disks = if slow.is_ok() { "every other one on a slow disk" } else { "no cc, so none on a slow disk" };
    let slow = slow.unwrap_or_default();
    let client = Client::new();
    let (address, to) = watch::channel(None);
    let (ending, end) = watch::channel(false);
    let order = shared(Maker::new(rng.fork(), LARGEST, "kill").keyless());
    let load = join_all((0..CLIENTS).map(|_| client.load(&world, to.clone(), &order, end.clone())));
    let trouble = world.trouble(rng.fork(), 12, end.clone());
    let kills = async {
        for point in 1..=points {
            // Every other one on a slow disk, where what is told too soon is caught.
            let disk = if point % 2 == 0 { &sound } else { &slow };
            let gateway = start(&site, disk, &client, &address).await?;
            client.told.moment(&mut rng, LIFE).await;
            gateway.kill();
            address.send_replace(None);
            if point % READ_EVERY == 0 {
                world.read()?;
            }
        }
        let last = start(&site, &sound, &client, &address).await?;
        ending.send_replace(true);
        Ok::<Gateway, Wrong>(last)
    };
    // The clients end once the last gateway has answered each of them.
    let (last, ..) = tokio::try_join!(kills, load.map(Ok), trouble.map(Ok))?;
    client.finish_all(last.public).await?;
    client.look_at_all(last.public).await?;
    last.stop().await?;
    let tally = laws::judge(&world, &client.told)?;
    Ok(End::Held(format!("{points} kills, {disks}, {tally}")))
}

/// Starts the next gateway, and compares all that it says with what was said before.
async fn start(
    site: &Site,
    disk: &Start,
    client: &Client,
    address: &watch::Sender<Option<SocketAddr>>,
) -> Result<Gateway, Wrong> {
    let gateway = site.start_as(disk).await?.map_err(|early| format!("the gateway did not start: {early:?}"))?;
    address.send_replace(Some(gateway.public));
    client.look_at_latest(gateway.public).await?;
    let wrong = client.told.wrong();
    if wrong.is_empty() { Ok(gateway) } else { Err(few(&wrong)) }
}
