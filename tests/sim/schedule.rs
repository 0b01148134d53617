//! A seed becomes a plan: who asks for what, what goes wrong, and when.

use fastrand::Rng;
use onedelete::mock::Fault;
use std::time::Duration;

use crate::gateway::TENANTS;
use crate::net::Weather;
use crate::world::LINKS;

/// How long the longest fault of a schedule may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Less than 5 minutes, each.
    Short,
    /// Up to an hour.
    Long,
}

impl Class {
    /// What people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Short => "every fault under 5 min",
            Self::Long => "faults up to 1 h",
        }
    }

    /// In milliseconds; short ones are likelier.
    fn draw(self, rng: &mut Rng) -> u64 {
        let (least, most): (f64, f64) = match self {
            Self::Short => (100.0, 299_000.0),
            Self::Long => (300_000.0, 3_600_000.0),
        };
        (least * (most / least).powf(rng.f64())) as u64
    }
}

/// How a life of the gateway ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Death {
    /// Killed at its n-th write, counted from 1, before or after that is carried out.
    AtWrite { write: usize, carried_out: bool, down_ms: u64 },
    /// Killed so long after its start.
    AtTime { after_ms: u64, down_ms: u64 },
    /// Stopped in order so long after its start.
    InOrder { after_ms: u64, down_ms: u64 },
}

impl Death {
    pub(crate) fn down_ms(self) -> u64 {
        let (Self::AtWrite { down_ms, .. } | Self::AtTime { down_ms, .. } | Self::InOrder { down_ms, .. }) = self;
        down_ms
    }

    pub(crate) fn after_ms(self) -> Option<u64> {
        match self {
            Self::AtWrite { .. } => None,
            Self::AtTime { after_ms, .. } | Self::InOrder { after_ms, .. } => Some(after_ms),
        }
    }

    pub(crate) fn fatal_write(self) -> Option<(usize, bool)> {
        match self {
            Self::AtWrite { write, carried_out, .. } => Some((write, carried_out)),
            _ => None,
        }
    }
}

/// All that a seed decides before anything runs.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) class: Class,
    pub(crate) tenants: usize,
    /// Whether the ledger is in memory: then nothing is killed.
    pub(crate) in_memory: bool,
    pub(crate) slowest_write_us: u64,
    pub(crate) deaths: Vec<Death>,
    /// The way to the gateway.
    pub(crate) front: Weather,
    /// The ways to each tenant's upstreams.
    pub(crate) ways: Vec<Vec<Weather>>,
    /// One fault of an upstream's own in about so many calls.
    pub(crate) trouble: Option<usize>,
    /// Upstreams that hold calls back for so long, one in so many calls.
    pub(crate) holds: Option<(u64, u64)>,
    /// When the gateway's clock on the wall jumps, and by how much, in milliseconds.
    pub(crate) jumps: Vec<(u64, i64)>,
    /// Orders of each tenant.
    pub(crate) orders: usize,
    /// Over which time they come, in milliseconds.
    pub(crate) span_ms: u64,
    /// Whether callers hang up early now and then, and cancel.
    pub(crate) moody: bool,
    /// Whether the gateway is killed once more when all is finished, and all is read again.
    pub(crate) once_more: bool,
    /// When the last fault is over.
    pub(crate) end_ms: u64,
}

impl Plan {
    pub(crate) fn of(rng: &mut Rng) -> Self {
        let class = if rng.u8(..8) == 0 { Class::Long } else { Class::Short };
        let tenants = rng.usize(1..=TENANTS);
        let calm = |rng: &mut Rng| Weather { latency_ms: (1, [2, 20, 300][rng.usize(..3)]), ..Weather::default() };
        let mut plan = Self {
            class,
            tenants,
            in_memory: false,
            slowest_write_us: [0, 0, 2_000][rng.usize(..3)],
            deaths: Vec::new(),
            front: calm(rng),
            ways: (0..tenants).map(|_| LINKS.iter().map(|_| calm(rng)).collect()).collect(),
            trouble: None,
            holds: None,
            jumps: Vec::new(),
            orders: rng.usize(1..=3),
            span_ms: [500, 5_000, 40_000][rng.usize(..3)],
            moody: rng.bool(),
            once_more: rng.u8(..4) == 0,
            end_ms: 0,
        };
        plan.end_ms = plan.span_ms;
        // A long schedule has at least one long fault.
        if class == Class::Long {
            match rng.u8(..3) {
                0 => plan.outage(rng),
                1 => plan.partition(rng),
                _ => plan.death(rng),
            }
        }
        for _ in 0..rng.usize(1..=3) {
            plan.add(rng);
        }
        // A process with its memory alone has no second life.
        plan.in_memory = plan.deaths.is_empty() && !plan.once_more && rng.bool();
        plan
    }

    /// One more thing that goes wrong.
    fn add(&mut self, rng: &mut Rng) {
        match rng.u8(..16) {
            0 => self.each(rng, |way, rng| way.loss = rng.u64(50..2_000)),
            1 => self.each(rng, |way, rng| way.cut = rng.u64(10..400)),
            2 => self.each(rng, |way, rng| way.copy = (rng.u64(500..5_000), [0, 2_000, 60_000][rng.usize(..3)])),
            3 => self.partition(rng),
            4 => self.outage(rng),
            5 | 6 | 14 | 15 => self.trouble = Some(rng.usize(2..15)),
            7 => self.holds = Some((rng.u64(3..30), rng.u64(1_000..120_000))),
            8 => self.slowest_write_us = rng.u64(10_000..1_500_000),
            9 => {
                for _ in 0..rng.usize(1..=3) {
                    let by_ms = rng.i64(-7_200_000..7_200_000);
                    let by_ms = if rng.bool() { by_ms } else { by_ms / 1_000 };
                    let at_ms = rng.u64(..self.end_ms);
                    self.jumps.push((at_ms, by_ms));
                    // A clock that stays wrong is no short fault.
                    if self.class == Class::Short {
                        let back_ms = at_ms + self.class.draw(rng);
                        self.jumps.push((back_ms, -by_ms));
                        self.end_ms = self.end_ms.max(back_ms);
                    }
                }
                self.jumps.sort_unstable();
            }
            10 => {
                self.front.cut = rng.u64(50..1_000);
                self.front.loss = rng.u64(..1_000);
            }
            11 => self.front.copy = (rng.u64(1_000..6_000), rng.u64(..20_000)),
            12 => self.each(rng, |way, rng| way.latency_ms.1 = rng.u64(300..20_000)),
            _ => {
                for _ in 0..rng.usize(1..=3) {
                    self.death(rng);
                }
            }
        }
    }

    /// Does something to some of the ways.
    fn each(&mut self, rng: &mut Rng, mut act: impl FnMut(&mut Weather, &mut Rng)) {
        let every = rng.bool();
        for way in self.ways.iter_mut().flatten() {
            if every || rng.u8(..3) == 0 {
                act(way, rng);
            }
        }
    }

    fn time(&mut self, rng: &mut Rng) -> (u64, u64) {
        let from = rng.u64(..self.span_ms);
        let until = from + self.class.draw(rng);
        self.end_ms = self.end_ms.max(until);
        (from, until)
    }

    fn partition(&mut self, rng: &mut Rng) {
        let time = self.time(rng);
        if rng.u8(..6) == 0 {
            self.front.partitions.push(time);
        } else {
            self.each(rng, |way, _| way.partitions.push(time));
        }
    }

    fn outage(&mut self, rng: &mut Rng) {
        let time = self.time(rng);
        self.each(rng, |way, _| way.refusals.push(time));
    }

    fn death(&mut self, rng: &mut Rng) {
        let down_ms = [20, 2_000, self.class.draw(rng)][rng.usize(..3)];
        let after_ms = rng.u64(1..=self.span_ms + 2_000);
        self.end_ms = self.end_ms.max(after_ms + down_ms);
        self.deaths.push(match rng.u8(..8) {
            0..5 => Death::AtWrite { write: rng.usize(1..60), carried_out: rng.bool(), down_ms },
            5..7 => Death::AtTime { after_ms, down_ms },
            _ => Death::InOrder { after_ms, down_ms },
        });
    }
}

/// A fault of an upstream's own. None of them is a lie that nobody could see through: no proof of a deletion that was not,
/// and no refusal of one that was.
pub(crate) fn some_fault(rng: &mut Rng) -> Fault {
    match rng.u8(..24) {
        0..3 => Fault::CommitThenDrop,
        3..5 => Fault::DropBeforeCommit,
        5 => Fault::Reset { commit: true },
        6 => Fault::Reset { commit: false },
        7..9 => Fault::CutBody,
        9 => Fault::Html(502),
        10 => Fault::Html(200),
        11 => Fault::Html(403),
        12 => Fault::Status(500),
        13 => Fault::Empty(500),
        14 => Fault::Stall,
        15 => Fault::SlowDrip(Duration::from_millis(rng.u64(1..2_000))),
        16 => Fault::Delay(Duration::from_millis(rng.u64(1..60_000))),
        17 => Fault::Throttle(rng.u64(1..120)),
        18 => Fault::Busy(rng.u64(1..120)),
        19 => Fault::WrongIds,
        20 => Fault::MissingIds,
        21 => Fault::Contradict,
        22 => Fault::Accept202,
        _ => Fault::Raw((&b"HTTP/1.1 2"[..]).into()),
    }
}
