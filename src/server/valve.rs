//! How many requests are taken in at the same time: as many as may be, and fewer while the process itself is late.
//!
//! Being late, and having no processor to spare, are signs of overload that a slow upstream does not give. It looks at no
//! request and knows no tenant.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// Requests under way, and how many there may be now.
#[derive(Debug)]
pub struct Valve {
    rules: ValveRules,
    inside: AtomicUsize,
    limit: AtomicUsize,
    refused: AtomicUsize,
    /// When the next refusal may be told, in nanoseconds since the valve was made.
    next_refusal: AtomicU64,
    since: Instant,
}

/// What a valve is told.
#[derive(Debug, Clone, Copy)]
pub struct ValveRules {
    /// Requests under way at most, however well all goes.
    pub max_requests_in_flight: usize,
    /// How late the process may be before fewer are taken in, in milliseconds; 0 is any time.
    pub max_lag_ms: u64,
}

/// A place for one request, until this is dropped. It is free while the request waits for its own body: nobody fills the
/// gateway by sending slowly.
#[derive(Debug)]
pub(super) struct Place {
    valve: Arc<Valve>,
    is_free: AtomicBool,
}

/// A request's body, and the place of its request.
pub(super) struct Coming<B> {
    body: B,
    place: Arc<Place>,
}

/// So many are taken in however late the process is: as many as calls may be in flight by default. They keep it busy, and nobody
/// who asks with a few connections is refused because the processor is in use.
const LEAST: usize = 64;
/// Between two looks at how late it is.
const LOOK: Duration = Duration::from_millis(10);
/// The limit moves after so many looks, by the best of them: a burst that is worked off in between is no overload.
const LOOKS: u32 = 10;
/// The clock of the runtime has whole milliseconds.
const TICK: Duration = Duration::from_millis(1);
/// A process that used so much of its processors has none to spare.
const BUSY_PERCENT: u32 = 95;
/// Between two refusals.
const BETWEEN_REFUSALS: Duration = Duration::from_millis(1);
/// Between two lines of the log about one overload, in moves of the limit.
const TELL_AFTER: u32 = 100;

impl Valve {
    /// Open, with nothing inside.
    pub fn new(rules: ValveRules) -> Arc<Self> {
        let limit = AtomicUsize::new(rules.max_requests_in_flight);
        let (inside, refused, next_refusal) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Self { rules, inside, limit, refused, next_refusal, since: Instant::now() })
    }

    /// Looks how late the process is, moves the limit, and counts who was refused, until `stop`.
    pub async fn tend(self: Arc<Self>, stop: CancellationToken) {
        let (mut moves, mut untold) = (0_u32, 0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        while !stop.is_cancelled() {
            let (start, worked) = (Instant::now(), worked());
            let mut least = Duration::MAX;
            for _ in 0..LOOKS {
                let due = Instant::now() + LOOK + TICK;
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = stop.cancelled() => return,
                }
                // Behind all that is ready now.
                tokio::task::yield_now().await;
                least = least.min(Instant::now().saturating_duration_since(due));
            }
            let is_busy = (self::worked() - worked) * 100 > start.elapsed() * cores * BUSY_PERCENT;
            self.turn(least, is_busy);
            let refused = self.refused.swap(0, Ordering::Relaxed);
            telemetry::turned_away(refused);
            (moves, untold) = (moves.saturating_add(1), untold + refused);
            if untold > 0 && moves >= TELL_AFTER {
                tracing::warn!(refused = untold, "too much is asked for, and some of it was refused");
                (moves, untold) = (0, 0);
            }
        }
    }

    /// Moves the limit after a while in which the process was always so late, or had no processor to spare.
    fn turn(&self, lag: Duration, is_busy: bool) {
        let (limit, inside) = (self.limit.load(Ordering::Relaxed), self.inside.load(Ordering::Relaxed));
        let most = self.rules.max_requests_in_flight;
        let max_lag = Duration::from_millis(self.rules.max_lag_ms);
        let next = if !max_lag.is_zero() && (lag > max_lag || is_busy) {
            // What is inside and only waits counts as well, so it is never less than a part of that.
            (limit.min(inside) / 8 * 7).max(LEAST)
        } else {
            limit + (limit / 8).max(1)
        };
        self.limit.store(next.min(most), Ordering::Relaxed);
    }

    /// Waits until a refusal may be told. Whoever is refused asks again, and telling costs more than waiting: so there are
    /// not more refusals in a second than leave the rest of the time for work.
    pub(super) async fn rest(&self) {
        let now = self.since.elapsed().as_nanos() as u64;
        let step = |next: u64| Some(next.max(now) + BETWEEN_REFUSALS.as_nanos() as u64);
        let next = self.next_refusal.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or_default();
        if next > now {
            tokio::time::sleep_until(self.since + Duration::from_nanos(next)).await;
        }
    }

    /// A place, if there is one.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let place = Place { valve: Arc::clone(self), is_free: AtomicBool::new(false) };
        if self.inside.fetch_add(1, Ordering::Relaxed) < self.limit.load(Ordering::Relaxed) {
            return Some(place);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// How long the process has used processors.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

impl Place {
    fn is_waited_in(&self, waits: bool) {
        match (self.is_free.swap(waits, Ordering::Relaxed), waits) {
            (false, true) => drop(self.valve.inside.fetch_sub(1, Ordering::Relaxed)),
            (true, false) => drop(self.valve.inside.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.is_waited_in(true);
    }
}

impl<B> Coming<B> {
    pub(super) fn new(body: B, place: Arc<Place>) -> Self {
        Self { body, place }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Coming<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.place.is_waited_in(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Coming<B> {
    fn drop(&mut self) {
        self.place.is_waited_in(false);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::FutureExt;

    use super::*;

    const IN_TIME: Duration = Duration::from_millis(5);
    const LATE: Duration = Duration::from_millis(6);

    fn valve(most: usize) -> Arc<Valve> {
        Valve::new(ValveRules { max_requests_in_flight: most, max_lag_ms: 5 })
    }

    /// Takes places until there is none.
    fn fill(valve: &Arc<Valve>) -> Vec<Place> {
        std::iter::from_fn(|| valve.enter()).collect()
    }

    #[test]
    fn there_are_as_many_places_as_there_may_be_and_each_comes_back() {
        let valve = valve(1_000);
        let places = fill(&valve);
        assert_eq!(places.len(), 1_000);
        drop(places);
        assert_eq!(valve.inside.load(Ordering::Relaxed), 0);
        assert_eq!(fill(&valve).len(), 1_000);
    }

    #[test]
    fn who_is_late_takes_fewer_but_some_and_recovers() {
        let valve = valve(1_000);
        let mut places = fill(&valve);
        valve.turn(LATE, false);
        assert!(valve.enter().is_none());
        places.truncate(875);
        assert!(valve.enter().is_none(), "875 may be inside");
        places.truncate(874);
        assert!(valve.enter().is_some());
        drop(places);
        (0..60).for_each(|_| valve.turn(IN_TIME, true));
        assert_eq!(fill(&valve).len(), LEAST);
        (0..60).for_each(|_| valve.turn(IN_TIME, false));
        assert_eq!(fill(&valve).len(), 1_000);
    }

    #[test]
    fn a_small_limit_stays_what_it_is() {
        let valve = valve(8);
        (0..5).for_each(|_| valve.turn(LATE, false));
        assert_eq!(fill(&valve).len(), 8);
    }

    #[tokio::test]
    async fn who_waits_for_a_body_needs_no_place() {
        let valve = valve(1);
        let (sender, frames) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let frames = futures_util::stream::unfold(frames, |mut frames| async {
            let frame = frames.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(frame), frames))
        });
        let place = Arc::new(valve.enter().unwrap());
        let mut body = Coming::new(Body::from_stream(frames), Arc::clone(&place));
        assert!(valve.enter().is_none());
        let mut next = || http_body_util::BodyExt::frame(&mut body).now_or_never();
        assert!(next().is_none());
        assert!(valve.enter().is_some(), "it waits");
        sender.send(Bytes::from_static(b"[")).unwrap();
        assert!(next().is_some());
        assert!(valve.enter().is_none(), "it goes on");
        assert!(next().is_none());
        drop(body);
        assert!(valve.enter().is_none(), "it does without the rest");
        drop(place);
        assert_eq!(valve.inside.load(Ordering::Relaxed), 0);
    }

    /// What waits for an upstream makes nothing late.
    #[tokio::test(start_paused = true)]
    async fn requests_that_only_wait_are_no_overload() {
        let valve = valve(1_000);
        let places: Vec<_> = (0..900).map(|_| valve.enter()).collect();
        let stop = CancellationToken::new();
        let tending = tokio::time::timeout(Duration::from_secs(10), Arc::clone(&valve).tend(stop));
        assert!(tending.await.is_err(), "it goes on until it is stopped");
        assert_eq!(valve.limit.load(Ordering::Relaxed), 1_000);
        drop(places);
    }
}
