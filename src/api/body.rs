//! Request bodies, read within bounds of size, time and pace: whole, or line by line. It does not look into them.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body::{Body as _, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use super::problem::{self, Problem};

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Bytes.
    pub max_bytes: usize,
    /// For the whole of it.
    pub timeout_ms: u64,
    /// Bytes in a second, counted from two seconds after the start; 0 is any pace.
    pub min_bytes_per_s: u64,
}

/// A slow start is forgiven for so long.
const GRACE: Duration = Duration::from_secs(2);
/// What comes in pieces of fewer bytes may come here later: the listener lets them gather, so long at most.
pub(crate) const DRIBLET: usize = 512;
pub(crate) const HELD_BACK: Duration = Duration::from_secs(1);

/// What a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/json`
    Json,
    /// `application/x-ndjson`: JSON Lines.
    Lines,
}

/// The media type of JSON Lines.
pub(super) const LINES: &str = "application/x-ndjson";

/// Refuses every media type but JSON and JSON Lines, and every content coding.
pub(super) fn media(headers: &HeaderMap) -> Result<Media, Problem> {
    let wrong = || Problem::new(&problem::UNSUPPORTED_MEDIA_TYPE);
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).ok_or_else(wrong)?;
    let essence = value.split(';').next().unwrap_or_default().trim();
    let charset_ok = value.split(';').skip(1).all(|parameter| {
        let (name, text) = parameter.split_once('=').unwrap_or((parameter, ""));
        !name.trim().eq_ignore_ascii_case("charset") || text.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    let plain =
        headers.get_all(CONTENT_ENCODING).iter().all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if !charset_ok || !plain || values.next().is_some() {
        return Err(wrong());
    }
    match essence {
        json if json.eq_ignore_ascii_case("application/json") => Ok(Media::Json),
        lines if lines.eq_ignore_ascii_case(LINES) => Ok(Media::Lines),
        _ => Err(wrong()),
    }
}

/// Whether the caller asks for JSON Lines (RFC 9110, section 12.5.1). Weights are not looked at: whoever names them means it.
pub(super) fn wants_lines(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut ranges = values.flat_map(|value| value.split(','));
    ranges.any(|range| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(LINES))
}

/// Whether a body was announced. HTTP/1 has one if and only if one of these headers is there (RFC 9112, section 6).
pub(super) fn is_announced(headers: &HeaderMap) -> bool {
    let empty = |value: &http::HeaderValue| value.as_bytes() == b"0";
    headers.contains_key(http::header::TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|v| !empty(v))
}

/// Reads a body whole, or says why not.
pub(super) async fn read(headers: &HeaderMap, mut body: Body, limits: BodyLimits) -> Result<Bytes, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let too_large = || Problem::new(&problem::TOO_LARGE).detail(format!("At most {} bytes.", limits.max_bytes));
    if announced.is_some_and(|bytes| bytes > limits.max_bytes as u64) {
        return Err(too_large());
    }
    let start = Instant::now();
    let end = start + Duration::from_millis(limits.timeout_ms);
    let mut alarm = Alarm::default();
    let mut read = BytesMut::new();
    let mut spare = Duration::ZERO;
    loop {
        // The next piece must come before what has come so far is too little.
        let paced = match limits.min_bytes_per_s {
            0 => end,
            rate => start + GRACE + Duration::from_millis((read.len() as u64 + 1).saturating_mul(1_000) / rate),
        };
        let frame = match alarm.frame(&mut body, end.min(paced) + spare).await {
            Some(frame) => frame,
            None => return Err(Problem::new(&problem::REQUEST_TIMEOUT)),
        };
        match frame {
            None => return Ok(read.freeze()),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                spare = spare_behind(data.len());
                if read.len() + data.len() > limits.max_bytes {
                    return Err(too_large());
                }
                // Most come in one piece.
                if read.is_empty() && body.is_end_stream() {
                    return Ok(data);
                }
                // What was announced gets its room as it comes: announcing costs nothing.
                let expected = announced.unwrap_or(0) as usize;
                read.reserve(expected.saturating_sub(read.len()).min(4 * (read.len() + data.len())).max(data.len()));
                read.extend_from_slice(&data);
            }
            // The caller went away or sent something that is no HTTP; nobody reads the answer.
            Some(Err(_)) => return Err(Problem::invalid("", "body_incomplete", "The body ended too early.")),
        }
    }
}

/// How much later than it was sent the next piece may come here. Nobody is refused for what was let gather.
fn spare_behind(bytes: usize) -> Duration {
    if bytes < DRIBLET { HELD_BACK } else { Duration::ZERO }
}

/// Something that is waited for with an end to it, again and again. What is there at once costs no timer, and one that was
/// set is moved only when it is over, or would be too late.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// The next frame, if there is one before `end`.
    async fn frame(&mut self, body: &mut Body, end: Instant) -> Option<Option<Result<Frame<Bytes>, axum::Error>>> {
        poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => self.poll(end, cx).map(|()| None),
        })
        .await
    }

    fn poll(&mut self, end: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if sleep.deadline() > end {
            sleep.as_mut().reset(end);
        }
        ready!(sleep.as_mut().poll(cx));
        if sleep.deadline() == end {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(end);
        sleep.as_mut().poll(cx)
    }
}

/// Blank lines are passed over, but not for ever.
const MAX_BLANK: usize = 10_000;
/// The longest line, in bytes.
const MAX_LINE: usize = 4_096;

/// A body of lines, read as they come. There is no end to how long it may take, but to how slow it may be.
pub(super) struct Lines {
    body: Body,
    limits: BodyLimits,
    alarm: Alarm,
    spare: Duration,
    rest: BytesMut,
    /// How far `rest` holds no end of a line.
    searched: usize,
    ended: bool,
    bytes: u64,
    /// How long was waited for it.
    waited: Duration,
    blank: usize,
    /// The line that was read last, from 1.
    pub(super) number: usize,
}

impl Lines {
    pub(super) fn new(body: Body, limits: BodyLimits) -> Self {
        Self {
            body,
            limits,
            alarm: Alarm::default(),
            spare: Duration::ZERO,
            rest: BytesMut::new(),
            searched: 0,
            ended: false,
            bytes: 0,
            waited: Duration::ZERO,
            blank: 0,
            number: 0,
        }
    }

    /// The next line that is not blank, without its end.
    pub(super) async fn next(&mut self) -> Result<Option<BytesMut>, Problem> {
        loop {
            let found = self.rest[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| at + self.searched);
            let line = match found {
                Some(end) => {
                    let mut line = self.rest.split_to(end + 1);
                    line.truncate(end);
                    line
                }
                None if self.ended && self.rest.is_empty() => return Ok(None),
                None if self.ended => self.rest.split(),
                None if self.rest.len() > MAX_LINE => {
                    self.number += 1;
                    return Err(self.too_long());
                }
                None => {
                    self.searched = self.rest.len();
                    self.read().await?;
                    continue;
                }
            };
            self.searched = 0;
            self.number += 1;
            if line.len() > MAX_LINE {
                return Err(self.too_long());
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
            self.blank += 1;
            if self.blank > MAX_BLANK {
                return Err(Problem::invalid("", "too_many_blank_lines", format!("more than {MAX_BLANK} blank lines")));
            }
        }
    }

    /// Reads on for a while, for nothing: a caller who is still sending would see a broken connection and no answer.
    pub(super) async fn pour_away(&mut self) {
        let longest = Duration::from_millis(self.limits.timeout_ms);
        let pouring = async {
            while !self.ended {
                self.rest.clear();
                if self.read().await.is_err() {
                    return;
                }
            }
        };
        // Whoever is not through by then has the broken connection.
        drop(tokio::time::timeout(longest, pouring).await);
    }

    fn too_long(&self) -> Problem {
        let message = format!("line {} is longer than {MAX_LINE} bytes", self.number);
        Problem::invalid("", "line_too_long", message)
    }

    /// Reads a piece. Only the time that is waited for the caller counts against its pace.
    async fn read(&mut self) -> Result<(), Problem> {
        let longest = Duration::from_millis(self.limits.timeout_ms);
        let patience = match self.limits.min_bytes_per_s {
            0 => longest,
            rate => {
                let earned = Duration::from_millis((self.bytes + 1).saturating_mul(1_000) / rate);
                (GRACE + earned).saturating_sub(self.waited).min(longest)
            }
        };
        let start = Instant::now();
        let frame = self.alarm.frame(&mut self.body, start + patience + self.spare).await;
        self.waited += start.elapsed();
        match frame {
            None => {
                self.ended = true;
                Err(Problem::new(&problem::REQUEST_TIMEOUT))
            }
            Some(None) => {
                self.ended = true;
                Ok(())
            }
            Some(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    self.bytes += data.len() as u64;
                    self.spare = spare_behind(data.len());
                    self.rest.extend_from_slice(&data);
                }
                Ok(())
            }
            Some(Some(Err(_))) => {
                self.ended = true;
                Err(Problem::invalid("", "body_incomplete", "The body ended too early."))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use futures_util::stream::{self, StreamExt};

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { max_bytes: 10, timeout_ms: 10_000, min_bytes_per_s: 1_000 };

    fn body(pieces: Vec<Vec<u8>>) -> Body {
        Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, io::Error>)))
    }

    /// Every line with its number, and the error that the `errors` of a problem name, if there is one.
    async fn all(body: Body) -> (Vec<(usize, Vec<u8>)>, Option<String>) {
        let mut lines = Lines::new(body, LIMITS);
        let mut found = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => found.push((lines.number, line.trim_ascii().to_vec())),
                Ok(None) => return (found, None),
                Err(problem) => return (found, Some(format!("{problem:?}"))),
            }
        }
    }

    fn numbered(lines: &[(usize, &str)]) -> Vec<(usize, Vec<u8>)> {
        lines.iter().map(|(number, line)| (*number, line.as_bytes().to_vec())).collect()
    }

    #[tokio::test]
    async fn a_line_is_the_same_wherever_its_body_is_cut() {
        for (text, expected) in [
            ("", vec![]),
            ("\n", vec![]),
            ("a", vec![(1, "a")]),
            ("a\n", vec![(1, "a")]),
            ("\r\n a\r\n\t\nbc \n\n\"d\\n\"", vec![(2, "a"), (4, "bc"), (6, "\"d\\n\"")]),
            ("\u{feff}1\n\u{e9}\u{1f600}\r\n\r2\n", vec![(1, "\u{feff}1"), (2, "\u{e9}\u{1f600}"), (3, "2")]),
        ] {
            let expected = (numbered(&expected), None);
            for at in 0..=text.len() {
                let (before, after) = text.as_bytes().split_at(at);
                assert_eq!(all(body(vec![before.to_vec(), after.to_vec()])).await, expected, "{text:?} cut at {at}");
            }
            for size in 1..=7 {
                let pieces = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
                assert_eq!(all(body(pieces)).await, expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_named() {
        let longest = "x".repeat(MAX_LINE);
        for end in ["", "\n"] {
            for size in [1_000, MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE] {
                let pieces = |text: &str| text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
                let found = all(body(pieces(&format!("\n{longest}{end}")))).await;
                assert_eq!(found, (numbered(&[(2, &longest)]), None), "{end:?} in pieces of {size}");
                let (found, problem) = all(body(pieces(&format!("1\n\n{longest}x{end}")))).await;
                assert_eq!(found, numbered(&[(1, "1")]));
                let problem = problem.unwrap_or_default();
                assert!(problem.contains("line_too_long") && problem.contains("line 3 "), "{problem}");
            }
        }
        // It is not waited for its end, and not kept.
        let endless = stream::repeat_with(|| Ok::<_, io::Error>(vec![b'x'; 1_000]));
        let (found, problem) = all(Body::from_stream(endless)).await;
        assert!(found.is_empty() && problem.unwrap_or_default().contains("line 1 "));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_has_no_last_line() {
        let broken = stream::iter([Ok(b"1\n2".to_vec()), Err(io::Error::other("gone"))]);
        let (found, problem) = all(Body::from_stream(broken)).await;
        assert_eq!(found, numbered(&[(1, "1")]));
        assert!(problem.unwrap_or_default().contains("body_incomplete"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_long_but_not_slow() {
        let slowly = |bytes: usize, pause_ms: u64| {
            stream::unfold((), move |()| async move {
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                Some((Ok::<_, io::Error>([vec![b' '; bytes - 2], b"1\n".to_vec()].concat()), ()))
            })
        };
        // A thousand seconds at the pace that is asked for are no problem.
        let (found, problem) = all(Body::from_stream(slowly(1_000, 1_000).take(1_000))).await;
        assert_eq!((found.len(), problem), (1_000, None));
        let start = Instant::now();
        let (found, problem) = all(Body::from_stream(slowly(900, 1_000).take(1_000))).await;
        assert!(found.len() < 30 && problem.unwrap_or_default().contains("request_timeout"));
        assert!(start.elapsed() < Duration::from_secs(30));
        // Whoever was quick before may not sleep for as long as it likes.
        let sleeper = stream::iter([Ok::<_, io::Error>(b"1\n".repeat(100_000))]).chain(stream::pending());
        let start = Instant::now();
        let (found, problem) = all(Body::from_stream(sleeper)).await;
        assert!(found.len() == 100_000 && problem.unwrap_or_default().contains("request_timeout"));
        assert_eq!(start.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_driblets_is_not_refused_for_what_was_let_gather() {
        for (first, expected_ms) in
            [(1, 3_002), (DRIBLET - 1, 3_512), (DRIBLET, 2_513), (5_000, 7_001), (9_000, 10_000)]
        {
            let limits = BodyLimits { max_bytes: 10_000, ..LIMITS };
            let sleeper = stream::iter([Ok::<_, io::Error>(vec![b' '; first])]).chain(stream::pending());
            let start = Instant::now();
            let read = read(&HeaderMap::new(), Body::from_stream(sleeper), limits).await;
            assert_eq!(read.unwrap_err().code(), "request_timeout");
            // A timer's clock has whole milliseconds.
            let took = start.elapsed().as_millis();
            assert!((expected_ms..=expected_ms + 2).contains(&took), "{first} bytes: {took} ms");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_whole_however_it_is_cut() {
        let text: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let limits = BodyLimits { max_bytes: text.len(), ..LIMITS };
        for size in [100, 8_192, 99_999, 100_000] {
            for announced in [None, Some("100000"), Some("7")] {
                let announced = announced.map(|length| (CONTENT_LENGTH, http::HeaderValue::from_static(length)));
                let headers = HeaderMap::from_iter(announced);
                let pieces = text.chunks(size).map(<[u8]>::to_vec).collect();
                assert_eq!(read(&headers, body(pieces), limits).await.unwrap(), text, "in pieces of {size}");
            }
        }
        let one_more = body(vec![text, vec![0]]);
        assert_eq!(read(&HeaderMap::new(), one_more, limits).await.unwrap_err().code(), "too_large");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_poured_away_has_an_end() {
        let mut lines = Lines::new(body(vec![b"1\n".repeat(1_000); 50]), LIMITS);
        assert!(lines.next().await.is_ok());
        lines.pour_away().await;
        assert!(lines.ended && lines.bytes == 100_000);
        let drip = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((Ok::<_, io::Error>(vec![b'x'; 1_000]), ()))
        });
        let start = Instant::now();
        Lines::new(Body::from_stream(drip), LIMITS).pour_away().await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}
