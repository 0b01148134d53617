//! strace as a wrapper: which calls a run makes, and what happens at the K-th of them.
//!
//! It counts for each thread and each system call by itself, and so do the points here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::gateway::Start;

/// The calls by which a store changes its files.
pub(crate) const WRITES: [&str; 7] = ["write", "pwrite64", "pwritev", "ftruncate", "rename", "unlink", "fallocate"];
/// The calls by which it asks for them to be on the disk.
pub(crate) const FLUSHES: [&str; 4] = ["fsync", "fdatasync", "sync_file_range", "msync"];
/// The calls by which the gateway speaks to callers and upstreams.
pub(crate) const WIRE: [&str; 3] = ["sendto", "writev", "sendmsg"];

/// A run under strace.
pub(crate) struct Traced {
    folder: tempfile::TempDir,
    pub(crate) start: Start,
}

/// What is done to a call.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    pub(crate) call: String,
    /// As strace has it, for example `signal=KILL`.
    pub(crate) what: String,
    /// `3`: the third of a thread; `3+`: that one and all after it.
    pub(crate) when: String,
}

pub(crate) fn is_there() -> bool {
    let version = Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

impl Traced {
    /// Watches these calls, on these files alone if any are named, and does something at a point.
    pub(crate) fn new(calls: &[&str], files: &[PathBuf], point: Option<&Point>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Not with `--seccomp-bpf`, under which strace 6.1 injects nothing.
        // The program stays this process's child: its id is the gateway's own.
        let mut wrapper: Vec<OsString> = ["strace", "-D", "-f", "-qq", "-ttt", "-s", "0", "-o"].map(Into::into).into();
        wrapper.push(folder.path().join("log").into());
        for file in files {
            wrapper.extend(["-P".into(), file.into()]);
        }
        wrapper.extend(["-e".into(), format!("trace={}", calls.join(",")).into()]);
        if let Some(Point { call, what, when }) = point {
            wrapper.extend(["-e".into(), format!("inject={call}:{what}:when={when}").into()]);
        }
        // With one worker, the counts of its calls are the same from run to run, or nearly so.
        let variables = vec![("TOKIO_WORKER_THREADS", "1".into())];
        Self { folder, start: Start { wrapper, variables } }
    }

    /// The same on another disk.
    pub(crate) fn on(mut self, disk: Option<&Start>) -> Self {
        // By strace's own option, as it is not meant for strace.
        for (name, value) in disk.into_iter().flat_map(|disk| &disk.variables) {
            let mut variable = OsString::from(format!("{name}="));
            variable.push(value);
            self.start.wrapper.splice(1..1, ["-E".into(), variable]);
        }
        self
    }

    /// How often each call was made, at most by one thread.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let log = self.log();
        let mut each: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for line in log.lines() {
            let mut words = line.split_whitespace();
            let (Some(thread), Some(_), Some(call)) = (words.next(), words.next(), words.next()) else { continue };
            if let Some((call, _)) = call.split_once('(') {
                *each.entry((thread, call)).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((_, call), count) in each {
            let known = most.entry(call.to_owned()).or_insert(0);
            *known = count.max(*known);
        }
        most
    }

    /// When a call was first made to fail, in seconds since 1970-01-01 UTC.
    pub(crate) fn failed_at(&self) -> Option<f64> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("(INJECTED)"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    fn log(&self) -> String {
        // A run that was killed at once may have none.
        let bytes = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// `n` points, spread evenly over all calls that were counted.
pub(crate) fn spread(counts: &BTreeMap<String, usize>, calls: &[&str], n: usize) -> Vec<(String, usize)> {
    let all: Vec<(&str, usize)> =
        calls.iter().flat_map(|call| (1..=counts.get(*call).copied().unwrap_or(0)).map(move |k| (*call, k))).collect();
    let n = n.min(all.len());
    let last = all.len().saturating_sub(1);
    // Many have the first and the last among them; few stand in the middle, where there is most to be hurt.
    let place = |i: usize| if n < 8 { (2 * i + 1) * all.len() / (2 * n) } else { i * last / (n - 1) };
    (0..n).map(|i| all[place(i)]).map(|(call, k)| (call.to_owned(), k)).collect()
}

/// The files of a store while it is open, and those that it has on and off.
pub(crate) fn files(store: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_file()).collect()
}
