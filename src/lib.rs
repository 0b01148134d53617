//! onedelete: one inbound contract to delete contacts, translated into each CRM's own dialect.
//!
//! The way of a deletion through the modules: `server` › `api` › `desk` › `store` › `adapters` › `outbound` › `engine` ›
//! `store`. ARCHITECTURE.md tells it at length.

pub mod address;
pub mod api;
pub mod app;
pub mod arrivals;
pub mod cli;
pub mod clock;
pub mod console;
pub mod desk;
pub mod engine;
pub mod issuers;
pub mod live;
mod maps;
pub mod mock;
pub mod outbound;
pub mod record;
pub mod server;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod tenants;
