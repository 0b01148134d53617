//! Who signs in where. At an upstream that is one device, connections with the same account share what is known of it, and
//! different accounts take turns, since the device locks everybody out together.
//!
//! The account is the whole request that a sign-in would send, secret included: whoever does not have the same secret shares
//! nothing but the turn. Elsewhere, an account is one connection's alone. It asks nobody for a token, and keeps nothing of accounts
//! that no connection has any more, unless nobody may sign in there for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use adapters::{Account, Dialect};
use bytes::Bytes;
use http::Request;

use super::credentials::State;
use crate::clock;
use crate::tenants::{Connection, Credentials};

/// Accounts that connections sign in with, for a whole process.
#[derive(Default)]
pub(super) struct Accounts(Mutex<Known>);

#[derive(Default)]
struct Known {
    accounts: HashMap<Fingerprint, Arc<SignInState>>,
    devices: HashMap<Place, Arc<Device>>,
    /// With so many accounts, it is looked for those that nobody has any more.
    sweep_at: usize,
}

/// SHA-256 of all that a sign-in sends.
type Fingerprint = [u8; 32];

/// A host and a port.
type Place = (String, u16);

/// What is known of one account's sign-in.
#[derive(Default)]
pub(super) struct SignInState {
    pub(super) state: Mutex<State>,
    /// Held by whoever signs in.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Where the account's upstream is a device.
    pub(super) device: Option<Arc<Device>>,
}

/// A device that takes sign-ins one by one.
#[derive(Default)]
pub(super) struct Device {
    /// Held by whoever signs in, after the turn of the account.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Nobody signs in before this moment, in the clock's milliseconds.
    not_before_ms: Mutex<u64>,
}

impl Accounts {
    /// What is known of the sign-in of a connection.
    pub(super) fn of(&self, connection: &Connection) -> Arc<SignInState> {
        let (dialect, credentials) = (&*connection.dialect, &connection.credentials);
        let at_device = dialect.sign_in().is_some_and(|sign_in| sign_in.is_a_device());
        let Some(request) = request(dialect, credentials) else { return Arc::default() };
        let own = (!at_device).then_some((&*connection.tenant, &*connection.name));
        let fingerprint = fingerprint(dialect.profile().id, own, &request);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.sweep(clock::now().ms);
        if let Some(account) = known.accounts.get(&fingerprint) {
            return Arc::clone(account);
        }
        let device = at_device.then(|| Arc::clone(known.devices.entry(place(&request)).or_default()));
        let account = Arc::new(SignInState { device, ..SignInState::default() });
        known.accounts.insert(fingerprint, Arc::clone(&account));
        account
    }
}

impl Known {
    /// Forgets what nobody has any more, as soon as it may have become much: only what is still to be waited for stays.
    fn sweep(&mut self, now_ms: u64) {
        if self.accounts.len() < self.sweep_at {
            return;
        }
        self.accounts.retain(|_, account| Arc::strong_count(account) > 1 || account.is_resting(now_ms));
        self.devices.retain(|_, device| Arc::strong_count(device) > 1 || device.locked_for(now_ms).is_some());
        self.sweep_at = self.accounts.len() * 2;
    }
}

impl SignInState {
    /// Whether something is known that must not be forgotten, or it would be signed in too early.
    fn is_resting(&self, now_ms: u64) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_resting(now_ms)
    }
}

impl Device {
    /// For how many milliseconds nobody signs in any more.
    pub(super) fn locked_for(&self, now_ms: u64) -> Option<u64> {
        let not_before_ms = *self.not_before_ms.lock().unwrap_or_else(PoisonError::into_inner);
        Some(not_before_ms.saturating_sub(now_ms)).filter(|left_ms| *left_ms > 0)
    }

    /// The device said that it takes nobody for so long.
    pub(super) fn lock_out(&self, ms: u64, now_ms: u64) {
        let mut not_before_ms = self.not_before_ms.lock().unwrap_or_else(PoisonError::into_inner);
        *not_before_ms = now_ms.saturating_add(ms).max(*not_before_ms);
    }
}

/// The request of a sign-in; none where the dialect has none, or the credentials were not read.
pub(super) fn request(dialect: &dyn Dialect, credentials: &Credentials) -> Option<Request<Bytes>> {
    let members: Option<Vec<_>> =
        credentials.members.iter().map(|(name, value)| Some((*name, value.text()?))).collect();
    dialect.sign_in()?.request(&Account(&members?)).ok()
}

fn fingerprint(dialect: &str, own: Option<(&str, &str)>, request: &Request<Bytes>) -> Fingerprint {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut add = |bytes: &[u8]| {
        digest.update(&(bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    add(dialect.as_bytes());
    if let Some((tenant, connection)) = own {
        add(tenant.as_bytes());
        add(connection.as_bytes());
    }
    add(request.method().as_str().as_bytes());
    add(request.uri().to_string().as_bytes());
    for (name, value) in request.headers() {
        add(name.as_str().as_bytes());
        add(value.as_bytes());
    }
    add(request.body());
    let mut fingerprint = Fingerprint::default();
    // SHA-256 has as many bytes.
    fingerprint.copy_from_slice(digest.finish().as_ref());
    fingerprint
}

fn place(request: &Request<Bytes>) -> Place {
    let uri = request.uri();
    let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    (uri.host().unwrap_or_default().to_ascii_lowercase(), uri.port_u16().unwrap_or(usual))
}

#[cfg(test)]
mod tests {
    use adapters::{DIALECTS, Registration};
    use serde_json::json;

    use super::*;
    use crate::tenants::CredentialValue;

    fn device() -> &'static Registration {
        let opened = |each: &Registration| {
            let mut example: toml::Table = each.example.parse().unwrap();
            for key in ["dialect", "credentials", "allow_http", "allow_private"] {
                example.remove(key);
            }
            (each.open)(serde_json::to_value(example).unwrap()).unwrap()
        };
        let is_one = |each: &&Registration| opened(each).sign_in().is_some_and(|sign_in| sign_in.is_a_device());
        let found: Vec<_> = DIALECTS.iter().filter(is_one).collect();
        assert_eq!(found.len(), 1);
        found[0]
    }

    fn connection(base_url: &str, secret: &str) -> Connection {
        let mut connection = crate::outbound::sample_connection(device());
        connection.dialect = (device().open)(json!({ "base_url": base_url })).unwrap().into();
        connection.credentials = credentials(secret);
        connection
    }

    /// Credentials for the dialect's sign-in: each member of its form with this in it.
    fn credentials(secret: &str) -> Credentials {
        let forms = device().profile.auth.forms;
        let form = forms.iter().find(|form| matches!(form.grant, adapters::Grant::SignIn)).unwrap();
        let value = |secret: &str| CredentialValue::Secret(secret.to_owned().into());
        Credentials {
            grant: &form.grant,
            members: form.members.iter().map(|m| (m.name, value(if m.secret { secret } else { "admin" }))).collect(),
        }
    }

    #[test]
    fn an_account_is_shared_by_those_who_have_its_secret_and_a_device_by_all() {
        let accounts = Accounts::default();
        let of = |base_url: &str, secret: &str| accounts.of(&connection(base_url, secret));
        let device_of = |account: &Arc<SignInState>| Arc::clone(account.device.as_ref().unwrap());
        let first = of("http://192.0.2.10/api/v0", "a");
        assert!(Arc::ptr_eq(&first, &of("http://192.0.2.10/api/v0", "a")));
        for (base_url, secret, same_device) in [
            ("http://192.0.2.10/api/v0", "b", true),
            ("http://192.0.2.10/api/v1", "a", true),
            ("http://192.0.2.10:8080/api/v0", "a", false),
            ("http://192.0.2.11/api/v0", "a", false),
        ] {
            let other = of(base_url, secret);
            assert!(!Arc::ptr_eq(&first, &other), "{base_url} {secret}");
            assert_eq!(Arc::ptr_eq(&device_of(&first), &device_of(&other)), same_device, "{base_url} {secret}");
        }
        // What nobody has any more is not kept.
        drop(first);
        let locked = of("http://192.0.2.12/api/v0", "c");
        device_of(&locked).lock_out(10_000, clock::now().ms);
        drop(locked);
        let _kept = of("http://192.0.2.13/api/v0", "d");
        let mut known = accounts.0.lock().unwrap();
        let mut left_after = |ms: u64| {
            known.sweep_at = 0;
            known.sweep(clock::now().ms + ms);
            (known.accounts.len(), known.devices.len())
        };
        assert_eq!((left_after(0), left_after(10_001)), ((1, 2), (1, 1)));
    }

    #[test]
    fn a_device_is_locked_until_the_latest_moment_that_it_named() {
        let device = Device::default();
        assert_eq!(device.locked_for(0), None);
        device.lock_out(10_000, 1_000);
        device.lock_out(1_000, 2_000);
        assert_eq!((device.locked_for(2_000), device.locked_for(10_999)), (Some(9_000), Some(1)));
        assert_eq!(device.locked_for(11_000), None);
    }
}
