//! Request bodies, read within bounds of size, time and pace. It does not look into them.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

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

/// Refuses every media type but JSON, and every content coding.
pub(super) fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
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
    let ok = essence.eq_ignore_ascii_case("application/json") && charset_ok && plain && values.next().is_none();
    if ok { Ok(()) } else { Err(wrong()) }
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
    let mut read = BytesMut::with_capacity(announced.unwrap_or(0).min(1 << 20) as usize);
    loop {
        // The next piece must come before what has come so far is too little.
        let paced = match limits.min_bytes_per_s {
            0 => end,
            rate => start + GRACE + Duration::from_millis((read.len() as u64 + 1).saturating_mul(1_000) / rate),
        };
        let frame = match timeout_at(end.min(paced), body.frame()).await {
            Ok(frame) => frame,
            Err(_) => return Err(Problem::new(&problem::REQUEST_TIMEOUT)),
        };
        match frame {
            None => return Ok(read.freeze()),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if read.len() + data.len() > limits.max_bytes {
                    return Err(too_large());
                }
                read.extend_from_slice(&data);
            }
            // The caller went away or sent something that is no HTTP; nobody reads the answer.
            Some(Err(_)) => return Err(Problem::invalid("", "body_incomplete", "The body ended too early.")),
        }
    }
}
