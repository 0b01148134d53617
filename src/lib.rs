//! onedelete: one inbound contract to delete contacts, translated into each CRM's own dialect.

pub mod engine;
pub mod store;
