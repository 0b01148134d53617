//! A private Postgres server in a folder of its own.
//!
//! A small shell process holds it: it stops the server and removes the folder when its standard input is closed, which
//! the system does for us even if the test is killed.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// What the shell does: one answer for each line that it is sent, and the end when there are no more.
const SUPERVISOR: &str = r#"
trap '' HUP INT TERM
cd "$1" || exit 1
end() { "$2/pg_ctl" -D data -m immediate -t 20 stop >/dev/null 2>&1; cd /; rm -rf "$1"; }
answer() { if "$@" >>supervisor.log 2>&1; then echo done; else echo failed; fi; }
while read -r order; do
    case $order in
        init) answer "$2/initdb" -D data -U postgres --auth=scram-sha-256 --pwfile=password -E UTF8 --locale=C --no-sync ;;
        start) answer "$2/pg_ctl" -D data -l server.log -w -t 60 start ;;
        stop-*) answer "$2/pg_ctl" -D data -m "${order#stop-}" -w -t 60 stop ;;
    esac
done
end "$1" "$2"
"#;

/// A running server. It is stopped, and all of it removed, with this.
#[derive(Debug)]
pub struct Server {
    folder: PathBuf,
    port: u16,
    password: String,
    supervisor: Mutex<Supervisor>,
}

#[derive(Debug)]
struct Supervisor {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// Makes and starts a server with further lines of `postgresql.conf`, or says why it cannot.
    pub fn start(settings: &[&str]) -> Result<Self, String> {
        let programs = programs()?;
        // Whatever fails, a second port is worth a try: the first may have been taken meanwhile.
        Self::start_at(&programs, settings).or_else(|_| Self::start_at(&programs, settings))
    }

    fn start_at(programs: &Path, settings: &[&str]) -> Result<Self, String> {
        let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.map_err(failed("no port"))?.port();
        let folder = std::env::temp_dir().join(format!("onedelete-pg-{}-{port}", std::process::id()));
        std::fs::create_dir(&folder).map_err(failed("no folder"))?;
        let owner = owner();
        if let Some((user, group)) = owner {
            chown(&folder, Some(user), Some(group)).map_err(failed("no folder"))?;
        }
        let password = uuid::Uuid::new_v4().simple().to_string();
        let password_file = folder.join("password");
        std::fs::write(&password_file, &password).map_err(failed("no file"))?;
        if let Some((user, group)) = owner {
            chown(&password_file, Some(user), Some(group)).map_err(failed("no file"))?;
        }
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISOR, "sh"]).arg(&folder).arg(programs).current_dir("/").env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        if let Some((user, group)) = owner {
            command.uid(user).gid(group);
        }
        let mut child = command.spawn().map_err(failed("no shell"))?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        let supervisor = Mutex::new(Supervisor { child, orders, answers });
        let server = Self { folder, port, password, supervisor };
        server.order("init")?;
        let own = [
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("port = {port}"),
            format!("unix_socket_directories = '{}'", server.folder.display()),
            "max_connections = 200".to_owned(),
            "shared_buffers = 64MB".to_owned(),
        ];
        let lines: Vec<_> = own.iter().map(String::as_str).chain(settings.iter().copied()).collect();
        server.configure(&lines)?;
        server.order("start")?;
        Ok(server)
    }

    /// The superuser's URL, over TCP on loopback.
    pub fn url(&self) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// The folder that is its own: its data is in `data`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds lines to `postgresql.conf`. They hold from the next start.
    pub fn configure(&self, lines: &[&str]) -> Result<(), String> {
        let file = std::fs::File::options().append(true).open(self.folder.join("data/postgresql.conf"));
        let text = lines.join("\n") + "\n";
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| format!("no settings: {error}"))
    }

    /// Puts a file into its data, readable by the server alone.
    pub fn put(&self, name: &str, content: &[u8]) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.join("data").join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((user, group)) = owner() {
            chown(&path, Some(user), Some(group)).unwrap();
        }
    }

    /// Stops it: `smart`, `fast` or `immediate`, which is as a crash.
    pub fn stop(&self, how: &str) {
        self.order(&format!("stop-{how}")).unwrap();
    }

    /// Starts it again.
    pub fn go_on(&self) {
        self.order("start").unwrap();
    }

    fn order(&self, order: &str) -> Result<(), String> {
        let mut supervisor = self.supervisor.lock().unwrap();
        let Supervisor { orders, answers, .. } = &mut *supervisor;
        let gone = |_| "the supervisor of the test's Postgres is gone".to_owned();
        let orders = orders.as_mut().ok_or("it has ended")?;
        writeln!(orders, "{order}").map_err(gone)?;
        let mut answer = String::new();
        answers.read_line(&mut answer).map_err(gone)?;
        if answer.trim() == "done" {
            return Ok(());
        }
        let log = |name: &str| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let logs = log("supervisor.log") + &log("server.log");
        let end: Vec<_> = logs.lines().rev().take(5).collect();
        Err(format!("{order} failed: {}", end.into_iter().rev().collect::<Vec<_>>().join(" / ")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let supervisor = self.supervisor.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        // It ends, and all with it, when there are no more orders.
        supervisor.orders = None;
        let _ = supervisor.child.wait();
    }
}

/// The folder of the machine's programs: on the path, else the newest that Debian installed.
fn programs() -> Result<PathBuf, String> {
    let all_in = |folder: &PathBuf| ["initdb", "pg_ctl", "postgres"].iter().all(|name| folder.join(name).is_file());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).find(all_in);
    let version = |folder: &PathBuf| folder.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let installed = installed.map(|entry| entry.path().join("bin")).filter(all_in).max_by_key(version);
    // The real place: the programs look for each other beside themselves.
    let real = |folder: PathBuf| folder.join("initdb").canonicalize().ok()?.parent().map(Path::to_owned);
    on_path.and_then(real).filter(all_in).or(installed).ok_or_else(|| "no initdb on this machine".to_owned())
}

/// Whose the server is to be, where we are root, as whom it does not run.
fn owner() -> Option<(u32, u32)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?;
    if user != "0" {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    ["postgres", "nobody"].iter().find_map(|name| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}
