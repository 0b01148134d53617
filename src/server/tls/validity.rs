//! From when until when a certificate is valid (RFC 5280, section 4.1.2.5), read from its DER.
//!
//! It reads as far as those two times and checks nothing else: that a certificate is sound is for rustls to say.

use rustls::pki_types::CertificateDer;

/// Seconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from_s: i64,
    pub(super) until_s: i64,
}

impl Validity {
    /// When all of these are valid.
    pub(super) fn of_all(chain: &[CertificateDer<'_>]) -> Result<Self, String> {
        let mut all = Self { from_s: i64::MIN, until_s: i64::MAX };
        for certificate in chain {
            let one = Self::of(certificate).ok_or("a certificate in it cannot be read")?;
            all = Self { from_s: all.from_s.max(one.from_s), until_s: all.until_s.min(one.until_s) };
        }
        Ok(all)
    }

    fn of(der: &[u8]) -> Option<Self> {
        let (certificate, _) = element(der, SEQUENCE)?;
        let (mut rest, _) = element(certificate, SEQUENCE)?;
        // The version is there in all but the oldest; then come serial number, algorithm and issuer.
        if let Some((_, after)) = element(rest, VERSION) {
            rest = after;
        }
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            (_, rest) = element(rest, tag)?;
        }
        let (times, _) = element(rest, SEQUENCE)?;
        let (from_s, rest) = time(times)?;
        let (until_s, _) = time(rest)?;
        Some(Self { from_s, until_s })
    }
}

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// What is in the first element, if that is its tag, and what comes behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = der else { return None };
    let (length, rest) = match length {
        ..=0x7f => (usize::from(*length), rest),
        // No certificate needs more than three bytes for its length.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length)).flatten()
}

fn time(der: &[u8]) -> Option<(i64, &[u8])> {
    let (text, century, rest) = match (element(der, UTC_TIME), element(der, GENERALIZED_TIME)) {
        (Some((text, rest)), _) => {
            let year: u8 = number(text.get(..2)?)?;
            (text, if year < 50 { Some("20") } else { Some("19") }, rest)
        }
        (None, Some((text, rest))) => (text, None, rest),
        (None, None) => return None,
    };
    let mut digits = century.unwrap_or_default().as_bytes().to_vec();
    digits.extend_from_slice(text.strip_suffix(b"Z")?);
    if digits.len() != 14 {
        return None;
    }
    let part = |from: usize| number(&digits[from..from + 2]);
    let moment =
        jiff::civil::DateTime::new(number(&digits[..4])?, part(4)?, part(6)?, part(8)?, part(10)?, part(12)?, 0);
    let moment = moment.ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some((moment.timestamp().as_second(), rest))
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    let plain = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| plain)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(from: &[u8], until: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, inner: &[u8]| {
            let length = u8::try_from(inner.len()).unwrap();
            let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
            [&head, inner].concat()
        };
        let times = wrap(SEQUENCE, &[from, until].concat());
        let names =
            [wrap(VERSION, &wrap(INTEGER, &[2])), wrap(INTEGER, &[7]), wrap(SEQUENCE, b""), wrap(SEQUENCE, &[0; 90])];
        wrap(SEQUENCE, &wrap(SEQUENCE, &[names.concat(), times].concat()))
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let der = certificate(b"\x17\x0d991231235959Z", b"\x18\x0f20500101000000Z");
        assert_eq!(Validity::of(&der), Some(Validity { from_s: 946_684_799, until_s: 2_524_608_000 }));
        let der = certificate(b"\x17\x0d490101000000Z", b"\x17\x0d500101000000Z");
        assert_eq!(Validity::of(&der), Some(Validity { from_s: 2_493_072_000, until_s: -631_152_000 }));
    }

    #[test]
    fn what_is_no_certificate_is_none_wherever_it_is_cut() {
        let der = certificate(b"\x17\x0d991231235959Z", b"\x18\x0f20500101000000Z");
        for end in 0..der.len() {
            assert_eq!(Validity::of(&der[..end]), None, "{end}");
        }
        for (from, until) in [
            (&b"\x17\x0d991331235959Z"[..], &b"\x17\x0d991231235959Z"[..]),
            (b"\x17\x0d991231235959+", b"\x17\x0d991231235959Z"),
            (b"\x17\x0b9912312359Z", b"\x17\x0d991231235959Z"),
            (b"\x17\x0d99-231235959Z", b"\x17\x0d991231235959Z"),
            (b"\x02\x0d991231235959Z", b"\x17\x0d991231235959Z"),
            (b"\x17\x00", b"\x17\x0d991231235959Z"),
        ] {
            assert_eq!(Validity::of(&certificate(from, until)), None, "{}", String::from_utf8_lossy(from));
        }
    }
}
