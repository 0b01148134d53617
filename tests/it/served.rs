//! `onedelete serve` as a child process, whatever the format of its log: where it listens, and all that it wrote.
//!
//! Both of its streams are read all along, or a full pipe would stop it. It is killed when its guard goes.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::cli::{Watched, terminate};
use crate::support::within;

/// A running gateway.
pub(crate) struct Process {
    pub(crate) child: Watched,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    out: JoinHandle<String>,
    err: JoinHandle<String>,
}

/// How it ended, and everything that it wrote.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) log: String,
}

impl Process {
    /// Starts this command, whose streams are piped, and waits until it says where it listens.
    pub(crate) async fn start(mut command: Command) -> Self {
        let mut child = Watched(command.spawn().unwrap());
        let mut stdout = child.0.stdout.take().unwrap();
        let out = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).unwrap();
            text
        });
        let mut stderr = BufReader::new(child.0.stderr.take().unwrap());
        let (told, listening) = mpsc::channel();
        let err = std::thread::spawn(move || {
            let mut all = String::new();
            loop {
                let from = all.len();
                if stderr.read_line(&mut all).unwrap() == 0 {
                    return all;
                }
                let line = &all[from..];
                if line.contains("listening") {
                    let _ = told.send(address(line, "public").zip(address(line, "admin")));
                }
            }
        });
        let waiting = tokio::task::spawn_blocking(move || listening.recv_timeout(Duration::from_secs(30)));
        let (public, admin) = match waiting.await.unwrap() {
            Ok(found) => found.expect("two addresses"),
            Err(_) => {
                drop(child);
                panic!("it does not listen: {}", err.join().unwrap());
            }
        };
        Self { child, public, admin, out, err }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop(self) -> Ended {
        terminate(&self.child).await;
        self.ended().await
    }

    /// Waits for an end that it was brought to.
    pub(crate) async fn ended(self) -> Ended {
        let Self { mut child, out, err, .. } = self;
        let end = move || (wait(&mut child.0), out.join().unwrap(), err.join().unwrap());
        let (status, out, log) = within("the gateway's end", tokio::task::spawn_blocking(end)).await.unwrap();
        Ended { status, out, log }
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    child.wait().unwrap()
}

/// The address under this name, in a line of either format.
fn address(line: &str, name: &str) -> Option<SocketAddr> {
    let after = [format!("\"{name}\":\""), format!("{name}=")].into_iter().find_map(|key| line.split_once(&key))?.1;
    after.split(['"', ' ', '\n']).next()?.parse().ok()
}
