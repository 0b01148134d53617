//! An upstream that says what a test tells it to say, and puts down what it was asked: a bare HTTP/1 server on loopback.
//!
//! It knows no dialect and checks nothing; a dialect's double, which does, stands behind `onedelete::mock`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// No request of a test is as large.
const MAX_BODY_BYTES: usize = 1 << 20;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) method: Method,
    /// With its query if there is one.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

type Script = Box<dyn Fn(&Arrived) -> Response<Bytes> + Send + Sync>;

/// A running server. It ends when it is stopped or dropped.
pub(crate) struct Scripted {
    address: SocketAddr,
    stage: Arc<Stage>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

struct Stage {
    script: Script,
    journal: Mutex<Vec<Arrived>>,
}

impl Scripted {
    /// Starts one on a free port of loopback; `script` has the answer to every request.
    pub(crate) async fn start(script: impl Fn(&Arrived) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stage = Arc::new(Stage { script: Box::new(script), journal: Mutex::default() });
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let accepting = accept(listener, Arc::clone(&stage), tasks.clone(), stopping.clone());
        tasks.spawn(stopping.clone().run_until_cancelled_owned(accepting));
        Self { address, stage, tasks, stopping }
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// A connection of a tenant's file with all its URLs leading here; their paths stay.
    pub(crate) fn lead_here(&self, connection: &mut toml::Table) {
        for (_, value) in connection.iter_mut() {
            match value {
                toml::Value::Table(inner) => self.lead_here(inner),
                toml::Value::String(text) => {
                    if let Some((_, rest)) = text.split_once("://") {
                        let path = rest.find('/').map_or("", |slash| &rest[slash..]);
                        *text = format!("http://{}{path}", self.address);
                    }
                }
                _ => {}
            }
        }
    }

    /// Every request so far, in the order of arrival.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.stage.journal.lock().unwrap().clone()
    }

    /// Closes the address and all connections, and waits until that is done.
    pub(crate) async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

async fn accept(listener: TcpListener, stage: Arc<Stage>, tasks: TaskTracker, stopping: CancellationToken) {
    while let Ok((stream, _)) = listener.accept().await {
        tasks.spawn(stopping.clone().run_until_cancelled_owned(serve(stream, Arc::clone(&stage))));
    }
}

async fn serve(stream: TcpStream, stage: Arc<Stage>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(Arc::clone(&stage), request));
    // A connection that breaks shows in what the gateway says.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(stage: Arc<Stage>, request: http::Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let mut body = Limited::new(body, MAX_BODY_BYTES);
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let arrived = Arrived { method: head.method, path, headers: head.headers, body: bytes.freeze() };
    let reply = (stage.script)(&arrived);
    stage.journal.lock().unwrap().push(arrived);
    Ok(reply.map(Full::new))
}
