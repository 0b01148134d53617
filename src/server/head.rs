//! The head of a request, read strictly: what RFC 9112 lets a recipient repair is refused here, because whoever stands
//! in between may have repaired it in another way.
//!
//! It keeps no header and knows no route. What is well-formed and still asks for nothing useful is the router's.

use bytes::BytesMut;
use http::Method;
use memchr::memchr;

/// What is wrong with a request. Nothing of it is repeated in either text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flaw {
    /// For programs.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: &'static str,
}

const fn flaw(code: &'static str, message: &'static str) -> Flaw {
    Flaw { code, message }
}

/// The header lines are too many or too long.
pub(super) const HEADERS_TOO_LARGE: Flaw =
    flaw("headers_too_large", "there are too many header lines, or too long ones");
const LINE_END: Flaw = flaw("line_end", "every line must end in CR LF, which stand nowhere else");
pub(super) const REQUEST_LINE: Flaw = flaw("request_line", "the first line must be a method, a path and HTTP/1.1");
pub(super) const TARGET: Flaw =
    flaw("request_target", "the request target must be a path, with what is special in it encoded");
pub(super) const URI_TOO_LONG: Flaw = flaw("uri_too_long", "the request target is too long");
const VERSION: Flaw = flaw("http_version", "the version must be HTTP/1.1 or HTTP/1.0");
pub(super) const HEADER: Flaw =
    flaw("header", "every header line must be a name, a colon and a value without control characters");
pub(super) const HOST: Flaw = flaw("host", "there must be exactly one Host header, with a host in it");
pub(super) const FRAMING: Flaw = flaw("framing", "the length of the body must be said once, and in one way");
pub(super) const EXPECTATION: Flaw = flaw("expectation", "the only expectation that can be met is 100-continue");

/// What a head may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    /// Bytes of the request target.
    pub(super) max_uri_bytes: usize,
    /// Bytes of all header lines together.
    pub(super) max_header_bytes: usize,
    /// Header lines.
    pub(super) max_headers: usize,
}

/// No method is longer.
pub(super) const LONGEST_METHOD: usize = 32;
/// Two spaces, the version, and the end of the line.
const AROUND_TARGET: usize = 12;

/// How a request's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length, which may be 0.
    Length(u64),
    /// In chunks.
    Chunks,
}

/// A head that is being read.
#[derive(Debug)]
pub(super) struct Head {
    limits: HeadLimits,
    /// How far was looked.
    at: usize,
    /// Where the line begins in which that is.
    line: usize,
    /// Where the header lines begin.
    headers: usize,
    count: usize,
    started: bool,
    method: Option<Method>,
    old: bool,
    authority: Option<Vec<u8>>,
    has_host: bool,
    /// Only where it is compared with the authority.
    host: Option<Vec<u8>>,
    length: Option<u64>,
    chunked: bool,
}

impl Head {
    pub(super) fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            at: 0,
            line: 0,
            headers: 0,
            count: 0,
            started: false,
            method: None,
            old: false,
            authority: None,
            has_host: false,
            host: None,
            length: None,
            chunked: false,
        }
    }

    /// Looks at what came. Gives the length of the whole head, and how its body is framed, once it is all there.
    pub(super) fn read(&mut self, bytes: &mut BytesMut) -> Result<Option<(usize, Framing)>, Flaw> {
        // One empty line before a request is forgiven (RFC 9112, section 2.2), for clients that end a body with one.
        if !self.started {
            if bytes.len() < 2 {
                return Ok(None);
            }
            self.started = true;
            if bytes.starts_with(b"\r\n") {
                drop(bytes.split_to(2));
            }
        }
        loop {
            let most = self.most();
            let end = memchr(b'\n', &bytes[self.at..]).map(|n| self.at + n);
            let seen = end.map_or(bytes.len(), |end| end + 1);
            // How much is read until it shows that a line does not end as it should.
            let from = self.at.saturating_sub(1).max(self.line);
            let cr = memchr(b'\r', &bytes[from..end.unwrap_or(bytes.len())]).map(|n| from + n);
            let wrong = match (cr, end) {
                (Some(cr), Some(end)) => (cr + 1 < end).then_some(cr + 2),
                (Some(cr), None) => (cr + 1 < bytes.len()).then_some(cr + 2),
                (None, end) => end.map(|end| end + 1),
            };
            if wrong.is_some_and(|wrong| wrong <= most + 1) {
                return Err(LINE_END);
            }
            // With its last byte, a line is read before it is too long.
            if seen > most + usize::from(end.is_some()) {
                return Err(self.too_large());
            }
            self.at = seen;
            let Some(end) = end else { return Ok(None) };
            let line = &bytes[self.line..end - 1];
            self.line = seen;
            if self.headers == 0 {
                self.request_line(line)?;
                self.headers = seen;
            } else if line.is_empty() {
                return self.end().map(|framing| Some((seen, framing)));
            } else {
                self.header(line)?;
            }
            if self.count > self.limits.max_headers || seen > self.most() {
                return Err(self.too_large());
            }
        }
    }

    /// The method, if it is one that the answer may depend on: an answer to HEAD has no body.
    pub(super) fn method(&self) -> Method {
        let known = [Method::HEAD, Method::POST, Method::DELETE, Method::PUT, Method::PATCH, Method::OPTIONS];
        self.method.clone().filter(|method| known.contains(method)).unwrap_or(Method::GET)
    }

    /// How many bytes there may be, as far as it has come.
    fn most(&self) -> usize {
        match self.headers {
            0 => LONGEST_METHOD + self.limits.max_uri_bytes + AROUND_TARGET,
            headers => headers + self.limits.max_header_bytes,
        }
    }

    fn too_large(&self) -> Flaw {
        if self.headers == 0 { URI_TOO_LONG } else { HEADERS_TOO_LARGE }
    }

    /// RFC 9112, section 3.
    fn request_line(&mut self, line: &[u8]) -> Result<(), Flaw> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(REQUEST_LINE);
        };
        if !(1..=LONGEST_METHOD).contains(&method.len()) || !all(method, TOKEN) {
            return Err(REQUEST_LINE);
        }
        self.method = Method::from_bytes(method).ok();
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.old = true,
            _ => return Err(VERSION),
        }
        if target.len() > self.limits.max_uri_bytes {
            return Err(URI_TOO_LONG);
        }
        self.target(target)
    }

    /// A path; or a whole URL, whose host must be the one in `Host` (RFC 9112, section 3.2.2).
    fn target(&mut self, target: &[u8]) -> Result<(), Flaw> {
        if self.method == Some(Method::CONNECT) {
            return Err(TARGET);
        }
        let scheme = |scheme: &[u8]| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            start.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let path = match scheme(b"http://").or_else(|| scheme(b"https://")) {
            Some(rest) => {
                let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
                let (authority, path) = rest.split_at(end);
                if !is_authority(authority) {
                    return Err(TARGET);
                }
                self.authority = Some(authority.to_ascii_lowercase());
                path
            }
            None => target,
        };
        let is_empty = path.is_empty() && self.authority.is_some();
        let sound = is_empty || (path.first() == Some(&b'/') && is_path(path));
        if sound { Ok(()) } else { Err(TARGET) }
    }

    /// RFC 9112, section 5. A line that begins with a blank continues the one before (section 5.2), and has no name here.
    fn header(&mut self, line: &[u8]) -> Result<(), Flaw> {
        self.count += 1;
        let colon = memchr(b':', line).ok_or(HEADER)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !all(name, TOKEN) || !all(value, TEXT) {
            return Err(HEADER);
        }
        let value = trim(value);
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("host") {
            if self.has_host || !is_authority(value) {
                return Err(HOST);
            }
            self.has_host = true;
            self.host = self.authority.is_some().then(|| value.to_ascii_lowercase());
        } else if is("content-length") {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
            // The two greatest numbers have meanings of their own further in.
            let number = number.filter(|number| digits && i64::try_from(*number).is_ok()).ok_or(FRAMING)?;
            if self.length.replace(number).is_some() {
                return Err(FRAMING);
            }
        } else if is("transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(FRAMING);
            }
            self.chunked = true;
        } else if is("expect") && !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(EXPECTATION);
        }
        Ok(())
    }

    /// What can only be said of the whole.
    fn end(&self) -> Result<Framing, Flaw> {
        match (self.has_host, &self.authority) {
            (false, None) if self.old => {}
            (false, _) => return Err(HOST),
            (true, Some(_)) if self.host != self.authority => return Err(TARGET),
            (true, _) => {}
        }
        // RFC 9112, section 6.1: HTTP/1.0 knows no chunks.
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(FRAMING),
            (true, None) if self.old => Err(FRAMING),
            (true, None) => Ok(Framing::Chunks),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// What a byte may stand in, as bits.
const TOKEN: u8 = 1;
const TEXT: u8 = 2;
const PATH: u8 = 4;
const QUERY: u8 = 8;
const HOST_NAME: u8 = 16;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = (byte as u8).is_ascii_alphanumeric();
        // RFC 9110, section 5.6.2.
        if letter || within(byte as u8, b"!#$%&'*+-.^_`|~") {
            classes[byte] |= TOKEN;
        }
        // RFC 9110, section 5.5.
        if byte == 9 || (byte >= 32 && byte != 127) {
            classes[byte] |= TEXT;
        }
        // RFC 3986, section 3.3; a percent sign must have its digits.
        if letter || within(byte as u8, b"-._~!$&'()*+,;=:@/") {
            classes[byte] |= PATH | QUERY;
        }
        // Browsers do not encode these in a query.
        if within(byte as u8, b"?[]{}|\\^`") {
            classes[byte] |= QUERY;
        }
        if letter || within(byte as u8, b"-._~%!$&'()*+,;=:") {
            classes[byte] |= HOST_NAME;
        }
        byte += 1;
    }
    classes
};

const fn within(byte: u8, bytes: &[u8]) -> bool {
    let mut n = 0;
    while n < bytes.len() {
        if bytes[n] == byte {
            return true;
        }
        n += 1;
    }
    false
}

fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|byte| CLASSES[usize::from(*byte)] & class != 0)
}

/// RFC 9110, section 5.6.2.
pub(super) fn is_token(byte: &u8) -> bool {
    CLASSES[usize::from(*byte)] & TOKEN != 0
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A path and a query in the characters of RFC 3986. In a query, those that browsers do not encode are taken too.
pub(super) fn is_path(text: &[u8]) -> bool {
    let mut rest = text.iter();
    let mut class = PATH;
    while let Some(byte) = rest.next() {
        let fine = match byte {
            b'%' => rest.next().is_some_and(u8::is_ascii_hexdigit) && rest.next().is_some_and(u8::is_ascii_hexdigit),
            b'?' => {
                class = QUERY;
                true
            }
            byte => CLASSES[usize::from(*byte)] & class != 0,
        };
        if !fine {
            return false;
        }
    }
    true
}

/// A host, and perhaps a port (RFC 9110, section 7.2). No user may stand before it.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else { return false };
            let inner = &rest[..end];
            let literal = !inner.is_empty() && inner.iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b));
            match (&rest[end + 1..], literal) {
                ([], true) => return true,
                ([b':', port @ ..], true) => (inner, port),
                _ => return false,
            }
        }
        None => match text.iter().position(|byte| *byte == b':') {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &b""[..]),
        },
    };
    !host.is_empty() && all(host, HOST_NAME) && port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_uri_bytes: 100, max_header_bytes: 500, max_headers: 8 };

    /// The same, wherever the bytes are cut.
    fn read(text: &str) -> Result<Option<(usize, Framing)>, Flaw> {
        let whole = Head::new(LIMITS).read(&mut BytesMut::from(text));
        let (mut head, mut bytes, mut last) = (Head::new(LIMITS), BytesMut::new(), Ok(None));
        for byte in text.bytes() {
            bytes.extend_from_slice(&[byte]);
            last = head.read(&mut bytes);
            if !matches!(last, Ok(None)) {
                break;
            }
        }
        assert_eq!(last, whole, "{text:?}");
        whole
    }

    #[test]
    fn a_sound_head_ends_where_its_empty_line_does() {
        for (text, framing) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
            ("GET / HTTP/1.0\r\n\r\n", Framing::Length(0)),
            ("POST /a?b=[c] HTTP/1.1\r\nhost:a.example:80\r\nCONTENT-length:\t7 \r\n\r\n", Framing::Length(7)),
            ("BREW /%2e%2E HTTP/1.1\r\nHost: [::1]:80\r\nX:\r\nTransfer-Encoding: Chunked\r\n\r\n", Framing::Chunks),
            ("GET http://A/ HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(0)),
        ] {
            assert_eq!(read(text), Ok(Some((text.len(), framing))), "{text:?}");
            assert_eq!(read(&format!("\r\n{text}")), Ok(Some((text.len(), framing))), "{text:?}");
            let more = format!("{text}GET /next");
            let mut bytes = BytesMut::from(&*more);
            assert_eq!(Head::new(LIMITS).read(&mut bytes), Ok(Some((text.len(), framing))));
        }
    }

    #[test]
    fn a_head_that_is_not_all_there_is_waited_for() {
        let text = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(read(&text[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let head = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        for (text, flaw) in [
            ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), LINE_END),
            ("GET / HTTP/1.1\rHost: a\r\r".to_owned(), LINE_END),
            ("\n\nGET / HTTP/1.1\r\n".to_owned(), LINE_END),
            ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), REQUEST_LINE),
            ("GET  / HTTP/1.1\r\n".to_owned(), REQUEST_LINE),
            ("GET /\r\n".to_owned(), REQUEST_LINE),
            ("G@T / HTTP/1.1\r\n".to_owned(), REQUEST_LINE),
            ("PRI * HTTP/2.0\r\n".to_owned(), VERSION),
            ("GET / http/1.1\r\n".to_owned(), VERSION),
            ("GET /a#b HTTP/1.1\r\n".to_owned(), TARGET),
            ("GET /%0 HTTP/1.1\r\n".to_owned(), TARGET),
            ("GET a HTTP/1.1\r\n".to_owned(), TARGET),
            ("CONNECT a:1 HTTP/1.1\r\n".to_owned(), TARGET),
            ("GET http://u@a/ HTTP/1.1\r\n".to_owned(), TARGET),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), TARGET),
            (format!("GET /{} HTTP/1.1\r\n", "a".repeat(100)), URI_TOO_LONG),
            ("a".repeat(1_000), URI_TOO_LONG),
            (head("A b: c"), HEADER),
            (head("A : c"), HEADER),
            (head(" folded"), HEADER),
            (head("A: b\u{0}c"), HEADER),
            (head("A: b\u{7f}c"), HEADER),
            (head(": c"), HEADER),
            (head("no colon"), HEADER),
            (head("Host: a"), HOST),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), HOST),
            ("GET / HTTP/1.1\r\nHost: a,b@c\r\n\r\n".to_owned(), HOST),
            ("GET / HTTP/1.1\r\nA: b\r\n\r\n".to_owned(), HOST),
            (head("Content-Length: 1\r\nContent-Length: 1"), FRAMING),
            (head("Content-Length: +1"), FRAMING),
            (head("Content-Length: 1, 1"), FRAMING),
            (head("Content-Length:"), FRAMING),
            (head("Content-Length: 9223372036854775808"), FRAMING),
            (head("Content-Length: 1\r\nTransfer-Encoding: chunked"), FRAMING),
            (head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), FRAMING),
            (head("Transfer-Encoding: gzip, chunked"), FRAMING),
            (head("Transfer-Encoding: x"), FRAMING),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), FRAMING),
            (head("Expect: a miracle"), EXPECTATION),
            (head(&"A: b\r\n".repeat(8)), HEADERS_TOO_LARGE),
            (head(&format!("A: {}", "b".repeat(500))), HEADERS_TOO_LARGE),
        ] {
            assert_eq!(read(&text), Err(flaw), "{text:?}");
        }
    }
}
