//! What the fuzz targets share: contacts and calls, JSON read without any of the product's readers, proofs of a deletion as
//! the vendors' pages have them, and the texts that a corpus begins with.
//!
//! It judges the product and so takes no function of it for a judge.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod calls;
pub mod proof;
pub mod seeds;
pub mod tree;

/// A secret, or a value of a caller's, that must not be seen again.
pub const CANARY: &str = "kanari7431";
