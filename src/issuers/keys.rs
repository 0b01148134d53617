//! The keys that an issuer signs with: from a file, from an address, or one that both sides know.
//!
//! What was read is kept until there is something newer that can be read: an issuer that is not there for a while locks
//! nobody out. Keys in a set that only a shared secret could be (`oct`) are never used.

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::tenants::TokenKeys;

/// No set is longer, in bytes.
const LONGEST: usize = 256 * 1_024;
/// Getting a set from an address may take so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// A set from an address is good for so long.
const GOOD_FOR: Duration = Duration::from_secs(300);
/// Between two looks, whatever keys are asked for: at an address, at a file.
const PAUSE: Duration = Duration::from_secs(30);
const PAUSE_FOR_FILES: Duration = Duration::from_secs(1);

/// The keys of one issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    source: Source,
    known: RwLock<Arc<Known>>,
    /// When was looked last; whoever looks holds it, and all others wait for what that brings.
    looked: Mutex<Option<Instant>>,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url(String),
    /// What is known is all that there is.
    Nothing,
}

#[derive(Debug, Default)]
struct Known {
    keys: Vec<Held>,
    since: Option<Instant>,
}

struct Held {
    id: Option<String>,
    algorithm: Option<String>,
    key: DecodingKey,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held(…)")
    }
}

impl KeySet {
    pub(super) fn new(keys: &TokenKeys) -> Self {
        let (source, keys) = match keys {
            TokenKeys::File(path) => (Source::File(path.clone()), Vec::new()),
            TokenKeys::Url(url) => (Source::Url(url.clone()), Vec::new()),
            TokenKeys::Shared(None) => (Source::Nothing, Vec::new()),
            TokenKeys::Shared(Some(secret)) => {
                let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
                (Source::Nothing, vec![Held { id: None, algorithm: None, key }])
            }
        };
        let known = RwLock::new(Arc::new(Known { keys, since: None }));
        Self { source, known, looked: Mutex::new(None) }
    }

    /// The keys that a token with this algorithm and this key's name may be signed with.
    pub(super) async fn fitting(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<DecodingKey> {
        let known = self.known();
        if self.is_enough(&known, id) {
            return known.fitting(algorithm, id);
        }
        let mut looked = match self.looked.try_lock() {
            Ok(looked) => looked,
            // Somebody looks already. What is old is good meanwhile: an issuer that is slow holds up one caller at a time.
            Err(_) if known.has(id) => return known.fitting(algorithm, id),
            Err(_) => self.looked.lock().await,
        };
        let pause = if matches!(self.source, Source::Url(_)) { PAUSE } else { PAUSE_FOR_FILES };
        let known = self.known();
        if !self.is_enough(&known, id) && looked.is_none_or(|looked| looked.elapsed() >= pause) {
            *looked = Some(Instant::now());
            self.look().await;
        }
        drop(looked);
        self.known().fitting(algorithm, id)
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether nothing newer is needed.
    fn is_enough(&self, known: &Known, id: Option<&str>) -> bool {
        let good_for = match self.source {
            Source::Nothing => return true,
            Source::File(_) => PAUSE_FOR_FILES,
            Source::Url(_) => GOOD_FOR,
        };
        let is_new = known.since.is_some_and(|since| since.elapsed() < good_for);
        is_new && known.has(id)
    }

    async fn look(&self) {
        let text = match &self.source {
            Source::Nothing => return,
            Source::File(path) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || read(path)).await.unwrap_or_else(|_| Err(UNREAD.to_owned()))
            }
            Source::Url(url) => match tokio::time::timeout(PATIENCE, fetch(url)).await {
                Ok(fetched) => fetched,
                Err(_) => Err("took too long".to_owned()),
            },
        };
        match text.and_then(|text| parse(&text)) {
            Ok(keys) => {
                let known = Known { keys, since: Some(Instant::now()) };
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
            }
            Err(why) => tracing::warn!(why, "the keys of an issuer could not be read: those from before stay"),
        }
    }
}

const UNREAD: &str = "could not be read";

impl Known {
    /// Whether the key of this name is there; without a name, whether there was a set at all.
    fn has(&self, id: Option<&str>) -> bool {
        let named = |id| self.keys.iter().any(|held| held.id.as_deref() == Some(id));
        self.since.is_some() && id.is_none_or(named)
    }

    fn fitting(&self, algorithm: Algorithm, id: Option<&str>) -> Vec<DecodingKey> {
        let name = format!("{algorithm:?}");
        let fits = |held: &&Held| {
            let named = match (id, held.id.as_deref()) {
                (Some(id), Some(own)) => id == own,
                _ => true,
            };
            named && held.algorithm.as_ref().is_none_or(|own| *own == name) && held.key.family() == algorithm.family()
        };
        self.keys.iter().filter(fits).map(|held| held.key.clone()).collect()
    }
}

fn read(path: PathBuf) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|err| format!("cannot be read: {}", err.kind()))?;
    let read = file
        .take(LONGEST as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|err| format!("cannot be read: {}", err.kind()))?;
    if read > LONGEST { Err("is too long".to_owned()) } else { Ok(text) }
}

async fn fetch(url: &str) -> Result<Vec<u8>, String> {
    let wrong = |err: reqwest::Error| err.without_url().to_string();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .build()
        .map_err(wrong)?;
    let mut reply = client.get(url).header("accept", "application/json").send().await.map_err(wrong)?;
    if reply.status() != http::StatusCode::OK {
        return Err(format!("answered {}", reply.status().as_u16()));
    }
    let mut text = Vec::new();
    while let Some(piece) = reply.chunk().await.map_err(wrong)? {
        text.extend_from_slice(&piece);
        if text.len() > LONGEST {
            return Err("is too long".to_owned());
        }
    }
    Ok(text)
}

/// The keys of a set that can be used. One that cannot be used is no mistake; a set without any is.
fn parse(text: &[u8]) -> Result<Vec<Held>, String> {
    let set: JwkSet = serde_json::from_slice(text).map_err(|_| "is no JWK set")?;
    let usable = set.keys.iter().filter_map(|jwk| {
        let signs = jwk.common.public_key_use.as_ref().is_none_or(|made_for| *made_for == PublicKeyUse::Signature);
        let is_public = !matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
        let key = DecodingKey::from_jwk(jwk).ok().filter(|_| signs && is_public)?;
        let algorithm = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        Some(Held { id: jwk.common.key_id.clone(), algorithm, key })
    });
    let usable: Vec<_> = usable.collect();
    if usable.is_empty() { Err("has no key that can be used".to_owned()) } else { Ok(usable) }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn while_one_asks_a_silent_issuer_the_others_use_what_is_known() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/keys", silent.local_addr().unwrap());
        let set = KeySet::new(&TokenKeys::Url(address));
        let key = DecodingKey::from_secret(&[7; 32]);
        let keys = vec![Held { id: Some("a".to_owned()), algorithm: None, key }];
        *set.known.write().unwrap() = Arc::new(Known { keys, since: Some(Instant::now()) });
        tokio::time::advance(GOOD_FOR).await;
        let mut looking = Box::pin(set.fitting(Algorithm::HS256, Some("a")));
        assert!(looking.as_mut().now_or_never().is_none());
        assert_eq!(set.fitting(Algorithm::HS256, Some("a")).now_or_never().map(|keys| keys.len()), Some(1));
        // A key that nobody knows may be a new one.
        assert!(set.fitting(Algorithm::HS256, Some("b")).now_or_never().is_none());
        // Who asked gets what is known as well, in the end.
        assert_eq!(looking.await.len(), 1);
    }
}
