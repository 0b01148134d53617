//! Requests of one connection on their way to what answers them: it says from where they come, and knows when an answer ended.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tower::Service;

use super::conversation::{Answering, Conversation};
use super::head::{Flaw, HeadLimits};
use super::http2;
use crate::api::Peer;

/// A request, and what is known of it besides.
pub struct Arrival {
    pub(super) request: Request<Incoming>,
    pub(super) peer: Peer,
    /// What is wrong with it. It is refused where all are answered, so that refusals are named and counted like other answers.
    pub(super) flaw: Option<Flaw>,
}

/// An answer that is being made.
pub type Answered = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// What answers the requests of a listener: one for each connection, in any thread. It is always ready.
pub trait Answers:
    Service<Arrival, Response = Response, Error = Infallible, Future = Answered> + Clone + Send + Sync + 'static
{
}

impl<S> Answers for S where
    S: Service<Arrival, Response = Response, Error = Infallible, Future = Answered> + Clone + Send + Sync + 'static
{
}

/// The service of one connection.
pub(super) struct Door<S> {
    service: S,
    peer: IpAddr,
    conversation: Arc<Conversation>,
    /// What a head may be, where no gate has looked at it.
    unchecked: Option<HeadLimits>,
}

impl<S: Answers> Door<S> {
    pub(super) fn new(service: S, peer: IpAddr, conversation: Arc<Conversation>) -> Self {
        Self { service, peer, conversation, unchecked: None }
    }

    /// For requests that came through no gate.
    pub(super) fn checking(self, limits: HeadLimits) -> Self {
        Self { unchecked: Some(limits), ..self }
    }
}

impl<S: Answers> hyper::service::Service<Request<Incoming>> for Door<S> {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Passing;

    fn call(&self, request: Request<Incoming>) -> Passing {
        let (answering, flaw) = self.conversation.answering();
        let flaw = flaw.or_else(|| http2::flaw(&request, self.unchecked?));
        let answered = self.service.clone().call(Arrival { request, peer: Peer(self.peer), flaw });
        Passing { answered, answering: Some(answering) }
    }
}

/// An answer on its way out.
pub(super) struct Passing {
    answered: Answered,
    /// Until it is there.
    answering: Option<Answering>,
}

impl Future for Passing {
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(self.answered.as_mut().poll(cx));
        // Nobody asks again for what is there.
        let Some(answering) = self.answering.take() else { return Poll::Pending };
        if answering.is_the_last() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response.map(|body| Answer { body, answering })))
    }
}

/// An answer's body, until whose end the request is under way.
pub(super) struct Answer {
    body: Body,
    answering: Answering,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.answering.is_wanted();
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.answering.handed_on(frame.data_ref().map_or(0, Bytes::len));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
