//! What a connection shows its upstream: a given token, a token signed here, or one from the upstream's sign-in.
//!
//! At most one sign-in is in flight for a connection, however many calls wait for it, and a refused account is not
//! tried again for a while: some upstreams lock it out for hours. No value is logged or has a `Debug`.

use std::sync::{Arc, Mutex, PoisonError};

use adapters::{Account, AuthScheme, Dialect, Fault, FaultCode, Grant, SignInReading, Wait};
use http::HeaderValue;
use secrecy::ExposeSecret;
use serde_json::json;

use super::client::Client;
use crate::clock;
use crate::engine::Lost;
use crate::tenants::{CredentialValue, Credentials};

/// A signed token holds so long, in seconds.
const SIGNED_LIFE_S: u64 = 300;
/// A signed token is dated so far back, in seconds: clocks differ.
const BACKDATED_S: u64 = 30;
/// A token from a sign-in is renewed when so much of its life is over, in percent.
const RENEW_AT_PERCENT: u64 = 80;
/// What is taken as a token's life where nobody says: renewed then, and whenever it is refused.
const DEFAULT_LIFE_S: u64 = 300;
/// After a refused sign-in, the first pause and the longest, in milliseconds; each refusal doubles it.
const REFUSED_PAUSE_MS: (u64, u64) = (60_000, 3_600_000);

/// What a connection shows its upstream.
pub(super) struct Wallet {
    auth: &'static AuthScheme,
    source: Source,
}

enum Source {
    Fixed(HeaderValue),
    Signed {
        id_claim: &'static str,
        subject: &'static str,
        client_id: String,
        key: Box<jsonwebtoken::EncodingKey>,
    },
    SignIn {
        credentials: Arc<crate::tenants::Connection>,
        state: Mutex<State>,
        turn: tokio::sync::Mutex<()>,
    },
    /// The configuration was read without its secrets, or they do not fit in a header.
    Unusable,
}

#[derive(Default)]
struct State {
    token: Option<Held>,
    /// No sign-in before this moment, in the clock's milliseconds.
    not_before_ms: u64,
    refusals: u32,
    generation: u64,
}

#[derive(Clone)]
struct Held {
    value: HeaderValue,
    generation: u64,
    renew_at_ms: u64,
    over_at_ms: u64,
}

/// A header value, and which token it came from.
pub(super) struct Shown {
    pub(super) value: HeaderValue,
    pub(super) generation: u64,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wallet(…)")
    }
}

impl Wallet {
    pub(super) fn new(connection: &Arc<crate::tenants::Connection>) -> Self {
        let auth = &connection.registration.profile.auth;
        let source = source(connection, auth).unwrap_or(Source::Unusable);
        Self { auth, source }
    }

    /// The header that carries the credential.
    pub(super) fn header(&self) -> &'static str {
        self.auth.header
    }

    /// Whether another credential could be had when one is refused.
    pub(super) fn renewable(&self) -> bool {
        matches!(self.source, Source::SignIn { .. })
    }

    /// The credential's header value, obtained first if need be.
    pub(super) async fn show(&self, dialect: &dyn Dialect, client: &Client) -> Result<Shown, Lost> {
        match &self.source {
            Source::Fixed(value) => Ok(Shown { value: value.clone(), generation: 0 }),
            Source::Signed { id_claim, subject, client_id, key } => {
                let value = sign(id_claim, subject, client_id, key).and_then(|jwt| self.value(&jwt));
                value.map(|value| Shown { value, generation: 0 }).ok_or_else(|| unavailable(None, false))
            }
            Source::SignIn { credentials, state, turn } => {
                self.signed_in(dialect, client, &credentials.credentials, state, turn).await
            }
            Source::Unusable => Err(unavailable(None, false)),
        }
    }

    /// The upstream refused what was shown: forget it, unless a newer one is there already.
    pub(super) fn refused(&self, generation: u64) {
        if let Source::SignIn { state, .. } = &self.source {
            let mut state = lock(state);
            if state.token.as_ref().is_some_and(|held| held.generation == generation) {
                state.token = None;
            }
        }
    }

    async fn signed_in(
        &self,
        dialect: &dyn Dialect,
        client: &Client,
        credentials: &Credentials,
        state: &Mutex<State>,
        turn: &tokio::sync::Mutex<()>,
    ) -> Result<Shown, Lost> {
        let held = lock(state).token.clone();
        if let Some(held) = &held {
            let now_ms = clock::now().ms;
            // While somebody else renews it ahead of its end, the old one still holds.
            if now_ms < held.renew_at_ms || (now_ms < held.over_at_ms && turn.try_lock().is_err()) {
                return Ok(Shown { value: held.value.clone(), generation: held.generation });
            }
        }
        let _turn = turn.lock().await;
        let now_ms = clock::now().ms;
        {
            let state = lock(state);
            if let Some(held) = state.token.as_ref().filter(|held| now_ms < held.renew_at_ms) {
                return Ok(Shown { value: held.value.clone(), generation: held.generation });
            }
            if now_ms < state.not_before_ms {
                let wait_s = (state.not_before_ms - now_ms).div_ceil(1_000);
                return Err(unavailable(Some(wait_s), false));
            }
        }
        let reading = self.ask(dialect, client, credentials).await;
        if !matches!(reading, Ok(SignInReading::Token { .. })) {
            let what = reading.as_ref().map_or_else(|_| "no answer".to_owned(), |reading| format!("{reading:?}"));
            tracing::warn!(answer = what, "the upstream gave no credential: check the connection's credentials");
        }
        let mut state = lock(state);
        match reading {
            Ok(SignInReading::Token { value, lifetime_s }) => {
                let Some(value) = self.value(&value) else { return Err(unavailable(None, true)) };
                let life_ms = lifetime_s.unwrap_or(DEFAULT_LIFE_S).saturating_mul(1_000);
                state.generation += 1;
                state.refusals = 0;
                let held = Held {
                    value: value.clone(),
                    generation: state.generation,
                    renew_at_ms: now_ms.saturating_add(life_ms.saturating_mul(RENEW_AT_PERCENT) / 100),
                    over_at_ms: now_ms.saturating_add(life_ms),
                };
                let generation = held.generation;
                state.token = Some(held);
                Ok(Shown { value, generation })
            }
            Ok(SignInReading::Refused) => {
                let (first, most) = REFUSED_PAUSE_MS;
                let pause_ms = first.saturating_mul(1 << state.refusals.min(16)).min(most);
                state.refusals += 1;
                state.not_before_ms = now_ms + pause_ms;
                Err(unavailable(Some(pause_ms.div_ceil(1_000)), false))
            }
            Ok(SignInReading::Throttled(wait)) => {
                let wait_s = match wait {
                    Some(Wait::For(seconds)) => seconds,
                    Some(Wait::Until(moment)) => moment.saturating_sub(clock::now().unix_s),
                    None => 60,
                };
                state.not_before_ms = now_ms.saturating_add(wait_s.saturating_mul(1_000));
                Err(unavailable(Some(wait_s), false))
            }
            Ok(SignInReading::Unusable) | Err(_) => Err(unavailable(None, true)),
        }
    }

    /// One sign-in. Whatever goes wrong with it, no delete was sent.
    async fn ask(
        &self,
        dialect: &dyn Dialect,
        client: &Client,
        credentials: &Credentials,
    ) -> Result<SignInReading, Lost> {
        let Some(sign_in) = dialect.sign_in() else { return Ok(SignInReading::Unusable) };
        let request = {
            let members: Option<Vec<_>> =
                credentials.members.iter().map(|(name, value)| Some((*name, value.text()?))).collect();
            let Some(members) = members else { return Ok(SignInReading::Unusable) };
            match sign_in.request(&Account(&members)) {
                Ok(request) => request,
                Err(_) => return Ok(SignInReading::Unusable),
            }
        };
        client.send(request).await.map(|reply| sign_in.read(&reply))
    }

    fn value(&self, token: &str) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("{}{token}", self.auth.prefix)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl CredentialValue {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Secret(secret) => Some(secret.expose_secret()),
            Self::Unread => None,
        }
    }
}

fn source(connection: &Arc<crate::tenants::Connection>, auth: &'static AuthScheme) -> Option<Source> {
    let credentials = &connection.credentials;
    let member = |wanted: &str| credentials.members.iter().find(|(name, _)| *name == wanted)?.1.text();
    match credentials.grant {
        Grant::Fixed => {
            let secret = credentials.members.iter().find_map(|(_, value)| match value {
                CredentialValue::Secret(secret) => Some(secret.expose_secret()),
                _ => None,
            })?;
            let mut value = HeaderValue::try_from(format!("{}{secret}", auth.prefix)).ok()?;
            value.set_sensitive(true);
            Some(Source::Fixed(value))
        }
        Grant::SignedJwt { id_claim, subject } => Some(Source::Signed {
            id_claim,
            subject,
            client_id: member("client_id")?.to_owned(),
            key: Box::new(jsonwebtoken::EncodingKey::from_secret(member("client_secret")?.as_bytes())),
        }),
        Grant::SignIn => Some(Source::SignIn {
            credentials: Arc::clone(connection),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        }),
    }
}

/// A token for one use (RFC 7519): dated back, short-lived, with an id of its own.
fn sign(id_claim: &str, subject: &str, client_id: &str, key: &jsonwebtoken::EncodingKey) -> Option<String> {
    let now_s = clock::now().unix_s;
    let mut claims = json!({
        "sub": subject,
        "iat": now_s - BACKDATED_S,
        "exp": now_s - BACKDATED_S + SIGNED_LIFE_S,
        "jti": uuid::Uuid::new_v4().simple().to_string(),
    });
    claims[id_claim] = client_id.into();
    jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256), &claims, key).ok()
}

fn unavailable(wait_s: Option<u64>, again: bool) -> Lost {
    let fault = Fault::new(FaultCode::CredentialUnavailable).wait(wait_s.map(Wait::For));
    Lost::NotSent { fault, again }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
