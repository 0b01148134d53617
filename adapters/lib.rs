//! The upstream dialects of onedelete, as pure functions.
//!
//! A dialect is contacts in → upstream calls out ([`Dialect::plan`]) and upstream reply in → outcomes out
//! ([`Dialect::interpret`]). Every folder here is a dialect, every file is shared by all of them. This crate does no
//! I/O, knows no clock, no runtime and no HTTP client, and names no credential.
//!
//! A new dialect is one folder and one line in [`DIALECTS`]; the laws in `conformance.rs` then hold it to what every
//! dialect promises.

pub mod contract;
pub mod dialect;
pub mod exchange;
pub mod grammar;
pub mod judge;
pub mod oauth;
pub mod plain;
pub mod reply;
pub mod url;
pub mod vocabulary;

mod request;
mod store;
mod text;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod described;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod schema;

mod bas_ip;
mod kore_ai;
mod onlyoffice;
mod talkdesk;
mod wethod;

pub use contract::{
    Call, Evidence, Fault, FaultCode, Finding, Identifier, IdentifierKind, Outcome, Plan, Processed, Reading, Slot,
    Target, TurnedAway, UpstreamWord, Wait,
};
pub use dialect::{
    Account, Answer, Asked, AuthScheme, CredentialForm, Dialect, Double, Grant, IdentifierRule, Limit, Member, Pace,
    Profile, Registration, Roster, SettingsError, SignIn, SignInReading, Twist,
};
pub use text::Text;

/// Every dialect, alphabetically.
pub static DIALECTS: &[Registration] =
    &[bas_ip::DIALECT, kore_ai::DIALECT, onlyoffice::DIALECT, talkdesk::DIALECT, wethod::DIALECT];

/// The dialect with this id.
pub fn find(id: &str) -> Option<&'static Registration> {
    DIALECTS.iter().find(|registration| registration.profile.id == id)
}
