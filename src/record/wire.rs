//! HTTP on both sides: a request comes in whole, goes on once, and its reply goes back as it came.
//!
//! It knows no dialect. Where no whole reply came, the client's connection is closed: to make up an answer would be to
//! say something in the upstream's name.

use std::error::Error;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::Recording;

/// The largest request body, in bytes. A larger one is not passed on, and answered with 413.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Headers of one hop (RFC 9110, section 7.6.1), and those that the next one gets anew.
const NOT_PASSED_ON: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Passes on the requests of one connection, one after the other, until either side closes it.
pub(super) async fn serve(stream: TcpStream, recording: Arc<Recording>) {
    // It only costs time, so failing is no matter.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| pass_on(Arc::clone(&recording), request));
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // A connection that breaks is the client's matter: it sees that itself.
    let _ = connection.await;
}

/// The upstream's reply to one request. An error closes the connection without one.
async fn pass_on(recording: Arc<Recording>, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => body,
        Err(err) if err.is::<LengthLimitError>() => {
            let mut reply = Response::new(Full::default());
            *reply.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return Ok(reply);
        }
        Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
    };
    let request = Request::from_parts(head, body);
    let (mut head, body) = request.clone().into_parts();
    head.headers = passed_on(&request);
    head.uri = recording.uri(&request).ok_or(io::ErrorKind::InvalidInput)?;
    let Ok(reply) = recording.client.send(Request::from_parts(head, body)).await else {
        recording.lost();
        return Err(io::ErrorKind::ConnectionAborted.into());
    };
    let (mut head, body) = reply.clone().into_parts();
    recording.put_down(request, reply).await;
    for name in one_hop(&head.headers) {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, Full::new(body)))
}

async fn read(body: Incoming) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    let mut body = Limited::new(body, MAX_BODY_BYTES);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

fn passed_on(request: &Request<Bytes>) -> HeaderMap {
    let mut headers = request.headers().clone();
    for name in one_hop(request.headers()) {
        headers.remove(name);
    }
    headers
}

/// The headers of one hop, those that `Connection` names among them.
fn one_hop(headers: &HeaderMap) -> Vec<HeaderName> {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
    NOT_PASSED_ON.iter().map(|name| HeaderName::from_static(name)).chain(named).collect()
}
