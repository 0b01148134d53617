//! The desk: which connection a contact goes to, and the connection's runtime side, made when it is first used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::engine::driver::Route;
use crate::outbound::{Outbound, Upstream};
use crate::tenants::{Connection, Tenants};

/// Tenants and the upstreams of their connections.
#[derive(Debug)]
pub struct Desk {
    tenants: Arc<Tenants>,
    outbound: Outbound,
    open: Mutex<HashMap<Name, Arc<Upstream>>>,
    waiters: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    waiters_per_tenant: usize,
}

/// A tenant's id and a connection's name.
type Name = (Arc<str>, Arc<str>);

impl Desk {
    /// With no upstream opened yet. So many requests of one tenant may wait for their deletions at the same time.
    pub fn new(tenants: Arc<Tenants>, outbound: Outbound, waiters_per_tenant: usize) -> Self {
        Self { tenants, outbound, open: Mutex::default(), waiters: Mutex::default(), waiters_per_tenant }
    }

    /// The places of a tenant's requests that wait.
    pub fn waiters(&self, tenant: &Arc<str>) -> Arc<Semaphore> {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let places = || Arc::new(Semaphore::new(self.waiters_per_tenant));
        Arc::clone(waiters.entry(Arc::clone(tenant)).or_insert_with(places))
    }

    /// The tenants.
    pub fn tenants(&self) -> &Arc<Tenants> {
        &self.tenants
    }

    /// A connection with its upstream. Fails only where the machine has no usable TLS set-up.
    pub fn route(&self, connection: &Arc<Connection>) -> Result<Route, String> {
        let name = (Arc::clone(&connection.tenant), Arc::clone(&connection.name));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let upstream = match open.get(&name) {
            Some(upstream) => Arc::clone(upstream),
            None => {
                let upstream = Arc::new(self.outbound.open(connection)?);
                open.insert(name, Arc::clone(&upstream));
                upstream
            }
        };
        Ok(Route { connection: Arc::clone(connection), upstream })
    }

    /// The upstream of a connection, if it has been used.
    pub fn opened(&self, connection: &Connection) -> Option<Arc<Upstream>> {
        let name = (Arc::clone(&connection.tenant), Arc::clone(&connection.name));
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }
}
