//! Tells the service manager how far the gateway is: systemd's `sd_notify`, over the socket that `$NOTIFY_SOCKET` names.
//!
//! Without that variable nobody is told anything. What cannot be told is no error: the gateway does not depend on it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// What the service manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The gateway listens; said again once a reload is over.
    Ready,
    /// The configuration is being read again.
    Reloading,
    /// The gateway has been told to stop and does so.
    Stopping,
    /// It is still alive.
    Alive,
}

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub(super) struct Notify {
    way: Option<(UnixDatagram, SocketAddr)>,
    every: Option<Duration>,
}

impl Notify {
    /// As the process's environment has it.
    pub(super) fn from_environment() -> Self {
        let way = std::env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = address(&name)?;
            let socket = UnixDatagram::unbound().ok()?;
            // A service manager that does not read must not hold the gateway up.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let text = |name| std::env::var(name).ok();
        let mine = text("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let limit = text("WATCHDOG_USEC").filter(|_| mine).and_then(|limit| limit.parse().ok());
        Self { way, every: limit.filter(|limit| *limit >= 2).map(|limit: u64| Duration::from_micros(limit / 2)) }
    }

    /// Says it, once.
    pub(super) fn tell(&self, state: State) {
        if let Some((socket, address)) = &self.way {
            let _ = socket.send_to_addr(words(state).as_bytes(), address);
        }
    }

    /// Waits for the end of something; tells that the process is alive, as often as the service manager wants it.
    pub(super) async fn watch(&self, end: impl Future<Output = ()>) {
        let Some(every) = self.every.filter(|_| self.way.is_some()) else { return end.await };
        let mut end = std::pin::pin!(end);
        while tokio::time::timeout(every, end.as_mut()).await.is_err() {
            self.tell(State::Alive);
        }
    }
}

fn words(state: State) -> &'static str {
    match state {
        State::Ready => "READY=1\nSTATUS=listening",
        State::Reloading => "RELOADING=1\nSTATUS=reading the configuration again",
        State::Stopping => "STOPPING=1\nSTATUS=ending what runs",
        State::Alive => "WATCHDOG=1",
    }
}

/// A path, or a name in the abstract namespace, which begins with `@`.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        #[cfg(target_os = "linux")]
        [b'@', rest @ ..] => <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(rest).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        let is = |text: &str| address(OsStr::new(text)).is_some();
        assert!(is("/run/systemd/notify") && !is("notify") && !is(""));
        assert_eq!(is("@name"), cfg!(target_os = "linux"));
        // A VM's socket is another kind.
        assert!(!is("vsock:2:1234"));
    }

    #[test]
    fn every_state_says_a_word_that_systemd_knows() {
        for (state, word) in [
            (State::Ready, "READY=1"),
            (State::Reloading, "RELOADING=1"),
            (State::Stopping, "STOPPING=1"),
            (State::Alive, "WATCHDOG=1"),
        ] {
            assert_eq!(words(state).lines().next(), Some(word));
        }
    }
}
