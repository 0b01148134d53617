//! Power cuts: the store on a small file system of its own, whose device is copied as it is while the gateway is
//! stopped; the next gateway finds the copy. What was only in memory is gone, as after a cut.
//!
//! The control is the same with commits that do not flush the log, as with `synchronous = NORMAL`. It must lose
//! what was acknowledged, or this test could not see a loss. A device that reorders or tears writes is not modelled.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::{FutureExt, join_all};
use tokio::sync::watch;

use crate::client::{Client, few, shared};
use crate::gateway::{Gateway, Site, Start};
use crate::laws::{self, Tally};
use crate::orders::Maker;
use crate::shim::{self, tell};
use crate::world::World;
use crate::{End, Wrong, within};

const DISK_BYTES: u64 = 64 << 20;
/// Then on a new disk: this one fills up.
const CUTS_A_DISK: usize = 50;
const CLIENTS: usize = 4;
const LARGEST: usize = 12;
/// A gateway lives for so many acknowledgements at most.
const LIFE: usize = 30;

pub(crate) async fn run(cuts: usize, seed: u64) -> Result<End, Wrong> {
    let folder = tempfile::tempdir().unwrap();
    if let Err(why) = Disk::new(folder.path(), "probe") {
        return Ok(End::Skipped(why));
    }
    let disks = (shim::Disk::Slow.start(folder.path()), shim::Disk::WithoutFlush.start(folder.path()));
    let (slow, without_flush) = match disks {
        (Ok(slow), Ok(without_flush)) => (slow, without_flush),
        (Err(why), _) | (_, Err(why)) => return Ok(End::Skipped(why)),
    };
    let mut rng = Rng::with_seed(seed);
    let mut tally = Tally::default();
    let mut left = cuts;
    while left > 0 {
        let now = left.min(CUTS_A_DISK);
        tally += Scene::new(folder.path(), &mut rng, slow.clone()).await?.play(now).await?.judge().await?;
        left -= now;
    }
    let control = Scene::new(folder.path(), &mut rng, without_flush).await?.control(cuts.max(5)).await?;
    Ok(End::Held(format!("{cuts} cuts, {tally}; the control {control}")))
}

struct Scene {
    rng: Rng,
    /// How it is started where it is to be hurt.
    start: Start,
    world: World,
    client: Client,
    site: Site,
    /// The gateway that runs now. It must go before its disk does.
    gateway: Option<Gateway>,
    disk: Disk,
}

impl Scene {
    async fn new(folder: &Path, rng: &mut Rng, start: Start) -> Result<Self, Wrong> {
        let disk = Disk::new(folder, "disk")?;
        let world = World::start().await;
        let site = Site::new(&world, &disk.store());
        Ok(Self { rng: rng.fork(), start, world, client: Client::new(), site, gateway: None, disk })
    }

    /// Load and cuts, with a look at everything after each; then everything is finished.
    async fn play(mut self, cuts: usize) -> Result<Self, Wrong> {
        let (address, to) = watch::channel(None);
        let (ending, end) = watch::channel(false);
        let Self { rng, start, world, client, site, gateway, disk } = &mut self;
        let order = shared(Maker::new(rng.fork(), LARGEST, "cut").keyless().hurried());
        let load = join_all((0..CLIENTS).map(|_| client.load(world, to.clone(), &order, end.clone())));
        let trouble = world.trouble(rng.fork(), 20, end.clone());
        let power = async {
            for cut in 1..=cuts {
                // Every other one on a slow disk, where what is told too soon is caught.
                let start = if cut % 2 == 0 { &Start::default() } else { &*start };
                let running = gateway.insert(open(site, start, &address).await?);
                client
                    .look_at_latest(running.public)
                    .await
                    .map_err(|wrong| format!("after cut {}: {wrong}", cut - 1))?;
                client.told.moment(rng, LIFE).await;
                *gateway = cut_power(gateway.take(), disk, &address).await?;
                let wrong = client.told.wrong();
                if !wrong.is_empty() {
                    return Err(few(&wrong));
                }
            }
            let last = gateway.insert(open(site, &Start::default(), &address).await?);
            client.look_at_all(last.public).await.map_err(|wrong| format!("after the last cut: {wrong}"))?;
            ending.send_replace(true);
            Ok(())
        };
        tokio::try_join!(power, load.map(Ok), trouble.map(Ok))?;
        Ok(self)
    }

    async fn judge(mut self) -> Result<Tally, Wrong> {
        let gateway = self.gateway.take().unwrap();
        self.client.finish_all(gateway.public).await?;
        self.client.look_at_all(gateway.public).await?;
        gateway.stop().await?;
        laws::judge(&self.world, &self.client.told)
    }

    /// Cuts until something that was acknowledged is lost.
    async fn control(mut self, cuts: usize) -> Result<String, Wrong> {
        let (address, to) = watch::channel(None);
        let (_ending, end) = watch::channel(false);
        let Self { rng, start, world, client, site, gateway, disk } = &mut self;
        let order = shared(Maker::new(rng.fork(), LARGEST, "control").keyless().hurried());
        let load = join_all((0..CLIENTS).map(|_| client.load(world, to.clone(), &order, end.clone())));
        let power = async {
            // On a sound disk first: the store is there, and has something in it.
            *gateway = Some(open(site, &Start::default(), &address).await?);
            client.told.moment(rng, LIFE).await;
            address.send_replace(None);
            *gateway = None;
            for cut in 1..=cuts {
                *gateway = Some(open(site, start, &address).await?);
                client.told.moment(rng, LIFE).await;
                *gateway = cut_power(gateway.take(), disk, &address).await?;
                // What is left may not even be a store.
                let lost = match site.start_as(start).await? {
                    Err(_) => client.told.acknowledged().len(),
                    Ok(running) => client.missing(gateway.insert(running).public).await,
                };
                *gateway = None;
                if lost > 0 {
                    // Answers that were under way at the cut have come by now.
                    let known = client.told.acknowledged().len();
                    return Ok(format!("lost {lost} of {known} acknowledged deletions at cut {cut}"));
                }
            }
            Err(format!("the control lost nothing in {cuts} cuts: this test would not see a loss"))
        };
        tokio::select! {
            lost = power => lost,
            _ = load => Err("the clients ended".to_owned()),
        }
    }
}

async fn open(site: &Site, start: &Start, address: &watch::Sender<Option<SocketAddr>>) -> Result<Gateway, Wrong> {
    let gateway = site.start_as(start).await?.map_err(|early| format!("the gateway did not start: {early:?}"))?;
    address.send_replace(Some(gateway.public));
    Ok(gateway)
}

/// Stops the gateway where it is, keeps what its disk has, and puts that in the disk's place.
async fn cut_power(
    gateway: Option<Gateway>,
    disk: &mut Disk,
    address: &watch::Sender<Option<SocketAddr>>,
) -> Result<Option<Gateway>, Wrong> {
    let Some(gateway) = gateway else { return Ok(None) };
    gateway.stand_still().await?;
    let copied = disk.copy();
    gateway.kill();
    address.send_replace(None);
    disk.replace(&copied?)?;
    Ok(None)
}

/// A file system in a file, mounted as a loop device. It is unmounted when it is dropped.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
    copies: usize,
}

impl Disk {
    /// Makes one and mounts it, with a folder for a store in it.
    fn new(folder: &Path, name: &str) -> Result<Self, Wrong> {
        let mount = folder.join(format!("{name}.mount"));
        let image = folder.join(format!("{name}.0"));
        std::fs::create_dir_all(&mount).unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(DISK_BYTES).unwrap();
        tell(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let disk = Self { image, mount, copies: 0 };
        disk.mount()?;
        std::fs::create_dir(disk.store()).unwrap();
        disk.unmount()?;
        disk.mount()?;
        Ok(disk)
    }

    fn store(&self) -> PathBuf {
        self.mount.join("store")
    }

    /// The loop device goes by itself with the mount.
    fn mount(&self) -> Result<(), Wrong> {
        tell(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    fn unmount(&self) -> Result<(), Wrong> {
        tell(Command::new("umount").arg(&self.mount))
    }

    /// What has reached the device. Two readings that agree are its state at the moment between them.
    fn copy(&mut self) -> Result<PathBuf, Wrong> {
        let mut before = std::fs::read(&self.image).unwrap();
        for _ in 0..50 {
            let after = std::fs::read(&self.image).unwrap();
            if before == after {
                self.copies += 1;
                let copy = self.image.with_extension(self.copies.to_string());
                std::fs::write(&copy, after).unwrap();
                return Ok(copy);
            }
            before = after;
        }
        Err("the device does not come to rest".to_owned())
    }

    /// Lets go of this device and mounts another in its place.
    fn replace(&mut self, image: &Path) -> Result<(), Wrong> {
        self.unmount()?;
        std::fs::remove_file(&self.image).unwrap();
        self.image = image.to_owned();
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Not mounted, or still in use by what could not be ended: then it goes once nobody uses it any more.
        let _ = self.unmount().or_else(|_| tell(Command::new("umount").arg("-l").arg(&self.mount)));
        let _ = std::fs::remove_file(&self.image);
    }
}

impl Gateway {
    /// Stops all its threads where they are. Those that wait for the disk come to rest once that has answered.
    async fn stand_still(&self) -> Result<(), Wrong> {
        self.signal("STOP");
        let tasks = format!("/proc/{}/task", self.pid());
        let still = |stat: String| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'));
        let all_still = async {
            loop {
                let mut tasks = std::fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().path().join("stat"));
                if tasks.all(|stat| std::fs::read_to_string(stat).is_ok_and(still)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within("the gateway to stand still", Duration::from_secs(20), all_still).await
    }
}
