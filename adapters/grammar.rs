//! Allow-list grammars for identifiers. What they refuse never reaches a URL or a body.

use crate::contract::Identifier;

/// A UUID in its hyphenated form (RFC 9562, section 4), upper or lower case.
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// `digits` hexadecimal digits, upper or lower case.
pub fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The same for a number of digits that is known beforehand, which costs less.
#[inline]
pub fn is_hex_of<const DIGITS: usize>(text: &str) -> bool {
    // Without a way out in between, and with two ranges instead of three, a processor looks at many at once.
    let is_digit = |b: u8| b.is_ascii_digit() | (b'a'..=b'f').contains(&(b | 0x20));
    let digits = <&[u8; DIGITS]>::try_from(text.as_bytes());
    digits.is_ok_and(|digits| digits.iter().fold(true, |all, b| all & is_digit(*b)))
}

/// A whole number from 1 to `most`, in canonical decimal: no sign, no leading zero, no blank.
pub fn is_positive_integer(text: &str, most: u64) -> bool {
    !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u64>().is_ok_and(|n| n <= most)
}

/// E.164 by syntax alone: `+`, then 1 to 15 digits.
pub fn is_phone(text: &str) -> bool {
    text.strip_prefix('+')
        .is_some_and(|digits| (1..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Visible ASCII, at least one character.
pub fn is_visible_ascii(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A UUID as native id.
pub fn uuid_id(identifier: &Identifier) -> bool {
    matches!(identifier, Identifier::Id(id) if is_uuid(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_numbers_pass() {
        for good in ["1", "42", "2147483647"] {
            assert!(is_positive_integer(good, i32::MAX as u64), "{good}");
        }
        for bad in
            ["", "0", "-1", "+1", "042", "1.0", "1e3", " 1", "1 ", "2147483648", "99999999999999999999", "１", "filter"]
        {
            assert!(!is_positive_integer(bad, i32::MAX as u64), "{bad}");
        }
    }

    #[test]
    fn both_ways_to_look_at_digits_see_the_same() {
        for b in 0..=u8::MAX {
            let text = format!("0123456789{}bcdefABCDEF00", char::from(b));
            assert_eq!(is_hex_of::<24>(&text), is_hex(&text, 24), "{text}");
            assert_eq!(is_hex_of::<24>(&text), char::from(b).is_ascii_hexdigit(), "{text}");
        }
        assert!(!is_hex_of::<24>("") && !is_hex_of::<24>("6960cbe9b155d194e2f0000") && is_hex_of::<0>(""));
    }

    #[test]
    fn a_uuid_has_hyphens_in_their_places() {
        assert!(is_uuid("91c615e3-1040-4815-8ecb-039a18b756b5"));
        assert!(is_uuid("91C615E3-1040-4815-8ECB-039A18B756B5"));
        for bad in [
            "",
            "91c615e310404815 8ecb039a18b756b5",
            "{91c615e3-1040-4815-8ecb-039a18b756b5}",
            "91c615e3-1040-4815-8ecb-039a18b756bg",
            "91c615e3-1040-4815-8ecb-039a18b756bé",
        ] {
            assert!(!is_uuid(bad), "{bad}");
        }
    }

    #[test]
    fn a_phone_is_plus_and_digits() {
        for good in ["+1", "+14155550100", "+123456789012345"] {
            assert!(is_phone(good), "{good}");
        }
        for bad in ["", "+", "14155550100", "+1234567890123456", "+1 415", "+1-415", "++1", "+１"] {
            assert!(!is_phone(bad), "{bad}");
        }
    }
}
