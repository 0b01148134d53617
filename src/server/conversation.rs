//! How far a connection has come, and until when it may stay there: who is silent, or does not read, has to go.
//!
//! It reads and writes nothing itself; the gate and the door tell it what happens. How long a body may take is the
//! reader's affair: only it knows that it waits for one.
//!
//! Over HTTP/2, requests come and go side by side in tasks of their own, and an answer can wait for its reader while the
//! connection does not. Who reads nothing of one answer then loses the connection.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::head::Flaw;

/// How long a connection may take for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a request's head, from its first byte; and for the first byte of the first one.
    pub(super) header: Duration,
    /// For the next request.
    pub(super) idle: Duration,
    /// Without a byte of an answer taken.
    pub(super) write: Duration,
    /// Bytes of an answer in a second, counted while the reader is waited for, after [`GRACE`]; 0 is any pace.
    pub(super) min_answer_bytes_per_s: u64,
}

/// A slow reader is forgiven for so long in each answer.
const GRACE: Duration = Duration::from_secs(2);
/// How long is read on behind an answer that ends the connection.
const LINGER: Duration = Duration::from_secs(2);

/// One connection's state. Over HTTP/1, all of it happens in one task.
#[derive(Debug)]
pub(super) struct Conversation {
    patience: Patience,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Heads that came, requests that are or were answered, and answers that ended.
    heads: u64,
    begun: u64,
    answers: u64,
    /// The head whose body did not all come yet. What it ends with is not known.
    coming: Option<u64>,
    /// What is wrong with the last head. None comes after it.
    flaw: Option<Flaw>,
    /// Since when a head is coming.
    head_since: Option<Instant>,
    /// Since when nothing is under way.
    rest_since: Instant,
    /// Since when the other side does not read.
    blocked_since: Option<Instant>,
    /// How long it did not, in this answer, and how much it read.
    blocked: Duration,
    written: u64,
    /// Whether what was written is still kept on this side.
    kept: bool,
    closing_since: Option<Instant>,
    /// Over HTTP/2: answers of which a piece was handed on and no other one asked for.
    unread: Option<HashMap<u64, Unread>>,
    /// Over HTTP/2: when something of an answer was sent last.
    answered: Option<Instant>,
    /// Whoever waits for the deadline, in another task.
    waker: Option<Waker>,
}

/// An answer that waits for its reader.
#[derive(Debug)]
struct Unread {
    since: Instant,
    until: Option<Instant>,
}

impl Conversation {
    pub(super) fn new(patience: Patience) -> Arc<Self> {
        let state = State {
            heads: 0,
            begun: 0,
            answers: 0,
            coming: None,
            flaw: None,
            head_since: None,
            rest_since: Instant::now(),
            blocked_since: None,
            blocked: Duration::ZERO,
            written: 0,
            kept: false,
            closing_since: None,
            unread: None,
            answered: None,
            waker: None,
        };
        Arc::new(Self { patience, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is HTTP/2.
    pub(super) fn multiplexes(&self) {
        self.state().unread = Some(HashMap::new());
    }

    /// The first byte of a head came.
    pub(super) fn head_begins(&self) {
        let now = Instant::now();
        self.state().head_since.get_or_insert(now);
    }

    /// A head is whole. Over HTTP/2, the request counts when it comes to the door.
    pub(super) fn head_is_whole(&self) {
        self.state().head_since = None;
    }

    /// So many bytes of answers were sent, over HTTP/2.
    pub(super) fn answered(&self, bytes: u64) {
        if bytes > 0 {
            let now = Instant::now();
            self.state().answered = Some(now);
        }
    }

    /// A head is whole, or will never be.
    pub(super) fn head_ends(&self, flaw: Option<Flaw>) {
        let mut state = self.state();
        state.heads += 1;
        state.head_since = None;
        state.flaw = flaw;
    }

    /// The body of the last head is still to come.
    pub(super) fn body_begins(&self) {
        let mut state = self.state();
        state.coming = Some(state.heads);
    }

    /// The body was sound, and it is all there.
    pub(super) fn body_ends(&self) {
        self.state().coming = None;
    }

    /// A request is being answered until what is returned is dropped. If it is the last and there is something wrong
    /// with it, that comes too.
    pub(super) fn answering(self: &Arc<Self>) -> (Answering, Option<Flaw>) {
        let mut state = self.state();
        if state.blocked_since.is_none() {
            (state.blocked, state.written) = (Duration::ZERO, 0);
        }
        state.begun += 1;
        if state.unread.is_some() {
            state.heads += 1;
        }
        let number = state.begun;
        let flaw = state.flaw.filter(|_| state.begun == state.heads);
        drop(state);
        (Answering { conversation: Arc::clone(self), number, handed_on: 0, waited: Duration::ZERO }, flaw)
    }

    /// What became of writing.
    pub(super) fn written(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.blocked(),
            Poll::Ready(Ok(bytes)) => self.wrote(*bytes),
            Poll::Ready(Err(_)) => {}
        }
    }

    /// What became of sending what was still kept on this side.
    pub(super) fn flushed(&self, flushed: &Poll<io::Result<()>>) {
        let mut state = self.state();
        let was_kept = std::mem::replace(&mut state.kept, flushed.is_pending());
        drop(state);
        if flushed.is_pending() {
            self.blocked();
        } else if was_kept {
            self.wrote(0);
        }
    }

    /// The other side does not read.
    fn blocked(&self) {
        let now = Instant::now();
        self.state().blocked_since.get_or_insert(now);
    }

    /// The other side took so many bytes.
    fn wrote(&self, bytes: usize) {
        let mut state = self.state();
        state.written += bytes as u64;
        if let Some(since) = state.blocked_since.take() {
            let now = Instant::now();
            state.blocked += now - since;
            state.rest_since = now;
        }
    }

    /// The last answer is sent; what still comes is thrown away.
    pub(super) fn closes(&self) {
        let now = Instant::now();
        self.state().closing_since.get_or_insert(now);
    }

    /// When the connection has to go, as things stand.
    fn deadline(&self) -> Option<Instant> {
        let (state, patience) = (self.state(), self.patience);
        if let Some(since) = state.closing_since {
            return Some(since + LINGER);
        }
        if state.unread.is_some() {
            return state.deadline_of_many(patience);
        }
        if let Some(since) = state.blocked_since {
            let earned = match patience.min_answer_bytes_per_s {
                0 => patience.write,
                rate => {
                    let earned = GRACE + Duration::from_millis(state.written.saturating_mul(1_000) / rate);
                    earned.saturating_sub(state.blocked)
                }
            };
            return Some(since + earned.min(patience.write));
        }
        if state.heads > state.answers {
            return None;
        }
        Some(match state.head_since {
            Some(since) => since.max(state.rest_since) + patience.header,
            None if state.heads == 0 => state.rest_since + patience.header,
            None => state.rest_since + patience.idle,
        })
    }
}

impl State {
    /// Over HTTP/2: the soonest of all.
    fn deadline_of_many(&self, patience: Patience) -> Option<Instant> {
        let is_at_rest = self.heads == self.answers;
        let sent = |since: Instant| self.answered.map_or(since, |answered| answered.max(since));
        let rest = is_at_rest.then(|| {
            let most = if self.heads == 0 { patience.header } else { patience.idle };
            sent(self.rest_since) + most
        });
        let head = self.head_since.map(|since| since + patience.header);
        let blocked = self.blocked_since.map(|since| since + patience.write);
        let unread = self.unread.iter().flat_map(HashMap::values);
        let unread = unread.flat_map(|unread| [Some(sent(unread.since) + patience.write), unread.until]);
        unread.chain([rest, head, blocked]).flatten().min()
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Answering {
    conversation: Arc<Conversation>,
    number: u64,
    /// Bytes of the answer, and how long nobody wanted more.
    handed_on: u64,
    waited: Duration,
}

impl Answering {
    /// Whether nothing can be read behind the request: nobody wanted its body to the end, or it has none.
    pub(super) fn is_the_last(&self) -> bool {
        self.conversation.state().coming == Some(self.number)
    }

    /// The next piece of the answer is asked for.
    pub(super) fn is_wanted(&mut self) {
        let unread = self.conversation.state().unread.as_mut().and_then(|unread| unread.remove(&self.number));
        if let Some(Unread { since, .. }) = unread {
            self.waited += since.elapsed();
        }
    }

    /// A piece of the answer was handed on.
    pub(super) fn handed_on(&mut self, bytes: usize) {
        self.handed_on += bytes as u64;
        let rate = self.conversation.patience.min_answer_bytes_per_s;
        let mut state = self.conversation.state();
        let Some(unread) = &mut state.unread else { return };
        let since = Instant::now();
        let earned = |rate| GRACE + Duration::from_millis(self.handed_on.saturating_mul(1_000) / rate);
        let until = (rate > 0).then(|| since + earned(rate).saturating_sub(self.waited));
        unread.insert(self.number, Unread { since, until });
        state.wake();
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let mut state = self.conversation.state();
        state.answers += 1;
        state.rest_since = Instant::now();
        if let Some(unread) = &mut state.unread {
            unread.remove(&self.number);
            state.wake();
        }
    }
}

/// A connection until it ends, or its patience does.
pub(super) struct Watched<C> {
    connection: Pin<Box<C>>,
    conversation: Arc<Conversation>,
    alarm: Pin<Box<Sleep>>,
}

impl<C: Future> Watched<C> {
    pub(super) fn new(connection: C, conversation: Arc<Conversation>) -> Self {
        let alarm = Box::pin(tokio::time::sleep(conversation.patience.header));
        Self { connection: Box::pin(connection), conversation, alarm }
    }
}

impl<C: Future> Future for Watched<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Whatever changed, changed in there, or will wake this.
        {
            let mut state = self.conversation.state();
            if state.unread.is_some() {
                state.waker = Some(cx.waker().clone());
            }
        }
        // An alarm that is set too early is set again when it goes off, as the deadline moves with every request.
        loop {
            let Some(deadline) = self.conversation.deadline() else { return Poll::Pending };
            if self.alarm.deadline() > deadline {
                self.alarm.as_mut().reset(deadline);
            }
            ready!(self.alarm.as_mut().poll(cx));
            if self.alarm.deadline() == deadline {
                return Poll::Ready(());
            }
            self.alarm.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        header: Duration::from_secs(5),
        idle: Duration::from_secs(15),
        write: Duration::from_secs(30),
        min_answer_bytes_per_s: 1_000,
    };

    fn left(conversation: &Conversation) -> Option<u64> {
        conversation.deadline().map(|deadline| (deadline - Instant::now()).as_secs())
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_and_a_pause_another() {
        let conversation = Conversation::new(PATIENCE);
        assert_eq!(left(&conversation), Some(5));
        pass(3).await;
        conversation.head_begins();
        assert_eq!(left(&conversation), Some(5));
        pass(2).await;
        // A byte now and then wins nothing.
        conversation.head_begins();
        assert_eq!(left(&conversation), Some(3));
        conversation.head_ends(None);
        let (answering, flaw) = conversation.answering();
        assert_eq!((left(&conversation), flaw), (None, None));
        pass(100).await;
        // A head that came behind it has waited for us.
        conversation.head_begins();
        assert_eq!(left(&conversation), None);
        pass(100).await;
        drop(answering);
        assert_eq!(left(&conversation), Some(5));
        conversation.head_ends(None);
        drop(conversation.answering());
        assert_eq!(left(&conversation), Some(15));
        pass(10).await;
        assert_eq!(left(&conversation), Some(5));
        conversation.closes();
        assert_eq!(left(&conversation), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_last_head_can_be_the_one_with_the_flaw() {
        let conversation = Conversation::new(PATIENCE);
        conversation.head_ends(None);
        conversation.head_ends(Some(super::super::head::HEADERS_TOO_LARGE));
        let (first, flaw) = conversation.answering();
        assert_eq!(flaw, None);
        drop(first);
        assert_eq!(conversation.answering().1, Some(super::super::head::HEADERS_TOO_LARGE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_may_be_slow_but_not_for_ever() {
        let conversation = Conversation::new(PATIENCE);
        conversation.head_ends(None);
        let (answering, _) = conversation.answering();
        conversation.wrote(1_000);
        assert_eq!(left(&conversation), None);
        conversation.blocked();
        assert_eq!(left(&conversation), Some(3));
        pass(2).await;
        conversation.blocked();
        assert_eq!(left(&conversation), Some(1));
        conversation.wrote(500_000);
        assert_eq!(left(&conversation), None);
        // However much was read before: a stall has an end of its own.
        conversation.blocked();
        assert_eq!(left(&conversation), Some(30));
        pass(20).await;
        conversation.wrote(1);
        // The answer is over for whoever wrote it, but not for the reader.
        drop(answering);
        conversation.blocked();
        assert_eq!(left(&conversation), Some(30));
        conversation.wrote(1);
        assert_eq!(left(&conversation), Some(15));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_watched_goes_when_its_time_is_over() {
        let conversation = Conversation::new(PATIENCE);
        let start = Instant::now();
        Watched::new(std::future::pending::<()>(), Arc::clone(&conversation)).await;
        assert_eq!(start.elapsed().as_secs(), 5);
        Watched::new(std::future::ready(()), conversation).await;
    }
}
