//! The gateway of a schedule: the product's own code, started, killed, stopped and started again on the same ledger.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use onedelete::app::{Gateway, Surroundings};
use onedelete::settings::Settings;
use onedelete::store::{Ledger, Memory, Options, Sqlite};
use onedelete::tenants::{Secrets, Tenants};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::Wrong;
use crate::ledger::{Desk, wait_for};
use crate::life::Life;
use crate::net::Net;
use crate::schedule::{Death, Plan};
use crate::trace::Trace;
use crate::world::{self, LINKS};

/// Attempts for a contact: the default.
pub(crate) const MAX_ATTEMPTS: u64 = 4;

/// Where the gateway listens.
pub(crate) const PUBLIC: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 8080);
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 9090);

/// Tenants at most.
pub(crate) const TENANTS: usize = 3;

/// The configuration of all schedules: the defaults, and connections to the simulated upstreams.
pub(crate) struct Site {
    pub(crate) settings: Settings,
    pub(crate) tenants: Arc<Tenants>,
    /// Where the ledgers are.
    stores: PathBuf,
    _folder: tempfile::TempDir,
}

/// A tenant's key.
pub(crate) fn key(tenant: usize) -> String {
    format!("odk_simulation-{tenant}-{}", "0123456789".repeat(4))
}

/// The address of a tenant's upstream.
pub(crate) fn upstream(tenant: usize, link: usize) -> SocketAddr {
    SocketAddr::from(([127, 1, tenant as u8, 1 + link as u8], 8000))
}

impl Site {
    /// It needs a runtime: mocks say what their connections are.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tenants = folder.path().join("tenants");
        std::fs::create_dir(&tenants).unwrap();
        for tenant in 0..TENANTS {
            std::fs::write(tenants.join(format!("t{tenant}.toml")), tenant_file(tenant)).unwrap();
        }
        let file = folder.path().join("onedelete.toml");
        std::fs::write(&file, "tenants = { directory = \"tenants\" }\nstore = { url = \"memory:\" }\n").unwrap();
        let settings = onedelete::settings::load_with(&file, []).unwrap();
        let tenants = onedelete::tenants::load(&tenants, &settings.upstream, Secrets::Read).unwrap();
        // Nothing of it need outlive this process.
        let shm = Path::new("/dev/shm");
        let stores = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let stores = stores.unwrap().keep();
        Self { settings, tenants: Arc::new(tenants), stores, _folder: folder }
    }
}

/// A folder of one schedule.
struct Folder(PathBuf);

impl Site {
    /// A new one. Its name is not made by chance: that would use up some of the schedule's.
    fn folder(&self) -> Folder {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let folder = self.stores.join(MADE.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.stores);
    }
}

fn tenant_file(tenant: usize) -> String {
    let net = Net::new(Rng::with_seed(0), Arc::new(Trace::new(false)));
    let mut connections = toml::Table::new();
    for (n, (name, dialect)) in LINKS.into_iter().enumerate() {
        let at = upstream(tenant, n);
        let arrivals = net.listen(at, &Life::forever());
        let mock = onedelete::mock::Mock::simulated(world::dialect(dialect), at, arrivals, || 0).unwrap();
        let mut connection = mock.connection_toml();
        if n == world::BATCH {
            connection.insert("attribution".to_owned(), "batch".into());
        }
        connections.insert(name.to_owned(), connection.into());
    }
    let sha256 = onedelete::api::sha256_hex(&key(tenant));
    let head = format!("id = \"t{tenant}\"\n[[api_keys]]\nname = \"all\"\nsha256 = {sha256:?}\n");
    let mut file: toml::Table = head.parse().unwrap();
    file.insert("connections".to_owned(), connections.into());
    toml::to_string(&file).unwrap()
}

/// What keeps the gateway going through its lives.
pub(crate) struct Keeper<'s> {
    pub(crate) site: &'s Site,
    pub(crate) net: Net,
    pub(crate) trace: Arc<Trace>,
    pub(crate) plan: &'s Plan,
    /// Told when nothing more is to be done to it.
    pub(crate) peace: watch::Receiver<bool>,
}

/// What the gateway is to do at the end of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To be killed and started again.
    Restart,
    /// To stop in order.
    Stop,
}

impl Keeper<'_> {
    /// Runs the gateway through the plan's lives, then until it is told to stop.
    pub(crate) async fn keep(&self, mut rng: Rng, mut wishes: mpsc::UnboundedReceiver<Wish>) -> Result<(), Wrong> {
        let folder = self.site.folder();
        let memory: Arc<dyn Ledger> = Arc::new(Memory::default());
        let mut deaths = self.plan.deaths.iter();
        let mut peace = self.peace.clone();
        loop {
            let mut death = if *peace.borrow() { None } else { deaths.next().copied() };
            let down = Duration::from_millis(death.map_or(0, Death::down_ms));
            let inner = match self.plan.in_memory {
                true => Arc::clone(&memory),
                false => {
                    let opened = Sqlite::open(&folder.0.join("ledger.db"), Options::default());
                    Arc::new(opened.map_err(|err| format!("the ledger does not open again: {err}"))?)
                }
            };
            let life = Life::forever();
            let over = Arc::new(Notify::new());
            let tell = Arc::clone(&over);
            life.at_the_end(move || tell.notify_one());
            let fatal = Mutex::new(death.and_then(Death::fatal_write));
            let ledger = Arc::new(Desk {
                inner: Arc::clone(&inner),
                life: Arc::clone(&life),
                trace: Arc::clone(&self.trace),
                rng: Mutex::new(rng.fork()),
                slowest_us: self.plan.slowest_write_us,
                fatal,
            });
            let begun = Instant::now();
            self.trace.say("starts");
            let mut gateway = tokio::select! {
                biased;
                () = over.notified() => None,
                gateway = self.start(&ledger, &life) => Some(gateway?),
            };
            while let Some(lives) = gateway.take() {
                let time_over = async {
                    match death.and_then(Death::after_ms) {
                        Some(ms) => tokio::time::sleep_until(begun + Duration::from_millis(ms)).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = over.notified() => {}
                    wish = wishes.recv() => {
                        self.trace.say("is told to end");
                        if wish != Some(Wish::Restart) {
                            lives.stop().await;
                            wait_for(inner.close());
                            return Ok(());
                        }
                    }
                    // What has not killed it by now does not.
                    _ = peace.wait_for(|peace| *peace), if death.is_some() => {
                        death = None;
                        *ledger.fatal.lock().unwrap() = None;
                        gateway = Some(lives);
                    }
                    () = time_over => {
                        if let Some(Death::InOrder { .. }) = death {
                            self.trace.fault("stopped in order", 0, 0);
                            lives.stop().await;
                        } else {
                            self.trace.fault("killed at a moment", 0, 0);
                        }
                    }
                }
            }
            self.trace.say("is gone");
            life.end();
            // What the process had open goes with it.
            wait_for(inner.close());
            drop(inner);
            tokio::select! {
                biased;
                _ = peace.wait_for(|peace| *peace) => {}
                () = sleep(down) => {}
            }
        }
    }

    async fn start(&self, ledger: &Arc<Desk>, life: &Arc<Life>) -> Result<Gateway, Wrong> {
        let listeners = [PUBLIC, ADMIN].map(|at| self.net.listen(at, life));
        let dial = Arc::new(self.net.dialler(SocketAddr::new(PUBLIC.ip(), 0), life));
        let (tenants, ledger) = (Arc::clone(&self.site.tenants), Arc::clone(ledger) as Arc<dyn Ledger>);
        let addresses = [PUBLIC, ADMIN];
        let around = Surroundings { ledger, addresses, listeners, tls: None, dial: Some(dial) };
        let begun = Gateway::begin(&self.site.settings, tenants, around);
        begun.await.map_err(|err| format!("the gateway does not start: {err}"))
    }
}
