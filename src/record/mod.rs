//! Stands before a real upstream, passes requests on, and writes each exchange into a file of the fixture format.
//!
//! It listens on loopback alone, without TLS: the credential that comes in is the real one. What stands in the file is
//! for others to read, so identifiers, credentials and texts are replaced; see `disguise.rs`. It changes nothing on the
//! wire, sends nothing twice, and follows no redirect.

mod disguise;
mod scribe;
#[cfg(test)]
mod tests;
mod text;
mod wire;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adapters::{Registration, judge};
use bytes::Bytes;
use http::{Request, Response, Uri};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::outbound::{Client, ClientRules};
use crate::tenants::{Connection, CredentialValue};
use scribe::Scribe;

/// Connections at one time; more wait until one ends.
const MAX_CONNECTIONS: usize = 64;

/// After an accept that failed, mostly for want of file descriptors: time for some to become free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whose exchanges are recorded.
pub struct Upstream {
    registration: &'static Registration,
    settings: Map<String, Value>,
    example: Map<String, Value>,
    sign_in: Option<Uri>,
    rules: ClientRules,
}

/// A recording that is under way. It ends when it is stopped or dropped; its file is whole at any time.
pub struct Recorder {
    addr: SocketAddr,
    base_path: String,
    sign_in_path: Option<String>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// What all connections share.
struct Recording {
    client: Client,
    origin: String,
    sign_in: Option<(String, String)>,
    scribe: Arc<Mutex<Scribe>>,
    file: PathBuf,
    tell: Arc<Tell>,
}

type Tell = dyn Fn(&str) + Send + Sync;

impl Upstream {
    /// A tenant's connection. Its secrets are not needed.
    pub fn of_connection(connection: &Connection) -> Result<Self, String> {
        let mut settings = connection.settings.clone();
        let members = connection.credentials.members.iter();
        let given = members.filter_map(|(name, value)| match value {
            CredentialValue::Plain(text) => Some(((*name).to_owned(), text.as_str().into())),
            CredentialValue::Secret(_) | CredentialValue::Unread => None,
        });
        settings.insert("credentials".to_owned(), Value::Object(given.collect()));
        let rules = ClientRules {
            connect_ms: connection.timeouts.connect_ms,
            response_ms: connection.timeouts.response_ms,
            pool_idle_ms: connection.limits.pool_idle_ms,
            max_idle: connection.limits.max_in_flight,
            max_response_bytes: connection.limits.max_response_bytes,
            allow_private: connection.allow_private,
            https_only: connection.base_url.starts_with("https://"),
        };
        Self::new(connection.registration, settings, None, rules)
    }

    /// An upstream that is named by its base URL. Settings that are not given are the example's; `sign_in` is the URL of
    /// sign-ins, where that is at another host.
    pub fn at(
        registration: &'static Registration,
        base_url: &str,
        given: Map<String, Value>,
        sign_in: Option<Uri>,
    ) -> Result<Self, String> {
        let mut settings = example(registration)?;
        // Where nobody says where sign-ins go, they do not go to the example's host.
        settings.remove("credentials");
        // `42` may be meant as text.
        let as_text = |name: &str, value: Value| match settings.get(name) {
            Some(Value::String(_)) if !value.is_string() => value.to_string().into(),
            _ => value,
        };
        let given: Map<_, _> = given.into_iter().map(|(name, value)| (name.clone(), as_text(&name, value))).collect();
        settings.extend(given);
        settings.insert("base_url".to_owned(), base_url.trim_end_matches('/').into());
        let rules = ClientRules {
            connect_ms: 10_000,
            response_ms: 60_000,
            pool_idle_ms: 20_000,
            max_idle: 4,
            max_response_bytes: 8 << 20,
            // Whoever writes the URL on the command line means it.
            allow_private: true,
            https_only: base_url.starts_with("https://"),
        };
        Self::new(registration, settings, sign_in, rules)
    }

    fn new(
        registration: &'static Registration,
        settings: Map<String, Value>,
        sign_in: Option<Uri>,
        rules: ClientRules,
    ) -> Result<Self, String> {
        let example = example(registration)?;
        let dialect = judge::open(registration, &settings, &Map::new()).map_err(|err| match err.key.as_str() {
            "" => err.message,
            key => format!("{key} {}", err.message),
        })?;
        let asked = || judge::sign_in_request(registration, &settings, &*dialect).map(|request| request.uri().clone());
        let sign_in = sign_in.or_else(asked);
        Ok(Self { registration, settings, example, sign_in, rules })
    }

    fn base_url(&self) -> &str {
        self.settings.get("base_url").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A registration's example as JSON: a whole connection.
pub fn example(registration: &Registration) -> Result<Map<String, Value>, String> {
    let table: toml::Table = registration.example.parse().map_err(|_| "the example is no TOML".to_owned())?;
    match serde_json::to_value(table) {
        Ok(Value::Object(example)) => Ok(example),
        _ => Err("the example is no table".to_owned()),
    }
}

impl Recorder {
    /// Starts to listen and to record into a file that is not there yet. Each exchange is told in a line, without
    /// identifiers. It needs a tokio runtime with time and I/O.
    pub async fn start(
        upstream: Upstream,
        listen: SocketAddr,
        file: &Path,
        keep_text: bool,
        tell: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self, String> {
        if !listen.ip().is_loopback() {
            return Err(
                "it listens on loopback alone: what comes in carries a credential, and is not encrypted".to_owned()
            );
        }
        let Upstream { registration, ref settings, ref example, ref sign_in, rules } = upstream;
        let scribe = Scribe::new(registration, settings, sign_in.as_ref(), example.clone(), keep_text);
        let scribe = scribe.map_err(|err| err.to_string())?;
        // Before anything is sent: a file that cannot be written is no recording.
        let made = File::options().write(true).create_new(true).open(file).map(drop);
        made.and_then(|()| write(file, &scribe.file())).map_err(|err| format!("{}: {err}", file.display()))?;
        let client = Client::new(rules)?;
        let listener = TcpListener::bind(listen).await.map_err(|err| format!("cannot listen on {listen}: {err}"))?;
        let addr = listener.local_addr().map_err(|err| err.to_string())?;
        let (origin, base_path) = split(upstream.base_url());
        let sign_in = sign_in.as_ref().map(|uri| {
            let url = uri.to_string();
            (split(&url).0.to_owned(), uri.path().to_owned())
        });
        let sign_in_path = sign_in.as_ref().filter(|(at, _)| at != origin).map(|(_, path)| path.clone());
        let recording = Arc::new(Recording {
            client,
            origin: origin.to_owned(),
            sign_in,
            scribe: Arc::new(Mutex::new(scribe)),
            file: file.to_owned(),
            tell: Arc::new(tell),
        });
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let accepting = accept(listener, recording, tasks.clone(), stopping.clone());
        tasks.spawn(stopping.clone().run_until_cancelled_owned(accepting));
        Ok(Self { addr, base_path: base_path.to_owned(), sign_in_path, tasks, stopping })
    }

    /// The `base_url` that leads here.
    pub fn base_url(&self) -> String {
        format!("http://{}{}", self.addr, self.base_path)
    }

    /// The URL of sign-ins that leads here, where the upstream has them at another host.
    pub fn sign_in_url(&self) -> Option<String> {
        self.sign_in_path.as_ref().map(|path| format!("http://{}{path}", self.addr))
    }

    /// Closes the address and all connections, and waits until that is done.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({})", self.addr)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.registration.profile.id)
    }
}

impl Recording {
    /// Where a request goes on to.
    fn uri(&self, request: &Request<Bytes>) -> Option<Uri> {
        let sign_in = self.sign_in.as_ref().filter(|(_, path)| path == request.uri().path());
        let origin = sign_in.map_or(&self.origin, |(origin, _)| origin);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        format!("{origin}{path}").parse().ok()
    }

    /// Writes an exchange down before its reply goes back, so that whoever has the reply finds it in the file.
    async fn put_down(&self, request: Request<Bytes>, reply: Response<Bytes>) {
        let (scribe, file, tell) = (Arc::clone(&self.scribe), self.file.clone(), Arc::clone(&self.tell));
        let writing = tokio::task::spawn_blocking(move || {
            let mut scribe = scribe.lock().unwrap_or_else(PoisonError::into_inner);
            let kind = scribe.kind(&request);
            let (new, line) = scribe.put_down(&kind, &request, &reply);
            if new && let Err(err) = write(&file, &scribe.file()) {
                tell(&format!("{line}; {} cannot be written: {err}", file.display()));
                return;
            }
            tell(&line);
        });
        // It fails only where it panics, or where the runtime ends: the reply goes back all the same.
        if writing.await.is_err() {
            (self.tell)("an exchange could not be put down");
        }
    }

    fn lost(&self) {
        (self.tell)(
            "no whole reply came from the upstream; nothing is recorded, and the client's connection is closed",
        );
    }
}

async fn accept(listener: TcpListener, recording: Arc<Recording>, tasks: TaskTracker, stopping: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Nobody closes the semaphore, so this goes on until it is cancelled.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let recording = Arc::clone(&recording);
                let serving = async move {
                    wire::serve(stream, recording).await;
                    drop(place);
                };
                tasks.spawn(stopping.clone().run_until_cancelled_owned(serving));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Scheme and authority of a URL, and its path without a slash at its end.
fn split(url: &str) -> (&str, &str) {
    let host = url.find("://").map_or(0, |at| at + 3);
    let path = url[host..].find('/').map_or(url.len(), |slash| host + slash);
    (&url[..path], url[path..].trim_end_matches('/'))
}

/// Writes a file whole: beside it first, then in its place.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let beside = file.with_file_name(name);
    let mut part = File::create(&beside)?;
    part.write_all(bytes)?;
    part.sync_all()?;
    fs::rename(&beside, file)
}
