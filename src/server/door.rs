//! Requests of one connection on their way to the router: it says from where they come, and knows when an answer ended.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use tower::ServiceExt;

use super::conversation::{Answering, Conversation};
use super::head::HeadLimits;
use super::http2;
use crate::api::Peer;

/// The service of one connection.
pub(super) struct Door {
    router: Router,
    peer: IpAddr,
    conversation: Arc<Conversation>,
    /// What a head may be, where no gate has looked at it.
    unchecked: Option<HeadLimits>,
}

impl Door {
    pub(super) fn new(router: Router, peer: IpAddr, conversation: Arc<Conversation>) -> Self {
        Self { router, peer, conversation, unchecked: None }
    }

    /// For requests that came through no gate.
    pub(super) fn checking(self, limits: HeadLimits) -> Self {
        Self { unchecked: Some(limits), ..self }
    }
}

impl Service<Request<Incoming>> for Door {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (answering, flaw) = self.conversation.answering();
        let flaw = flaw.or_else(|| http2::flaw(&request, self.unchecked?));
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(self.peer));
        // The stack answers it, so that refusals are named and counted like other answers.
        flaw.map(|flaw| request.extensions_mut().insert(flaw));
        let router = self.router.clone();
        Box::pin(async move {
            let mut response = router.oneshot(request).await?;
            if answering.is_the_last() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Answer { body, answering }))
        })
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
