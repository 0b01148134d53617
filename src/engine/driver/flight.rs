//! Futures that are waited for side by side, of which there is mostly but one.
//!
//! The first one stands alone: a set of many costs more to set up than what is waited for. It starts nothing by itself.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, Stream};

/// Futures under way.
pub(super) struct Flight<F> {
    first: Option<Pin<Box<F>>>,
    /// Those that were begun beside the first.
    more: Option<FuturesUnordered<F>>,
}

impl<F: Future> Flight<F> {
    /// With none under way.
    pub(super) fn new() -> Self {
        Self { first: None, more: None }
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.as_ref().map_or(0, FuturesUnordered::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins one more.
    pub(super) fn push(&mut self, future: F) {
        // Only where nothing is under way: it is looked at first, and must not keep others waiting again and again.
        if self.is_empty() {
            self.first = Some(Box::pin(future));
        } else {
            self.more.get_or_insert_default().push(future);
        }
    }

    /// The next one that comes to its end; `None` if none is under way.
    pub(super) async fn next(&mut self) -> Option<F::Output> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        if let Some(first) = &mut self.first
            && let Poll::Ready(output) = first.as_mut().poll(cx)
        {
            self.first = None;
            return Poll::Ready(Some(output));
        }
        let more = self.more.as_mut().map_or(Poll::Ready(None), |more| Pin::new(more).poll_next(cx));
        match more {
            Poll::Ready(None) if self.first.is_some() => Poll::Pending,
            more => more,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn everything_comes_to_its_end_once() {
        let mut flight = Flight::new();
        assert_eq!(flight.next().now_or_never(), Some(None));
        let (ends, begun): (Vec<_>, Vec<_>) = (0..3).map(|_| oneshot::channel::<u32>()).unzip();
        let mut begun = begun.into_iter();
        flight.push(begun.next().unwrap());
        assert_eq!((flight.len(), flight.next().now_or_never()), (1, None));
        begun.for_each(|each| flight.push(each));
        let mut ends = ends.into_iter();
        let mut end = |n| ends.next().unwrap().send(n).unwrap();
        assert_eq!((flight.len(), flight.next().now_or_never()), (3, None));
        end(1);
        assert_eq!(flight.next().now_or_never(), Some(Some(Ok(1))));
        // What is begun now stands behind the two that are left.
        let (late, begun) = oneshot::channel();
        flight.push(begun);
        late.send(4).unwrap();
        assert_eq!(flight.next().now_or_never(), Some(Some(Ok(4))));
        assert_eq!((flight.len(), flight.next().now_or_never()), (2, None));
        end(2);
        end(3);
        assert_eq!(flight.next().now_or_never(), Some(Some(Ok(2))));
        assert_eq!(flight.next().now_or_never(), Some(Some(Ok(3))));
        assert_eq!((flight.is_empty(), flight.next().now_or_never()), (true, Some(None)));
    }
}
