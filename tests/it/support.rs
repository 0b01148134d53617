//! A gateway in this process, with tenants made for one test, and a client to talk to it.
//!
//! Above 500 lines because every test uses some of it.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adapters::{DIALECTS, Identifier, Registration};
use onedelete::app::Gateway;
use onedelete::mock::{Fault, Mock};
use onedelete::{api, settings, tenants};
use serde_json::Value;

use crate::described::{self, Seen};

/// What a test says about its gateway before it starts.
pub(crate) struct Setup {
    folder: tempfile::TempDir,
    settings: toml::Table,
    tenants: toml::Table,
}

/// A gateway that runs until the test ends.
pub(crate) struct Running {
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) client: reqwest::Client,
    folder: tempfile::TempDir,
    gateway: Option<Gateway>,
}

/// An answer of the gateway.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
    /// `Null` if the body is not JSON.
    pub(crate) json: Value,
}

/// The key of a tenant in these tests.
pub(crate) fn key(tenant: &str) -> String {
    format!("odk_test-key-of-{tenant}-{}", "0123456789".repeat(4))
}

/// The key of a tenant that may only read.
pub(crate) fn read_key(tenant: &str) -> String {
    key(&format!("{tenant}-reader"))
}

impl Setup {
    /// Free ports on loopback, a store in memory, no tenants.
    pub(crate) fn new() -> Self {
        let text = r#"
            server = { listen = "127.0.0.1:0", admin_listen = "127.0.0.1:0", drain_ms = 10000, max_lag_ms = 0 }
            store = { url = "memory:" }
            tenants = { directory = "tenants", poll_ms = 0 }
            upstream = { retry = { doubt_s = 0, base_ms = 1, cap_ms = 20, budget_percent = 100 } }
        "#;
        Self { folder: tempfile::tempdir().unwrap(), settings: text.parse().unwrap(), tenants: toml::Table::new() }
    }

    /// Changes a setting, for example `set("server.max_body_bytes", 1000)`.
    pub(crate) fn set(mut self, path: &str, value: impl Into<toml::Value>) -> Self {
        let (parents, name) = path.rsplit_once('.').unwrap();
        let mut table = &mut self.settings;
        for parent in parents.split('.') {
            table = table.entry(parent).or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap();
        }
        table.insert(name.to_owned(), value.into());
        self
    }

    /// Keeps the deletions in a SQLite file.
    pub(crate) fn durable(self) -> Self {
        self.set("store.url", "sqlite:ledger.db")
    }

    /// Adds a connection to a tenant, and the tenant with its keys if it is new.
    pub(crate) fn connection(mut self, tenant: &str, name: &str, connection: toml::Table) -> Self {
        let file = self.tenants.entry(tenant).or_insert_with(|| {
            let (all, reader) = (api::sha256_hex(&key(tenant)), api::sha256_hex(&read_key(tenant)));
            let text = format!(
                "id = {tenant:?}\ndefault_connection = {name:?}\n\
                 [[api_keys]]\nname = \"all\"\nsha256 = {all:?}\n\
                 [[api_keys]]\nname = \"reader\"\naccess = \"read\"\nsha256 = {reader:?}\n[connections]\n"
            );
            text.parse::<toml::Table>().unwrap().into()
        });
        file["connections"].as_table_mut().unwrap().insert(name.to_owned(), connection.into());
        self
    }

    /// Changes a tenant's file. The tenant must have a connection already.
    pub(crate) fn tenant(mut self, tenant: &str, change: impl FnOnce(&mut toml::Table)) -> Self {
        change(self.tenants[tenant].as_table_mut().unwrap());
        self
    }

    /// Adds a connection to a mock, without a pace, changed as the test wants it.
    pub(crate) fn mock(self, tenant: &str, name: &str, mock: &Mock, change: impl FnOnce(&mut toml::Table)) -> Self {
        let mut connection = mock.connection_toml();
        table(&mut connection, "limits").insert("rate".to_owned(), "off".into());
        change(&mut connection);
        self.connection(tenant, name, connection)
    }

    /// Writes the configuration and starts the gateway from it.
    pub(crate) async fn start(self) -> Running {
        std::fs::create_dir_all(self.folder.path().join("tenants")).unwrap();
        self.write();
        Running::start(self.folder).await
    }

    /// The folder with the configuration, for tests of the program itself.
    pub(crate) fn write(&self) -> PathBuf {
        let folder = self.folder.path();
        std::fs::create_dir_all(folder.join("tenants")).unwrap();
        std::fs::write(folder.join("onedelete.toml"), toml::to_string(&self.settings).unwrap()).unwrap();
        for (tenant, file) in &self.tenants {
            let text = toml::to_string(file).unwrap();
            std::fs::write(folder.join("tenants").join(format!("{tenant}.toml")), text).unwrap();
        }
        folder.to_owned()
    }
}

/// A table in a connection, made if it is not there.
pub(crate) fn table<'t>(connection: &'t mut toml::Table, name: &str) -> &'t mut toml::Table {
    connection.entry(name).or_insert_with(|| toml::Table::new().into()).as_table_mut().unwrap()
}

/// Attempts for a contact.
pub(crate) fn attempts(n: i64) -> impl Fn(&mut toml::Table) {
    move |connection| {
        table(connection, "retry").insert("max_attempts".to_owned(), n.into());
    }
}

impl Running {
    async fn start(folder: tempfile::TempDir) -> Self {
        let file = folder.path().join("onedelete.toml");
        let settings = settings::load_with(&file, []).unwrap_or_else(|errors| panic!("{errors:?}"));
        let read = tenants::Secrets::Read;
        let tenants = tenants::load(&settings.tenants.directory, &settings.upstream, read);
        let tenants = tenants.unwrap_or_else(|errors| panic!("{errors:?}"));
        let gateway = Gateway::start(&settings, tenants).await.unwrap();
        gateway.follow(&file);
        let client = reqwest::Client::builder().no_proxy().retry(reqwest::retry::never()).build().unwrap();
        Self { public: gateway.public(), admin: gateway.admin(), client, folder, gateway: Some(gateway) }
    }

    /// Starts a gateway from the folder of one that was stopped.
    pub(crate) async fn reopen(folder: tempfile::TempDir) -> Self {
        Self::start(folder).await
    }

    /// Stops the gateway in order, and starts it again from the same folder.
    pub(crate) async fn restart(mut self) -> Self {
        self.gateway.take().unwrap().stop().await;
        Self::start(self.folder).await
    }

    /// A second gateway on a copy of the folder as it is now: what another process would find if this one were killed.
    pub(crate) async fn crashed_copy(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tenants")).unwrap();
        for inner in ["", "tenants"] {
            for entry in std::fs::read_dir(self.folder.path().join(inner)).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_file() {
                    std::fs::copy(entry.path(), folder.path().join(inner).join(entry.file_name())).unwrap();
                }
            }
        }
        Self::start(folder).await
    }

    /// Stops the gateway in order and keeps its folder.
    pub(crate) async fn stop_and_keep(mut self) -> tempfile::TempDir {
        self.gateway.take().unwrap().stop().await;
        self.folder
    }

    /// Stops the gateway in order.
    pub(crate) async fn stop(mut self) {
        self.gateway.take().unwrap().stop().await;
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public)
    }

    /// A deletion, as this tenant.
    pub(crate) async fn post(&self, tenant: &str, body: &Value) -> Answer {
        self.post_text(tenant, body.to_string()).await
    }

    pub(crate) async fn post_text(&self, tenant: &str, body: impl Into<String>) -> Answer {
        let request = self.client.post(self.url("/v1/deletions")).header("content-type", "application/json");
        send(request.bearer_auth(key(tenant)).body(body.into())).await
    }

    /// A deletion as JSON Lines, with the other members in the query, as this tenant.
    pub(crate) fn lines(&self, tenant: &str, query: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        let request = self.client.post(self.url(&format!("/v1/deletions{query}"))).bearer_auth(key(tenant));
        request.header("content-type", "application/x-ndjson").body(body)
    }

    /// The ids of all of a tenant's deletions that a list shows, newest first.
    pub(crate) async fn listed(&self, tenant: &str) -> Vec<String> {
        let answer = self.get(tenant, "/v1/deletions?limit=500").await;
        let deletions = answer.json["deletions"].as_array().expect(&answer.text);
        deletions.iter().map(|each| each["id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn get(&self, tenant: &str, path: &str) -> Answer {
        send(self.client.get(self.url(path)).bearer_auth(key(tenant))).await
    }

    pub(crate) async fn delete(&self, tenant: &str, path: &str) -> Answer {
        send(self.client.delete(self.url(path)).bearer_auth(key(tenant))).await
    }

    /// The deletion once it is finished.
    pub(crate) async fn finished(&self, tenant: &str, deletion: &str) -> Answer {
        let look = async {
            loop {
                let answer = self.get(tenant, &format!("/v1/deletions/{deletion}")).await;
                assert_eq!(answer.status, 200, "{}", answer.text);
                if answer.json["state"] == "finished" {
                    return answer;
                }
            }
        };
        within("the end of a deletion", look).await
    }

    /// A deletion, as this tenant, that is not waited for: its id.
    pub(crate) async fn post_async(&self, tenant: &str, body: &Value) -> String {
        let request = self.client.post(self.url("/v1/deletions")).header("content-type", "application/json");
        let request = request.header("prefer", "respond-async").bearer_auth(key(tenant)).body(body.to_string());
        let answer = send(request).await;
        assert!([200, 202, 207].contains(&answer.status), "{}", answer.text);
        answer.id()
    }

    /// The folder with the configuration and the ledger.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Has it read its files again, as SIGHUP does. Whether they are in use now.
    pub(crate) async fn reload(&self) -> bool {
        self.gateway.as_ref().unwrap().reload().await
    }

    /// Changes a tenant's file. It is put in place whole.
    pub(crate) fn change_tenant(&self, tenant: &str, change: impl FnOnce(&mut toml::Table)) {
        self.change(&format!("tenants/{tenant}.toml"), change);
    }

    /// Changes a file of the configuration. It is put in place whole.
    pub(crate) fn change(&self, file: &str, change: impl FnOnce(&mut toml::Table)) {
        let path = self.folder.path().join(file);
        let mut table: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        change(&mut table);
        let draft = path.with_extension("draft");
        std::fs::write(&draft, toml::to_string(&table).unwrap()).unwrap();
        std::fs::rename(draft, path).unwrap();
    }

    pub(crate) async fn metrics(&self) -> String {
        send(self.client.get(format!("http://{}/metrics", self.admin))).await.text
    }
}

/// Sends a request and reads the answer.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let (method, url) = (request.method().clone(), request.url().clone());
    let mut reply = client.execute(request).await.unwrap();
    let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await.unwrap() {
        body.extend_from_slice(&chunk);
    }
    let text = String::from_utf8(body).unwrap();
    let body = (method != http::Method::HEAD).then_some(text.as_str());
    described::check(&Seen { method: method.as_str(), target: url.path(), status, headers: &headers, body });
    let json = serde_json::from_str(&text).unwrap_or_default();
    Answer { status, headers, text, json }
}

impl Answer {
    /// The outcome of each contact.
    pub(crate) fn outcomes(&self) -> Vec<&str> {
        self.json["results"].as_array().expect(&self.text).iter().map(|r| r["outcome"].as_str().unwrap()).collect()
    }

    /// The deletion's id.
    pub(crate) fn id(&self) -> String {
        self.json["id"].as_str().expect(&self.text).to_owned()
    }

    /// Fails unless this is a problem with this status and code, before which nothing was sent.
    pub(crate) fn is_problem(&self, status: u16, code: &str, what: &str) {
        assert_eq!((self.status, self.json["code"].as_str()), (status, Some(code)), "{what}: {}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json", "{what}");
        assert_eq!(self.json["attempted"], false, "{what}: {}", self.text);
        assert_eq!(self.json["status"], status, "{what}");
    }

    /// Everything that must be the same for two answers that must not be told apart.
    pub(crate) fn fingerprint(&self) -> String {
        let mut headers = self.headers.clone();
        for once in ["x-request-id", "date"] {
            headers.remove(once);
        }
        let mut lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        lines.sort();
        format!("{}\n{}\n\n{}", self.status, lines.join("\n"), self.text)
    }

    /// The `error.code` of each contact, `-` where there is none.
    pub(crate) fn errors(&self) -> Vec<&str> {
        let results = self.json["results"].as_array().expect(&self.text);
        results.iter().map(|r| r["error"]["code"].as_str().unwrap_or("-")).collect()
    }
}

/// An answer that is read as it comes.
pub(crate) struct Flow {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    reply: reqwest::Response,
    rest: String,
}

/// Sends a request and reads the head of its answer.
pub(crate) async fn flow(request: reqwest::RequestBuilder) -> Flow {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let (method, url) = (request.method().clone(), request.url().clone());
    let reply = within("the head of an answer", client.execute(request)).await.unwrap();
    let (status, headers) = (reply.status().as_u16(), reply.headers());
    described::check(&Seen { method: method.as_str(), target: url.path(), status, headers, body: None });
    Flow { status: reply.status().as_u16(), headers: reply.headers().clone(), reply, rest: String::new() }
}

impl Flow {
    /// The text up to the next `end`; nothing where the answer ends in order, an error where it is cut off.
    async fn until(&mut self, end: &str) -> Result<Option<String>, reqwest::Error> {
        loop {
            if let Some((text, rest)) = self.rest.split_once(end) {
                let (text, rest) = (text.to_owned(), rest.to_owned());
                self.rest = rest;
                return Ok(Some(text));
            }
            match within("more of an answer", self.reply.chunk()).await? {
                Some(chunk) => self.rest.push_str(std::str::from_utf8(&chunk).unwrap()),
                None => {
                    assert_eq!(self.rest, "", "an answer ends in the middle");
                    return Ok(None);
                }
            }
        }
    }

    /// The next line as JSON.
    pub(crate) async fn line(&mut self) -> Result<Option<Value>, reqwest::Error> {
        Ok(self.until("\n").await?.map(|line| serde_json::from_str(&line).unwrap()))
    }

    /// The next server-sent event that is not a comment: its name and its data.
    pub(crate) async fn event(&mut self) -> Result<Option<(String, Value)>, reqwest::Error> {
        while let Some(event) = self.until("\n\n").await? {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let (Some(name), Some(data)) = (field("event:"), field("data:")) {
                return Ok(Some((name.to_owned(), serde_json::from_str(data).unwrap())));
            }
        }
        Ok(None)
    }
}

/// A request whose body is sent piece by piece, on a connection of its own.
pub(crate) struct Upload(std::net::TcpStream);

impl Upload {
    /// Sends the head of a deletion as JSON Lines, with these header lines more.
    pub(crate) fn begin(gateway: &Running, tenant: &str, query: &str, lines: &str) -> Self {
        let mut stream = std::net::TcpStream::connect(gateway.public).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (host, key) = (gateway.public, key(tenant));
        let head = format!(
            "POST /v1/deletions{query} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/x-ndjson\r\nConnection: close\r\n{lines}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        Self(stream)
    }

    /// The same with a body in chunks.
    pub(crate) fn chunked(gateway: &Running, tenant: &str, query: &str) -> Self {
        Self::begin(gateway, tenant, query, "Transfer-Encoding: chunked")
    }

    /// Sends bytes as they are. Fails where the other side has closed the connection, answered or not.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Sends a chunk; an empty one ends the body.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(&chunk).unwrap();
    }

    /// Says that nothing more will come.
    pub(crate) fn cut_off(&mut self) {
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }

    /// Reads the answer until the other side closes the connection. Status 0 is no answer.
    pub(crate) async fn answer(mut self) -> Answer {
        let read = move || {
            let mut answer = Vec::new();
            let _ = self.0.read_to_end(&mut answer);
            answer
        };
        parse(tokio::task::spawn_blocking(read).await.unwrap())
    }
}

/// Waits for something that must come; a test that would hang fails instead.
pub(crate) async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(30), waiting).await {
        Ok(value) => value,
        Err(_) => panic!("waited too long for {what}"),
    }
}

/// Sends these bytes on a connection of their own, and reads the answer until its end. It must be as it is described.
pub(crate) async fn raw(addr: SocketAddr, bytes: impl Into<Vec<u8>>) -> Answer {
    let bytes = bytes.into();
    let line = String::from_utf8_lossy(bytes.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let answer = asked(addr, bytes).await;
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    // What has a length of its own, and is one answer alone, can be read here.
    let length = answer.headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    let body = (length == Some(answer.text.len()) && method != "HEAD").then_some(answer.text.as_str());
    described::check(&Seen { method, target, status: answer.status, headers: &answer.headers, body });
    answer
}

/// The same for a server with other routes than the gateway's.
pub(crate) async fn asked(addr: SocketAddr, bytes: impl Into<Vec<u8>>) -> Answer {
    let bytes = bytes.into();
    let exchange = move || -> std::io::Result<Vec<u8>> {
        let mut stream = std::net::TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&bytes)?;
        let mut answer = Vec::new();
        // A reset after the answer, for a body that was not read, takes nothing away from what was read before.
        let _ = stream.read_to_end(&mut answer);
        Ok(answer)
    };
    parse(tokio::task::spawn_blocking(exchange).await.unwrap().unwrap())
}

/// The first answer in these bytes.
fn parse(bytes: Vec<u8>) -> Answer {
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: http::HeaderName = name.parse().unwrap();
        headers.append(name, value.trim().parse().unwrap());
    }
    Answer { status, headers, json: serde_json::from_str(body).unwrap_or_default(), text: body.to_owned() }
}

/// A double of this dialect on a free port of loopback.
pub(crate) async fn mock(dialect: &str) -> Mock {
    Mock::start(registration(dialect), SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

pub(crate) fn registration(dialect: &str) -> &'static Registration {
    DIALECTS.iter().find(|registration| registration.profile.id == dialect).unwrap()
}

/// Has the upstream hold every delete from now on.
pub(crate) fn hold(mock: &Mock) {
    mock.fault_always(Some(Fault::Hold));
}

/// Has it carry out what it holds, and whatever comes after it.
pub(crate) fn let_go(mock: &Mock) {
    mock.fault_always(None);
    mock.release(usize::MAX);
}

/// `n` different native ids of a dialect, never the same twice in this process.
pub(crate) fn ids(dialect: &str, n: usize) -> Vec<String> {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let rule = &registration(dialect).profile.identifiers[0];
    let first = NEXT.fetch_add(n, Ordering::Relaxed);
    let forms =
        |i: usize| [format!("{}", 1_000_000 + i), format!("{i:024x}"), format!("91c615e3-1040-4815-8ecb-{i:012x}")];
    let accepted = |text: &String| (rule.accepts)(&Identifier::Id(text.as_str().into()));
    (first..first + n).map(|i| forms(i).into_iter().find(accepted).unwrap()).collect()
}

/// A native id as an identifier.
pub(crate) fn id(text: &str) -> Identifier {
    Identifier::Id(text.into())
}
