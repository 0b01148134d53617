//! EIO and ENOSPC where the store writes and flushes, once or from then on: nothing is acknowledged afterwards, the
//! gateway says so and ends in order, and a restart on a sound disk goes on with all that was acknowledged.
//!
//! The failing calls are not carried out, so the file is not what a failed flush of a real disk may leave behind.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use futures_util::future::join_all;
use tokio::sync::watch;

use crate::client::{Answer, Client};
use crate::gateway::{Gateway, NotStarted, Site, tail};
use crate::laws::{self, Tally};
use crate::orders::{Maker, Order};
use crate::strace::{FLUSHES, Point, Traced, WRITES, files, is_there, spread};
use crate::world::World;
use crate::{End, Wrong, within};

const ORDERS: usize = 12;
const LARGEST: usize = 10;
const ERRORS: [&str; 4] = ["EIO", "EIO+", "ENOSPC", "ENOSPC+"];
/// Until the admin listener says that the store failed.
const NOT_READY: Duration = Duration::from_secs(5);

/// Where a point struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Struck {
    AtStart,
    UnderLoad,
    AtTheEnd,
    Nowhere,
}

pub(crate) async fn run(points: usize, seed: u64) -> Result<End, Wrong> {
    if !is_there() {
        return Ok(End::Skipped("there is no strace".to_owned()));
    }
    let rng = Rng::with_seed(seed);
    let world = World::start().await;
    // A store that was begun before, so that most points strike under load.
    let begun = tempfile::tempdir().unwrap();
    let site = Site::new(&world, begun.path());
    let gateway = site.start().await?;
    let mut names: Vec<OsString> = names(&site);
    gateway.stop().await?;
    names.retain(|name| !name.to_string_lossy().ends_with("lock"));

    let calls = [&WRITES[..], &FLUSHES[..]].concat();
    let scene = Scene::new(&world, &rng, &site, "count");
    let traced = scene.traced(&names, &calls, None);
    scene.play(&traced).await?;
    scene.judge(&world).await?;
    let counts = traced.counts();
    let flushes = points.div_ceil(2);
    let mut all = spread(&counts, &FLUSHES, flushes);
    all.extend(spread(&counts, &WRITES, points - flushes));
    if all.len() < points.min(4) {
        return Err(format!("only {} writes and flushes were seen: {counts:?}", all.len()));
    }
    let (mut tally, mut struck) = (Tally::default(), Vec::new());
    for (n, (call, k)) in all.iter().enumerate() {
        let error = ERRORS[n % ERRORS.len()];
        let (name, more) = error.strip_suffix('+').map_or((error, ""), |name| (name, "+"));
        let point = Point { call: call.clone(), what: format!("error={name}"), when: format!("{k}{more}") };
        let wrong = |wrong| format!("point {n}, {name} at {call} {k}{more}: {wrong}");
        let scene = Scene::new(&world, &rng, &site, &format!("error-{n}"));
        let traced = scene.traced(&names, &[call.as_str()], Some(&point));
        struck.push(scene.play(&traced).await.map_err(wrong)?);
        tally += scene.judge(&world).await.map_err(wrong)?;
    }
    let count = |what| struck.iter().filter(|struck| **struck == what).count();
    let (start, load) = (count(Struck::AtStart), count(Struck::UnderLoad));
    let (end, nowhere) = (count(Struck::AtTheEnd), count(Struck::Nowhere));
    if load == 0 && all.len() >= 4 {
        return Err(format!("no point struck under load: {struck:?}"));
    }
    let n = all.len();
    Ok(End::Held(format!(
        "{n} points ({start} at the start, {load} under load, {end} at the end, {nowhere} not reached), {tally}"
    )))
}

struct Scene {
    site: Site,
    client: Client,
    orders: Vec<Arc<Order>>,
    // Goes last.
    _folder: tempfile::TempDir,
}

impl Scene {
    /// On a copy of a store that was begun before.
    fn new(world: &World, rng: &Rng, begun: &Site, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in files(&begun.store) {
            std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
        let mut maker = Maker::new(rng.clone(), LARGEST, name);
        let orders = (0..ORDERS).map(|_| maker.order(world)).collect();
        Self { site: Site::new(world, folder.path()), client: Client::new(), orders, _folder: folder }
    }

    fn traced(&self, names: &[OsString], calls: &[&str], point: Option<&Point>) -> Traced {
        let paths: Vec<_> = names.iter().map(|name| self.site.store.join(name)).collect();
        Traced::new(calls, &paths, point)
    }

    /// The run on the failing disk.
    async fn play(&self, traced: &Traced) -> Result<Struck, Wrong> {
        let gateway = match self.site.start_as(&traced.start).await? {
            Ok(gateway) => gateway,
            Err(NotStarted { status, log }) => {
                let code = status.and_then(|status| status.code());
                let says = log.iter().any(|line| line.starts_with("error: "));
                let ordered = code.is_some_and(|code| code != 0) && says && traced.failed_at().is_some();
                return if ordered { Ok(Struck::AtStart) } else { Err(format!("code {code:?}\n{}", tail(&log))) };
            }
        };
        let (mut acknowledged, mut refused) = (Vec::new(), false);
        for order in &self.orders {
            self.client.told.asked(order);
            let asked_at = now();
            let answer = self.client.post(gateway.public, order).await.ok_or("a request was not answered")?;
            if answer.is_acknowledgement() {
                acknowledged.push((asked_at, order.n));
            } else {
                is_unavailable(&answer)?;
                refused = true;
            }
        }
        // What was accepted may still fail behind the answers.
        let seen = refused || !self.settle(&gateway).await;
        if seen {
            self.says_so(&gateway).await?;
        }
        let stopped_at = now();
        let (status, log) = gateway.stop().await?;
        if status.code().is_none() {
            return Err(format!("it did not end in order: {status}\n{}", tail(&log)));
        }
        let failed_at = traced.failed_at();
        let late = acknowledged.iter().find(|(asked_at, _)| failed_at.is_some_and(|failed_at| failed_at < *asked_at));
        if let Some((asked_at, n)) = late {
            let after = (asked_at - failed_at.unwrap_or_default()) * 1e3;
            return Err(format!("order {n}, asked for {after:.1} ms after the store failed, was acknowledged"));
        }
        match failed_at {
            None if seen => Err(format!("the store failed, and no call of it did\n{}", tail(&log))),
            None => Ok(Struck::Nowhere),
            Some(failed_at) if seen && failed_at <= stopped_at => Ok(Struck::UnderLoad),
            // So shortly before the stop that nobody could see it.
            Some(_) => Ok(Struck::AtTheEnd),
        }
    }

    /// Waits until all is finished, or the store has failed. Whether all is finished.
    async fn settle(&self, gateway: &Gateway) -> bool {
        let failed = async {
            while self.client.admin(gateway.admin, "readyz").await == 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            finished = self.client.finish_all(gateway.public) => finished.is_ok(),
            () = failed => false,
        }
    }

    /// A gateway whose store failed says so, everywhere.
    async fn says_so(&self, gateway: &Gateway) -> Result<(), Wrong> {
        let ready = async {
            while self.client.admin(gateway.admin, "readyz").await == 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("a /readyz that is not 200", NOT_READY, ready).await?;
        let last = self.orders.last().unwrap();
        let answer = self.client.post(gateway.public, last).await.ok_or("a request was not answered")?;
        is_unavailable(&answer)?;
        let lines = gateway.lines();
        let said = lines.iter().filter(|line| line.contains("the ledger failed")).count();
        if said == 1 { Ok(()) } else { Err(format!("{said} lines say that the ledger failed\n{}", tail(&lines))) }
    }

    /// The restart on a sound disk, in which what was refused is asked for again, and the laws.
    async fn judge(&self, world: &World) -> Result<Tally, Wrong> {
        let gateway = self.site.start().await?;
        self.client.look_at_all(gateway.public).await?;
        let (_address, to) = watch::channel(Some(gateway.public));
        join_all(self.orders.iter().map(|order| self.client.submit(&to, order))).await;
        self.client.finish_all(gateway.public).await?;
        gateway.stop().await?;
        laws::judge(world, &self.client.told)
    }
}

fn names(site: &Site) -> Vec<OsString> {
    files(&site.store).into_iter().filter_map(|path| Some(path.file_name()?.to_owned())).collect()
}

fn is_unavailable(answer: &Answer) -> Result<(), Wrong> {
    if answer.status == 503 && answer.json["code"] == "store_unavailable" {
        return Ok(());
    }
    Err(format!("answered with {} where the store failed: {}", answer.status, answer.json))
}

#[allow(clippy::disallowed_methods, reason = "it is compared with the times that strace writes")]
fn now() -> f64 {
    std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
