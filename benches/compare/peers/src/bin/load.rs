//! The load of the comparison: one request again and again over kept connections, in a closed loop or at a fixed rate.
//!
//! At a fixed rate a request's time counts from the moment it was due, so a gateway that stalls is not spared the requests
//! that would have come meanwhile. It prints one line of JSON; times are in microseconds. It does not read what is
//! answered beyond the status, but for `--show`, which asks once and prints the body.
//!
//! `load --to ADDRESS [--line 'POST /path'] [--header 'name: value']… [--body FILE] [--connections N] [--seconds S]
//! [--count N] [--rate N] [--show] [--hold]`; with `--hold` it opens the connections, uses each once, and keeps them until
//! its standard input ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a tool of the benchmarks, not a part of the product")]

use std::collections::VecDeque;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use peers::{Inbox, Sockets, write_on};

struct Options {
    to: SocketAddr,
    connections: usize,
    seconds: f64,
    count: usize,
    rate: f64,
    show: bool,
    hold: bool,
}

struct Caller {
    stream: TcpStream,
    inbox: Inbox,
    at: usize,
    due: Instant,
    asks: bool,
}

fn main() {
    let (options, request) = read_arguments();
    let mut sockets = Sockets::new().unwrap();
    let mut callers: Vec<_> = (0..options.connections).map(|number| connect(&options, number, &sockets)).collect();
    let mut free: Vec<_> = (0..callers.len()).rev().collect();
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(options.seconds);
    let step = Duration::from_secs_f64(if options.rate > 0.0 { options.rate.recip() } else { 0.0 });
    let (mut sent, mut wrong, mut broken) = (0, 0, 0);
    let (mut next, mut waiting) = (start, VecDeque::new());
    let mut times: Vec<u64> = Vec::with_capacity(1 << 20);
    loop {
        let now = Instant::now();
        let over = now >= end || sent >= options.count;
        if over && (free.len() == callers.len() || now >= end + Duration::from_secs(30)) {
            break;
        }
        while options.rate > 0.0 && !over && next <= now {
            waiting.push_back(next);
            next += step;
        }
        while !over && sent < options.count && (options.rate == 0.0 || !waiting.is_empty()) {
            let Some(number) = free.pop() else { break };
            let caller = &mut callers[number];
            (caller.due, caller.at, caller.asks) = (waiting.pop_front().unwrap_or_else(Instant::now), 0, true);
            sent += 1;
            if !write_on(&mut caller.stream, &request, &mut caller.at).unwrap_or(true) {
                sockets.also_writable(&caller.stream, number, true).unwrap();
            }
        }
        let until = if options.rate > 0.0 && !over {
            next.saturating_duration_since(Instant::now())
        } else {
            Duration::from_millis(50)
        };
        for (number, readable, writable) in sockets.wait(Some(until)).unwrap() {
            let caller = &mut callers[number];
            if writable && write_on(&mut caller.stream, &request, &mut caller.at).unwrap_or(true) {
                sockets.also_writable(&caller.stream, number, false).unwrap();
            }
            if !readable {
                continue;
            }
            let open = caller.inbox.fill(&mut caller.stream);
            let show = options.show;
            let good = caller.inbox.next(|answer| {
                if show {
                    println!("{}", String::from_utf8_lossy(answer.body));
                }
                answer.head.get(9) == Some(&b'2')
            });
            if let Some(good) = good {
                times.push(caller.due.elapsed().as_micros() as u64);
                wrong += usize::from(!good);
                caller.asks = false;
                free.push(number);
            }
            if !open {
                if caller.asks {
                    broken += 1;
                    free.push(number);
                }
                *caller = connect(&options, number, &sockets);
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    if options.show {
        return;
    }
    times.sort_unstable();
    let at = |part: f64| times.get(((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1))).copied();
    let parts = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)];
    let parts = parts.map(|(name, part)| format!("\"{name}\":{}", at(part).unwrap_or(0))).join(",");
    let answered = times.len();
    println!(
        "{{\"sent\":{sent},\"answered\":{answered},\"wrong\":{wrong},\"broken\":{broken},\
         \"seconds\":{seconds:.4},{parts}}}"
    );
    if options.hold {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
}

fn connect(options: &Options, number: usize, sockets: &Sockets) -> Caller {
    let stream = TcpStream::connect(options.to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_nonblocking(true).unwrap();
    sockets.add(&stream, number).unwrap();
    Caller { stream, inbox: Inbox::default(), at: 0, due: Instant::now(), asks: false }
}

fn read_arguments() -> (Options, Vec<u8>) {
    let to = SocketAddr::from(([127, 0, 0, 1], 8080));
    let mut options =
        Options { to, connections: 1, seconds: 86_400.0, count: usize::MAX, rate: 0.0, show: false, hold: false };
    let (mut line, mut headers, mut body) = ("GET /".to_owned(), String::new(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--to" => options.to = value().parse().unwrap(),
            "--line" => line = value(),
            "--header" => headers.extend([&value(), "\r\n"]),
            "--body" => body = std::fs::read(value()).unwrap(),
            "--connections" => options.connections = value().parse().unwrap(),
            "--seconds" => options.seconds = value().parse().unwrap(),
            "--count" => options.count = value().parse().unwrap(),
            "--rate" => options.rate = value().parse().unwrap(),
            "--show" => (options.show, options.count) = (true, 1),
            "--hold" => options.hold = true,
            other => panic!("{other} is not known"),
        }
    }
    let to = options.to;
    if !body.is_empty() {
        headers.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
    }
    let mut request =
        format!("{line} HTTP/1.1\r\nhost: {to}\r\naccept: application/json\r\n{headers}\r\n").into_bytes();
    request.extend_from_slice(&body);
    (options, request)
}
