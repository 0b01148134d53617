//! A kill at the system calls that write: before the K-th of a thread, the process is gone.
//!
//! Each point is a short run on an empty store, from the first start to a stop in order, then a restart without strace
//! in which lost requests are repeated. What strace cannot reach, such as writes to mapped memory, is no point.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use onedelete::mock::Fault;
use tokio::sync::watch;

use crate::client::Client;
use crate::gateway::{Gateway, Site};
use crate::laws::{self, Tally};
use crate::orders::{Maker, Order};
use crate::shim::Disk;
use crate::strace::{FLUSHES, Point, Traced, WIRE, WRITES, files, is_there, spread};
use crate::world::{CRM, LISTS, SALES, World};
use crate::{End, Wrong};

const ORDERS: usize = 5;
const LARGEST: usize = 12;
/// For a run under strace that is not killed.
const STOP: Duration = Duration::from_secs(20);

pub(crate) async fn run(points: usize, seed: u64) -> Result<End, Wrong> {
    if !is_there() {
        return Ok(End::Skipped("there is no strace".to_owned()));
    }
    let rng = Rng::with_seed(seed);
    let world = World::start().await;
    let store_calls = [&WRITES[..], &FLUSHES[..]].concat();
    // Nothing is injected: which files the store has, and how many calls there are to be killed at.
    let scene = Scene::new(&world, &rng, "files");
    let named = scene.files().await?;
    let libraries = tempfile::tempdir().unwrap();
    // There, what is told before such a call is made has the time to be heard.
    let slow = Disk::Slow.start(libraries.path());
    let mut counts = Vec::new();
    for (name, calls) in [("store", &store_calls[..]), ("wire", &WIRE[..])] {
        let scene = Scene::new(&world, &rng, name);
        let paths: Vec<_> = named.iter().map(|name| scene.site.store.join(name)).collect();
        let paths = if name == "store" { &paths[..] } else { &[] };
        let traced = Traced::new(calls, paths, None).on(slow.as_ref().ok());
        scene.play(&traced).await?;
        scene.judge(&world).await?;
        counts.push(traced.counts());
    }
    let on_wire = points / 4;
    let mut all: Vec<_> = spread(&counts[0], &store_calls, points - on_wire).into_iter().map(|p| (true, p)).collect();
    all.extend(spread(&counts[1], &WIRE, on_wire).into_iter().map(|p| (false, p)));
    if all.len() < points.min(10) {
        return Err(format!("only {} system calls were seen: {counts:?}", all.len()));
    }
    let (mut tally, mut hit) = (Tally::default(), 0);
    for (n, (of_store, (call, k))) in all.iter().enumerate() {
        let what = format!("point {n}, at {call} {k}");
        let point = Point { call: call.clone(), what: "signal=KILL".to_owned(), when: k.to_string() };
        let scene = Scene::new(&world, &rng, &format!("at-{n}"));
        let paths: Vec<_> = named.iter().map(|name| scene.site.store.join(name)).collect();
        let paths = if *of_store { &paths[..] } else { &[] };
        let traced = Traced::new(&[call.as_str()], paths, Some(&point)).on(slow.as_ref().ok());
        hit += usize::from(scene.play(&traced).await.map_err(|wrong| format!("{what}: {wrong}"))?);
        tally += scene.judge(&world).await.map_err(|wrong| format!("{what}: {wrong}"))?;
    }
    let made: usize = counts.iter().flat_map(|counts| counts.values()).sum();
    if hit * 2 < all.len() && all.len() >= 10 {
        return Err(format!("only {hit} of {} points were reached", all.len()));
    }
    let disk = if slow.is_ok() { ", on a slow disk" } else { "" };
    Ok(End::Held(format!("{} points of {made} ({hit} reached{disk}), {tally}", all.len())))
}

/// One short run and its restart.
struct Scene {
    site: Site,
    client: Client,
    orders: Vec<Arc<Order>>,
    // Goes last.
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new(world: &World, rng: &Rng, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The same orders at every point, but for the contacts.
        let mut maker = Maker::new(rng.clone(), LARGEST, name).hurried();
        let mut orders: Vec<_> = (0..ORDERS - 1).map(|_| maker.order(world)).collect();
        orders.push(maker.small(world));
        for link in [CRM, SALES, LISTS] {
            world.links[link].mock.fault(Fault::CommitThenDrop);
        }
        Self { site: Site::new(world, folder.path()), client: Client::new(), orders, _folder: folder }
    }

    /// The names of the store's files, while it is open.
    async fn files(&self) -> Result<Vec<std::ffi::OsString>, Wrong> {
        let gateway = self.site.start().await?;
        self.submit(&gateway).await;
        let names = files(&self.site.store).into_iter().filter_map(|path| Some(path.file_name()?.to_owned())).collect();
        gateway.stop().await?;
        Ok(names)
    }

    async fn submit(&self, gateway: &Gateway) -> watch::Sender<Option<std::net::SocketAddr>> {
        let (address, to) = watch::channel(Some(gateway.public));
        // One after the other, so that the store has more than one moment to put them down.
        for order in &self.orders {
            self.client.submit(&to, order).await;
        }
        address
    }

    /// The run under strace. Whether it was killed.
    async fn play(&self, traced: &Traced) -> Result<bool, Wrong> {
        let mut gateway = match self.site.start_as(&traced.start).await? {
            Ok(gateway) => gateway,
            Err(early) if early.status.is_some_and(killed) => return Ok(true),
            Err(early) => return Err(format!("it did not start: {early:?}")),
        };
        let public = gateway.public;
        let load = async {
            self.submit(&gateway).await;
            self.client.finish_all(public).await
        };
        let dead = async {
            loop {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if self.client.admin(gateway.admin, "livez").await == 0 {
                    return;
                }
            }
        };
        tokio::select! {
            finished = load => finished?,
            // Nobody answers any more.
            () = dead => {}
        }
        gateway.signal("TERM");
        let status = gateway.ended(STOP).await?;
        if killed(status) || status.success() { Ok(killed(status)) } else { Err(format!("it ended with {status}")) }
    }

    /// The restart, in which everything is asked for once more, and the laws.
    async fn judge(&self, world: &World) -> Result<Tally, Wrong> {
        let gateway = self.site.start().await?;
        self.client.look_at_all(gateway.public).await?;
        self.submit(&gateway).await;
        self.client.finish_all(gateway.public).await?;
        self.client.look_at_all(gateway.public).await?;
        gateway.stop().await?;
        laws::judge(world, &self.client.told)
    }
}

fn killed(status: std::process::ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}
