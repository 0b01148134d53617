//! The upstream of the comparison: `mock PORT:MS…` answers deletes of kore_ai (a list of ids) and wethod (one id in the path)
//! on each port so many milliseconds after they came. An id that ends in `dead` is not there.
//!
//! It is made to cost little, not to be like a vendor: the project's own mock is that. It looks at no credential.

#![allow(clippy::unwrap_used, reason = "a tool of the benchmarks, not a part of the product")]

use std::collections::VecDeque;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use memchr::{memchr, memmem};
use peers::{Inbox, Message, Sockets, write_on};

/// A connection with what it received, what it still has to send, and since when an answer is due.
struct Peer {
    stream: TcpStream,
    inbox: Inbox,
    out: Vec<u8>,
    at: usize,
    delay: Duration,
    waits: bool,
}

/// Listeners have the numbers from here on.
const LISTENERS: usize = 1 << 32;

fn main() {
    let mut sockets = Sockets::new().unwrap();
    let mut listeners = Vec::new();
    for argument in std::env::args().skip(1) {
        let (port, ms) = argument.split_once(':').unwrap_or((&argument, "0"));
        let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
        listener.set_nonblocking(true).unwrap();
        sockets.add(&listener, LISTENERS + listeners.len()).unwrap();
        listeners.push((listener, Duration::from_secs_f64(ms.parse::<f64>().unwrap() / 1_000.0)));
    }
    // Numbers are never given again, so that an answer which is due cannot meet another connection.
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut due: VecDeque<(Instant, usize)> = VecDeque::new();
    loop {
        let until = due.front().map(|(at, _)| at.saturating_duration_since(Instant::now()));
        for (number, readable, writable) in sockets.wait(until).unwrap() {
            if let Some(listener) = number.checked_sub(LISTENERS) {
                let (listener, delay) = &listeners[listener];
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    stream.set_nodelay(true).unwrap();
                    sockets.add(&stream, peers.len()).unwrap();
                    let (inbox, out) = (Inbox::default(), Vec::new());
                    peers.push(Some(Peer { stream, inbox, out, at: 0, delay: *delay, waits: false }));
                }
                continue;
            }
            let Some(peer) = peers[number].as_mut() else { continue };
            let mut alive = !writable || send(peer, number, &sockets);
            if alive && readable {
                alive = peer.inbox.fill(&mut peer.stream);
                while peer.inbox.next(|request| answer(&request, &mut peer.out)).is_some() {
                    if !peer.delay.is_zero() {
                        peer.waits = true;
                        due.push_back((Instant::now() + peer.delay, number));
                    }
                }
                alive = alive && (peer.waits || send(peer, number, &sockets));
            }
            if !alive {
                peers[number] = None;
            }
        }
        while due.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            let Some((_, number)) = due.pop_front() else { break };
            if let Some(peer) = peers[number].as_mut() {
                peer.waits = false;
                if !send(peer, number, &sockets) {
                    peers[number] = None;
                }
            }
        }
    }
}

/// Sends what there is; the rest when there is room. False: the other side is gone.
fn send(peer: &mut Peer, number: usize, sockets: &Sockets) -> bool {
    if peer.out.is_empty() {
        return true;
    }
    let began = peer.at > 0;
    match write_on(&mut peer.stream, &peer.out, &mut peer.at) {
        Ok(true) => {
            peer.out.clear();
            peer.at = 0;
            !began || sockets.also_writable(&peer.stream, number, false).is_ok()
        }
        Ok(false) => {
            peer.at = peer.at.max(1);
            sockets.also_writable(&peer.stream, number, true).is_ok()
        }
        Err(_) => false,
    }
}

fn answer(request: &Message<'_>, out: &mut Vec<u8>) {
    let line = &request.head[..memchr(b'\r', request.head).unwrap_or(0)];
    if memmem::find(line, b"/bulk-delete ").is_some() {
        let body = bulk(request.body);
        write!(out, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len())
            .unwrap();
        out.extend_from_slice(&body);
    } else if memmem::find(line, b"/api/contact/").is_some() {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    } else {
        out.extend_from_slice(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    }
}

/// `{"ids":["…"]}` to lists of what was deleted and what was not.
fn bulk(body: &[u8]) -> Vec<u8> {
    let (mut deleted, mut failed) = (Vec::with_capacity(body.len() * 3 / 2), Vec::new());
    let (mut count, mut lost) = (0, 0);
    // The first text is the member's name.
    let mut texts = body.split(|byte| *byte == b'"').skip(3).step_by(2);
    while let Some(id) = texts.next().filter(|id| !id.is_empty()) {
        let missing = id.ends_with(b"dead");
        let list = if missing { &mut failed } else { &mut deleted };
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(b"{\"id\":\"");
        list.extend_from_slice(id);
        list.extend_from_slice(if missing { b"\",\"reason\":\"Contact not found\"}" as &[u8] } else { b"\"}" });
        count += 1;
        lost += usize::from(missing);
    }
    let mut out = Vec::with_capacity(deleted.len() + failed.len() + 128);
    write!(out, "{{\"totalRequested\":{count},\"successful\":{},\"failed\":{lost},", count - lost).unwrap();
    out.extend_from_slice(b"\"successfulRecords\":[");
    out.extend_from_slice(&deleted);
    out.extend_from_slice(b"],\"failedRecords\":[");
    out.extend_from_slice(&failed);
    out.extend_from_slice(b"]}");
    out
}
