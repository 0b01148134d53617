//! What HTTP/2 lets through and HTTP/1's gate refuses: the same rules, on requests that hyper has read.
//!
//! What is malformed in HTTP/2 itself is hyper's affair, and gets no answer: upper-case names, connection headers, bodies
//! that are not as long as they say. A fragment behind the path is cut off before anybody here sees it.

use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::{Method, Request};

use super::head::{self, Flaw, HeadLimits, LONGEST_METHOD, is_authority, is_path};

/// What is wrong with a request's head.
pub(super) fn flaw<B>(request: &Request<B>, limits: HeadLimits) -> Option<Flaw> {
    let (uri, headers) = (request.uri(), request.headers());
    if request.method().as_str().len() > LONGEST_METHOD {
        return Some(head::REQUEST_LINE);
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.max_uri_bytes {
        return Some(head::URI_TOO_LONG);
    }
    if request.method() == Method::CONNECT || !target.starts_with('/') || !is_path(target.as_bytes()) {
        return Some(head::TARGET);
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + AROUND).sum();
    if headers.len() > limits.max_headers || bytes > limits.max_header_bytes {
        return Some(head::HEADERS_TOO_LARGE);
    }
    if headers.values().any(|value| matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t'])) {
        return Some(head::HEADER);
    }
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = headers.get_all(HOST).iter();
    let (host, another) = (hosts.next().map(|host| host.as_bytes()), hosts.next());
    match (authority, host) {
        _ if another.is_some() => return Some(head::HOST),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => return Some(head::TARGET),
        (Some(name), _) | (None, Some(name)) if is_authority(name) => {}
        _ => return Some(head::HOST),
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next().map_or(&b"0"[..], |length| length.as_bytes());
    if length.is_empty() || !length.iter().all(u8::is_ascii_digit) || lengths.next().is_some() {
        return Some(head::FRAMING);
    }
    let expected = headers.get_all(EXPECT).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    (!expected).then_some(head::EXPECTATION)
}

/// What a line of HTTP/1 has around its name and its value.
const AROUND: usize = ": \r\n".len();

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_uri_bytes: 100, max_header_bytes: 500, max_headers: 8 };

    fn of(method: &str, uri: &str, headers: &[(&str, &str)]) -> Option<Flaw> {
        let request = Request::builder().method(method).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        flaw(&request.body(()).unwrap(), LIMITS)
    }

    #[test]
    fn what_http1_refuses_is_refused_here() {
        for (method, uri, headers, found) in [
            ("CONNECT", "a:1", &[][..], head::TARGET),
            ("OPTIONS", "*", &[("host", "a")], head::TARGET),
            ("GET", "http://u@a/", &[], head::HOST),
            ("GET", "http://a/", &[("host", "b")], head::TARGET),
            ("GET", "http://a/", &[("host", "a"), ("host", "a")], head::HOST),
            ("GET", "/", &[], head::HOST),
            ("GET", "/", &[("host", "")], head::HOST),
            ("GET", "/", &[("host", "u@a")], head::HOST),
            ("GET", "http://a/%0", &[], head::TARGET),
            ("GET", "http://a/\"", &[], head::TARGET),
            ("GET", "http://a/", &[("content-length", "+1")], head::FRAMING),
            ("GET", "http://a/", &[("content-length", "")], head::FRAMING),
            ("GET", "http://a/", &[("content-length", "1"), ("content-length", "1")], head::FRAMING),
            ("GET", "http://a/", &[("expect", "a miracle")], head::EXPECTATION),
            ("GET", "http://a/", &[("a", " b")], head::HEADER),
            ("GET", "http://a/", &[("a", "b\t")], head::HEADER),
            ("GET", "http://a/", &[("a", "b"); 9], head::HEADERS_TOO_LARGE),
        ] {
            assert_eq!(of(method, uri, headers), Some(found), "{method} {uri} {headers:?}");
        }
        let long = "b".repeat(500);
        assert_eq!(of("GET", "http://a/", &[("a", &long)]), Some(head::HEADERS_TOO_LARGE));
        assert_eq!(of("GET", &format!("http://a/{long}"), &[]), Some(head::URI_TOO_LONG));
        assert_eq!(of(&"M".repeat(33), "http://a/", &[]), Some(head::REQUEST_LINE));
    }

    #[test]
    fn what_is_sound_goes_through() {
        for (method, uri, headers) in [
            ("GET", "https://a/", &[][..]),
            ("POST", "https://a:8443/b?c=d%20e", &[("host", "A:8443"), ("content-length", "7")]),
            ("DELETE", "/b", &[("host", "[::1]:80"), ("expect", "100-Continue"), ("empty", "")]),
        ] {
            assert_eq!(of(method, uri, headers), None, "{method} {uri} {headers:?}");
        }
    }
}
