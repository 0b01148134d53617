//! Where a connection may send to: `https`, or `http` by leave, and no private address without leave.
//!
//! It judges the text alone. Names are not resolved here: `outbound` asks about every address that a name resolves to.

use std::net::{IpAddr, Ipv6Addr};

use adapters::url::BaseUrl;

use crate::address::is_public;
use crate::settings::document::Field;

/// What a connection allows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Leave {
    pub(super) http: bool,
    pub(super) private: bool,
}

/// Reads a setting that is a URL. All that is wrong with it is put down.
pub(super) fn read(field: &Field<'_>, leave: Leave) -> Option<BaseUrl> {
    let base = match BaseUrl::parse(field.text()?) {
        Ok(base) => base,
        Err(err) => {
            field.refuse(&err.message, None);
            return None;
        }
    };
    let address = address(base.as_str());
    // Whoever writes a loopback literal means this machine: it needs no leave.
    if address.is_some_and(|address| address.is_loopback()) {
        return Some(base);
    }
    let plain = base.as_str().starts_with("http://") && !leave.http;
    let private = address.is_some_and(|address| !is_public(address)) && !leave.private;
    if plain {
        let hint = "plain http shows the credential to everybody on the way; allow_http = true allows it";
        field.refuse("must start with https://", Some(hint.to_owned()));
    }
    if private {
        let hint = "allow_private = true allows it".to_owned();
        field.refuse("must not be a private or special address", Some(hint));
    }
    (!plain && !private).then_some(base)
}

/// The host of a base URL, if it is an IP address.
fn address(url: &str) -> Option<IpAddr> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    authority.split(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literals_are_addresses() {
        for (url, expected) in [
            ("https://api.example", None),
            ("https://localhost:8080/x", None),
            ("http://127.0.0.1:8081", Some("127.0.0.1")),
            ("http://10.0.0.1/api", Some("10.0.0.1")),
            ("http://[::1]:9/x", Some("::1")),
            ("http://[fe80::1]", Some("fe80::1")),
            ("http://[::ffff:10.0.0.1]", Some("::ffff:10.0.0.1")),
        ] {
            assert_eq!(address(url), expected.map(|text| text.parse().unwrap()), "{url}");
        }
    }
}
