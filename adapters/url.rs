//! Base URLs of connections and the paths that are appended to them.
//!
//! Nothing is ever encoded, decoded or normalised here: text that would need it is refused. So the URL that
//! leaves is byte for byte origin + prefix + template + identifier, and no identifier can climb out of its
//! segment (RFC 3986, sections 3.3 and 5.2.4).

use std::net::{Ipv4Addr, Ipv6Addr};

use http::Uri;

use crate::dialect::SettingsError;

/// A connection's `base_url`: `http` or `https`, a host, perhaps a port and a path prefix, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    text: String,
}

impl BaseUrl {
    /// Reads a `base_url`. A trailing slash is dropped; user info, queries, fragments, escapes, upper-case hosts
    /// and numbers that only look like a host are refused.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let wrong = |why: &str| SettingsError::new("base_url", why);
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .ok_or_else(|| wrong("must start with https:// (or http://)"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = split_port(authority);
        if !is_host(host) {
            return Err(wrong("must have a plain host name in lower case, or an IP address, and no user name"));
        }
        if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with(['0', '+'])) {
            return Err(wrong("has a port that is not a number from 1 to 65535"));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        if !path.is_empty() && !path[1..].split('/').all(is_segment) {
            return Err(wrong("may have a path of letters, digits and - . _ ~ only, and no query or fragment"));
        }
        // The form that URL parsers print: a default port would be dropped by them, and the byte-exact check fail.
        let default_port = if text.starts_with("https:") { Some("443") } else { Some("80") };
        if port.is_some() && port == default_port {
            return Err(wrong("must not name its scheme's default port"));
        }
        let scheme_and_host = &text[..text.len() - rest.len() + authority.len()];
        Ok(Self { text: format!("{scheme_and_host}{path}") })
    }

    /// The base, then `/` and each of the segments. `None` if a segment is not plain: see [`is_segment`].
    pub fn join(&self, segments: &[&str]) -> Option<Uri> {
        if !segments.iter().all(|segment| is_segment(segment)) {
            return None;
        }
        let size = segments.iter().map(|s| s.len() + 1).sum::<usize>();
        let mut text = String::with_capacity(self.text.len() + size);
        text.push_str(&self.text);
        for segment in segments {
            text.push('/');
            text.push_str(segment);
        }
        Uri::try_from(text).ok()
    }

    /// Like [`join`](Self::join), for segments that come from settings: a bad one is named by its key.
    pub fn route(&self, segments: &[&str], key: &str) -> Result<Uri, SettingsError> {
        self.join(segments)
            .ok_or_else(|| SettingsError::new(key, "may have letters, digits and - . _ ~ only, and must not be empty"))
    }

    /// The base URL as text, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Whether a path segment is made of RFC 3986 unreserved characters alone and is no dot segment.
pub fn is_segment(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(plain)
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') => (&authority[..colon], Some(&authority[colon + 1..])),
        _ => (authority, None),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().is_ok_and(|ip| ip.to_string() == inner);
    }
    let label = |label: &str| {
        let plain = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        // What such a label stands for, and whether for anything, is a URL parser's affair.
        !label.is_empty() && plain && !label.starts_with("xn--")
    };
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    // URL parsers read `2130706433` and `0x7f.1` as 127.0.0.1: a number must be a whole dotted address.
    host.len() <= 253 && host.split('.').all(label) && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_keeps_its_bytes() {
        for (text, kept) in [
            ("https://api.wethod.com", "https://api.wethod.com"),
            ("https://api.wethod.com/", "https://api.wethod.com"),
            ("http://192.0.2.10/api/v0", "http://192.0.2.10/api/v0"),
            ("http://127.0.0.1:8081/x/", "http://127.0.0.1:8081/x"),
            ("http://[::1]:9", "http://[::1]:9"),
            ("https://[2001:db8::1]/p", "https://[2001:db8::1]/p"),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().as_str(), kept);
        }
    }

    #[test]
    fn what_a_parser_would_rewrite_is_refused() {
        for text in [
            "https://xn--1129.example",
            "https://a.xn--1129.example",
            "",
            "api.wethod.com",
            "ftp://x.example",
            "https://",
            "https://user@x.example",
            "https://X.example",
            "https://x.example?q",
            "https://x.example#f",
            "https://x.example/a?b",
            "https://x.example/../y",
            "https://x.example/./y",
            "https://x.example//y",
            "https://x.example/%2e%2e",
            "https://x.example/a b",
            "http://2130706433",
            "http://0x7f.1",
            "http://127.1",
            "http://①②⑦.0.0.1",
            "https://x.example:443",
            "http://x.example:80",
            "http://x.example:0",
            "http://x.example:99999",
            "http://[::ffff:7f00:1]:80",
            "https://x..example",
            "https://x.example:+81",
            "HTTPS://x.example",
            "http://[0:0:0:0:0:0:0:1]",
        ] {
            assert!(BaseUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_segment_leaves_its_place() {
        let base = BaseUrl::parse("https://x.example/p").unwrap();
        assert_eq!(base.join(&["a", "42"]).unwrap(), "https://x.example/p/a/42");
        for bad in ["", ".", "..", "a/b", "%2e%2e", "..\t", "a?b", "a#b", "a b", "é", "a;b", "a\\b", "a\0"] {
            assert_eq!(base.join(&["a", bad]), None, "{bad:?}");
        }
    }
}
