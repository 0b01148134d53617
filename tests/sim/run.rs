//! One schedule, from its seed to the verdict.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use onedelete::clock;
use onedelete::mock::{Fault, Match, Mock, Rule};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::Wrong;
use crate::callers::Callers;
use crate::gateway::{Keeper, Site, Wish, upstream};
use crate::laws;
use crate::life::Life;
use crate::net::Net;
use crate::orders::{Item, Maker};
use crate::schedule::{Class, Plan, some_fault};
use crate::trace::Trace;
use crate::world::{LINKS, World, dialect};

/// What a clock on the wall shows when a schedule begins.
const BEGINNING_MS: i64 = 1_780_000_000_000;
/// The largest order of a caller.
const LARGEST: usize = 30;
/// After the gateway's end, until nothing is on its way any more.
const SETTLE: Duration = Duration::from_secs(120);

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Counts panics: a task that panics ends nothing but itself.
pub(crate) fn count_panics() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.set(PANICS.get() + 1);
        told(panic);
    }));
}

/// What came of one schedule.
pub(crate) struct Outcome {
    pub(crate) class: Class,
    pub(crate) hash: u64,
    pub(crate) events: usize,
    pub(crate) figures: Figures,
    pub(crate) wrong: Option<Wrong>,
    pub(crate) lines: Vec<String>,
}

/// Figures of one schedule or of many.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    pub(crate) schedules: usize,
    pub(crate) deletions: usize,
    pub(crate) contacts: usize,
    pub(crate) deleted: usize,
    /// Unknown ones that name their contact for good.
    pub(crate) unknown_ids: usize,
    /// Of so many.
    pub(crate) ids: usize,
    /// Unknown phones and external ids, which are never sent a second time.
    pub(crate) unknown_others: usize,
    pub(crate) others: usize,
    pub(crate) repeated: usize,
    /// Of the unknown ones that name their contact for good, those that no further attempt could tell.
    pub(crate) untellable: BTreeMap<Untellable, usize>,
    /// Why the unknown ones are: whose they are, and how the last attempt ended.
    pub(crate) causes: BTreeMap<String, usize>,
    /// What went wrong, and how often.
    pub(crate) faults: BTreeMap<&'static str, usize>,
}

/// Why nobody who asks again could tell what became of a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Untellable {
    /// Talkdesk names what it did not delete, and gives no reason: gone by an earlier call, or not to be deleted.
    NoReason,
    /// The upstream has it and refuses to delete it, in words that do not prove that it is still there.
    Refused,
    /// 202: the upstream has it and is at work on it. By the contract it is not sent again.
    Accepted,
    /// The caller had it cancelled while it was in doubt.
    Cancelled,
}

impl Figures {
    /// The unknown ones that name their contact for good, without those that nobody could tell.
    pub(crate) fn could_be_told(&self) -> usize {
        self.unknown_ids - self.untellable.values().sum::<usize>()
    }
}

impl Untellable {
    /// What people call it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::NoReason => "talkdesk gives no reason for what it did not delete",
            Self::Refused => "refused by an upstream that has it",
            Self::Accepted => "answered with 202",
            Self::Cancelled => "may be cancelled",
        }
    }

    /// What makes this result, which is unknown, one of them.
    fn of(dialect: &str, result: &Value, holds: bool, cancelled: bool) -> Option<Self> {
        match result["error"]["code"].as_str()? {
            "upstream_unspecified" if dialect == "talkdesk" => Some(Self::NoReason),
            "upstream_unspecified" | "upstream_forbidden" if holds => Some(Self::Refused),
            "accepted_unconfirmed" => Some(Self::Accepted),
            _ => cancelled.then_some(Self::Cancelled),
        }
    }
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.schedules += other.schedules;
        self.deletions += other.deletions;
        self.contacts += other.contacts;
        self.deleted += other.deleted;
        self.unknown_ids += other.unknown_ids;
        self.ids += other.ids;
        self.unknown_others += other.unknown_others;
        self.others += other.others;
        self.repeated += other.repeated;
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (why, count) in other.untellable {
            *self.untellable.entry(why).or_default() += count;
        }
        for (cause, count) in other.causes {
            *self.causes.entry(cause).or_default() += count;
        }
    }
}

/// Runs the schedule of a seed. With `told`, its events are kept as lines.
pub(crate) fn run(site: &Site, seed: u64, told: bool) -> Outcome {
    PANICS.set(0);
    fastrand::seed(seed);
    let mut rng = Rng::with_seed(seed);
    // Neighbouring seeds begin alike.
    (0..8).for_each(|_| {
        rng.u64(..);
    });
    let plan = Plan::of(&mut rng);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (trace, judged) = runtime.block_on(async {
        clock::simulate(Instant::now(), BEGINNING_MS);
        let trace = Arc::new(Trace::new(told));
        let judged = play(site, &plan, &mut rng, &trace).await;
        (trace, judged)
    });
    let (hash, events, mut lines) = (trace.hash(), trace.events(), trace.lines());
    if told {
        lines.insert(0, format!("{plan:?}"));
    }
    drop(runtime);
    let (figures, mut wrong) = match judged {
        Ok(figures) => (figures, None),
        Err(wrong) => (Figures::default(), Some(wrong)),
    };
    if PANICS.get() > 0 {
        wrong = Some(format!("{} panics; {}", PANICS.get(), wrong.unwrap_or_default()));
    }
    let figures = Figures { schedules: 1, ..figures };
    Outcome { class: plan.class, hash, events, figures, wrong, lines }
}

async fn play(site: &Site, plan: &Plan, rng: &mut Rng, trace: &Arc<Trace>) -> Result<Figures, Wrong> {
    let start = Instant::now();
    let net = Net::new(rng.fork(), Arc::clone(trace));
    net.link(crate::gateway::PUBLIC, plan.front.clone());
    let mut worlds = Vec::new();
    for (tenant, ways) in plan.ways.iter().enumerate() {
        let mock = |(link, way): (usize, &crate::net::Weather)| {
            let at = upstream(tenant, link);
            net.link(at, way.clone());
            // The upstreams' clocks go as they should.
            let now_ms = move || (BEGINNING_MS as u64) + start.elapsed().as_millis() as u64;
            Mock::simulated(dialect(LINKS[link].1), at, net.listen(at, &Life::forever()), now_ms).unwrap()
        };
        worlds.push(World::of(ways.iter().enumerate().map(mock).collect()));
    }
    let (at_peace, peace) = watch::channel(false);
    let (wishes, wished) = mpsc::unbounded_channel();
    let all: Vec<_> = (0..plan.tenants)
        .map(|tenant| Callers {
            tenant,
            dialler: net.dialler(([10, 0, 1, 1 + tenant as u8], 0).into(), &Life::forever()),
            told: Default::default(),
            trace: Arc::clone(trace),
            peace: peace.clone(),
        })
        .collect();
    let keeper = Keeper { site, net: net.clone(), trace: Arc::clone(trace), plan, peace: peace.clone() };
    let keeping = keeper.keep(rng.fork(), wished);
    let living = async {
        let trouble = join_all(worlds.iter().map(|world| hurt(world, plan, rng.fork(), peace.clone())));
        let jumps = jump(plan, start);
        let carrying = join_all(worlds.iter().zip(&all).map(|(world, callers)| {
            let mut maker = Maker::new(rng.fork(), LARGEST, &format!("t{}", callers.tenant)).keyless();
            let mut rng = rng.fork();
            let orders: Vec<_> = (0..plan.orders)
                .map(|_| {
                    (if rng.u8(..4) == 0 { maker.lines(world) } else { maker.order(world) }, rng.u64(..plan.span_ms))
                })
                .collect();
            async move {
                let each = orders.iter().map(|(order, at)| callers.carry(order, rng.fork(), plan.moody, *at));
                join_all(each).await;
            }
        }));
        let ending = async {
            sleep(Duration::from_millis(plan.end_ms) + Duration::from_secs(5)).await;
            net.heal();
            at_peace.send_replace(true);
        };
        tokio::join!(biased; trouble, jumps, carrying, ending);
        for link in worlds.iter().flat_map(|world| &world.links) {
            link.mock.clear_faults();
            link.mock.release(usize::MAX);
        }
        trace.say("peace");
        for callers in &all {
            callers.finish(rng.fork()).await?;
        }
        if plan.once_more {
            let _ = wishes.send(Wish::Restart);
            sleep(Duration::from_secs(2)).await;
        }
        for callers in &all {
            callers.look_at_all().await?;
        }
        net.settled().await;
        let _ = wishes.send(Wish::Stop);
        Ok(())
    };
    let (kept, lived) = tokio::join!(biased; keeping, async {
        let lived: Result<(), Wrong> = living.await;
        if lived.is_err() {
            let _ = wishes.send(Wish::Stop);
        }
        lived
    });
    kept.and(lived)?;
    sleep(SETTLE).await;
    plan.jumps.iter().for_each(|_| trace.fault("clock jump", 0, 0));
    let ways = plan.ways.iter().flatten().chain([&plan.front]);
    ways.flat_map(|way| &way.partitions).for_each(|_| trace.fault("partition of a way", 0, 0));
    for entry in worlds.iter().flat_map(|world| &world.links).flat_map(|link| link.mock.journal()) {
        entry.fault.filter(|_| entry.fault_applied).inspect(|fault| trace.fault(fault, entry.n as u64, 0));
    }
    let mut figures = Figures { faults: trace.faults(), ..Figures::default() };
    for (world, callers) in worlds.iter().zip(&all) {
        let tally = laws::judge(world, &callers.told).map_err(|wrong| format!("tenant {}: {wrong}", callers.tenant))?;
        figures.deletions += tally.deletions;
        figures.contacts += tally.contacts;
        figures.deleted += tally.deleted;
        figures.repeated += tally.repeated;
        callers.told.each(|memo| {
            let Some(results) = memo.finished.as_ref().and_then(|finished| finished["results"].as_array()) else {
                return;
            };
            for (n, (item, result)) in memo.order.items.iter().zip(results).enumerate() {
                let outcome = result["outcome"].as_str().unwrap_or_default();
                trace.put(outcome, n as u64, result["attempts"].as_u64().unwrap_or(0));
                let Item::Fresh(contact) = item else { continue };
                let unknown = usize::from(outcome == "unknown");
                match contact.replay_safe {
                    true => (figures.ids, figures.unknown_ids) = (figures.ids + 1, figures.unknown_ids + unknown),
                    false => {
                        (figures.others, figures.unknown_others) =
                            (figures.others + 1, figures.unknown_others + unknown);
                    }
                }
                if unknown > 0 {
                    let (connection, dialect) = LINKS[contact.link];
                    let code = result["error"]["code"].as_str().unwrap_or_default();
                    let why = Untellable::of(dialect, result, world.holds(contact), memo.cancelled)
                        .filter(|_| contact.replay_safe);
                    why.inspect(|why| *figures.untellable.entry(*why).or_default() += 1);
                    let again = if contact.replay_safe { "" } else { " (may not be sent again)" };
                    let cancelled = if memo.cancelled { ", may be cancelled" } else { "" };
                    let cause =
                        format!("{dialect} ({connection}){again}: {code} after {}{cancelled}", result["attempts"]);
                    *figures.causes.entry(cause).or_default() += 1;
                }
            }
        });
    }
    Ok(figures)
}

/// Faults of a tenant's upstreams, until all is well.
async fn hurt(world: &World, plan: &Plan, rng: Rng, mut peace: watch::Receiver<bool>) {
    let trouble = async {
        if let Some(every) = plan.trouble {
            world.trouble_of(some_fault, rng, every, peace.clone()).await;
        }
    };
    let holding = async {
        let Some((every, ms)) = plan.holds else { return };
        for link in &world.links {
            link.mock.rule(Rule {
                fault: Fault::Hold,
                when: Match { every: Some(every), ..Match::default() },
                times: None,
            });
        }
        loop {
            sleep(Duration::from_millis(ms)).await;
            for link in &world.links {
                link.mock.release(usize::MAX);
            }
        }
    };
    let both = async { tokio::join!(biased; trouble, holding) };
    let mut until = peace.clone();
    tokio::select! {
        biased;
        _ = until.wait_for(|peace| *peace) => {}
        _ = both => {}
    }
    let _ = peace.wait_for(|peace| *peace).await;
}

/// Lets the gateway's clock on the wall jump.
async fn jump(plan: &Plan, start: Instant) {
    let mut unix_ms = BEGINNING_MS;
    for (at_ms, by_ms) in &plan.jumps {
        tokio::time::sleep_until(start + Duration::from_millis(*at_ms)).await;
        unix_ms += by_ms;
        clock::simulate(start, unix_ms);
    }
}
