//! The name of a deletion: `del_` and 26 characters that sort by time of creation.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// A deletion's id: a UUID version 7 (RFC 9562, section 5.7), written in Crockford's base 32.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeletionId(u128);

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const PREFIX: &str = "del_";
const LENGTH: usize = 26;

impl DeletionId {
    /// A new id, later than every one before it on this machine.
    pub fn new() -> Self {
        Self(Uuid::now_v7().as_u128())
    }

    /// When it was made, in milliseconds since 1970-01-01 UTC: the id's first 48 bits.
    pub fn created_ms(self) -> i64 {
        (self.0 >> 80) as i64
    }

    /// The sixteen bytes that the store keeps.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From the bytes that the store keeps.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl Default for DeletionId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for DeletionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; PREFIX.len() + LENGTH];
        let (prefix, digits) = text.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX.as_bytes());
        let mut rest = self.0;
        for digit in digits.iter_mut().rev() {
            *digit = DIGITS[(rest & 31) as usize];
            rest >>= 5;
        }
        // All of it is ASCII.
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for DeletionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no deletion's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnId;

impl FromStr for DeletionId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let digits = text.strip_prefix(PREFIX).ok_or(NotAnId)?;
        // 26 digits hold 130 bits: the first may only use three of its five.
        if digits.len() != LENGTH || !matches!(digits.as_bytes()[0], b'0'..=b'7') {
            return Err(NotAnId);
        }
        digits
            .bytes()
            .try_fold(0u128, |sum, byte| {
                let digit = DIGITS.iter().position(|d| *d == byte).ok_or(NotAnId)?;
                Ok((sum << 5) | digit as u128)
            })
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_sorts_by_time() {
        let ids: Vec<_> = (0..100).map(|_| DeletionId::new()).collect();
        assert!(ids.iter().map(DeletionId::to_string).is_sorted());
        for id in ids {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(DeletionId::from_bytes(id.to_bytes()), id);
            assert_eq!(id.to_string().len(), 30);
        }
        assert_eq!(DeletionId(u128::MAX).to_string().parse(), Ok(DeletionId(u128::MAX)));
    }

    #[test]
    fn an_id_says_when_it_was_made() {
        let [before, id, after] = [crate::clock::unix_ms(), DeletionId::new().created_ms(), crate::clock::unix_ms()];
        // The counter of ids that were made in one millisecond may run a little ahead.
        assert!(before <= id && id <= after + 1_000, "{before} {id} {after}");
        // The example of RFC 9562, appendix A.6.
        let example = 0x017F_22E2_79B0_7CC3_98C4_DC0C_0C07_398F;
        assert_eq!(DeletionId(example).created_ms(), 1_645_557_742_000);
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in [
            "",
            "del_",
            "del_01jdx5m0w2e8v9a4k7c3b6n1p",
            "del_81jdx5m0w2e8v9a4k7c3b6n1pq",
            "del_01jdx5m0w2e8v9a4k7c3b6n1pu",
            "01jdx5m0w2e8v9a4k7c3b6n1pq",
            "del_01JDX5M0W2E8V9A4K7C3B6N1PQ",
            "del_éééééééééééééé",
        ] {
            assert_eq!(text.parse::<DeletionId>(), Err(NotAnId), "{text}");
        }
    }
}
