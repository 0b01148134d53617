//! What a connection shows its upstream: a given token, a token signed here, or one from the upstream's sign-in.
//!
//! At most one sign-in is in flight for a connection, however many calls wait for it, and at a device for all connections
//! that lead there. A refused account is not tried
//! again for a while, since some upstreams lock it out for hours; nor is an account whose fresh token is refused, nor, for
//! a shorter while, a sign-in that failed. A token that still holds outlives all of that. It does not judge replies to
//! calls: it is told whether a token was taken. No value is logged or has a `Debug`. Above 500 lines because the rules of a
//! sign-in are one state, and their tests stand with them.

use std::sync::{Arc, Mutex, PoisonError};

use adapters::{AuthScheme, Fault, FaultCode, Grant, SignInReading, Wait};
use http::HeaderValue;
use secrecy::ExposeSecret;
use serde_json::json;

use super::accounts::{self, Accounts, SignInState};
use super::client::Client;
use super::standing::CredentialStanding;
use crate::clock;
use crate::engine::Lost;
use crate::tenants::{Connection, CredentialValue};

/// A signed token holds so long, in seconds.
const SIGNED_LIFE_S: u64 = 300;
/// A token that was signed so long ago, in milliseconds, is signed anew before it is sent.
const FRESH_MS: u64 = 1_000;
/// A signed token is dated so far back, in seconds: clocks differ.
const BACKDATED_S: u64 = 30;
/// A token from a sign-in is renewed when so much of its life is over, in percent.
const RENEW_AT_PERCENT: u64 = 80;
/// What is taken as a token's life where nobody says: renewed then, and whenever it is refused.
const DEFAULT_LIFE_S: u64 = 300;
/// After a refused sign-in or a refused fresh token, the first pause and the longest, in milliseconds; each doubles it.
const REFUSED_PAUSE_MS: (u64, u64) = (60_000, 3_600_000);
/// The same after a sign-in that failed: no answer, or none that can be used.
const FAILED_PAUSE_MS: (u64, u64) = (1_000, 60_000);
/// What a sign-in sends is looked for in texts of so many bytes and more.
const LIKE_A_HASH: usize = 16;
/// The pause where an upstream takes no more sign-ins and does not say for how long, in seconds.
const THROTTLED_PAUSE_S: u64 = 60;

/// What a connection shows its upstream.
pub(super) struct Wallet {
    auth: &'static AuthScheme,
    connection: Arc<Connection>,
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
    SignIn(Arc<SignInState>),
    /// The configuration was read without its secrets, or they do not fit in a header.
    Unusable,
}

/// What is known of a sign-in. Without I/O and clock: the time is an argument.
#[derive(Default)]
pub(super) struct State {
    token: Option<Held>,
    generation: u64,
    /// No sign-in before this moment, in the clock's milliseconds.
    not_before_ms: u64,
    /// Whether the pause until then passes by itself, and is no refusal.
    passes: bool,
    /// Refused sign-ins and refused fresh tokens since a token was last accepted.
    refusals: u32,
    /// Failed sign-ins since one last succeeded.
    failures: u32,
}

struct Held {
    value: HeaderValue,
    generation: u64,
    /// When it was asked for.
    since_ms: u64,
    renew_at_ms: u64,
    over_at_ms: u64,
    /// A call that showed it was not refused for it.
    accepted: bool,
}

/// What came of a sign-in.
enum Answer {
    Token {
        value: HeaderValue,
        life_s: u64,
    },
    Refused,
    Throttled {
        wait_s: u64,
    },
    /// None was tried: somebody else was told that the device takes nobody for now.
    LockedOut {
        left_ms: u64,
    },
    Failed,
}

/// A header value, and which token it came from.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) value: HeaderValue,
    pub(super) generation: u64,
    /// When it was signed, where it was signed here.
    since_ms: u64,
}

/// Why there is nothing to show.
pub(super) struct NoCredential {
    pub(super) lost: Lost,
    /// A sign-in was tried just now and failed, which is news of the upstream; a refusal or a pause is none.
    pub(super) sign_in_failed: bool,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wallet(…)")
    }
}

impl Wallet {
    pub(super) fn new(connection: &Arc<Connection>, accounts: &Accounts) -> Self {
        let auth = &connection.registration.profile.auth;
        let source = source(connection, auth, accounts).unwrap_or(Source::Unusable);
        Self { auth, connection: Arc::clone(connection), source }
    }

    /// The header that carries the credential.
    pub(super) fn header(&self) -> &'static str {
        self.auth.header
    }

    /// What is known of the credential, without it.
    pub(super) fn standing(&self) -> CredentialStanding {
        match &self.source {
            Source::Fixed(_) => CredentialStanding::Given,
            Source::Signed { .. } => CredentialStanding::Signed,
            Source::SignIn(account) => lock(&account.state).standing(clock::now().ms),
            Source::Unusable => CredentialStanding::Unusable,
        }
    }

    /// Whether another credential could be had when one is refused.
    pub(super) fn renewable(&self) -> bool {
        matches!(self.source, Source::SignIn(_))
    }

    /// The credential's header value, obtained first if need be.
    pub(super) async fn obtain(&self, client: &Client) -> Result<Shown, NoCredential> {
        let unusable = || unavailable(None, false);
        match &self.source {
            Source::Fixed(value) => Ok(Shown { value: value.clone(), generation: 0, since_ms: 0 }),
            Source::Signed { id_claim, subject, client_id, key } => {
                self.signed(id_claim, subject, client_id, key).ok_or_else(unusable)
            }
            Source::SignIn(account) => match self.at_hand(account) {
                Some(known) => known,
                // Boxed: it is large, and rare.
                None => Box::pin(self.signed_in(client, account)).await,
            },
            Source::Unusable => Err(unusable()),
        }
    }

    /// What to show now instead of what was obtained a while ago; `None` if that was refused and must be obtained again.
    pub(super) fn latest(&self, shown: Shown) -> Option<Shown> {
        match &self.source {
            // Its short life counts from here.
            Source::Signed { id_claim, subject, client_id, key }
                if clock::ms().saturating_sub(shown.since_ms) > FRESH_MS =>
            {
                self.signed(id_claim, subject, client_id, key)
            }
            Source::SignIn(account) => lock(&account.state).token.as_ref().map(Held::shown),
            Source::Fixed(_) | Source::Signed { .. } | Source::Unusable => Some(shown),
        }
    }

    /// The upstream refused what was shown: forget it, unless a newer one is there already.
    pub(super) fn refused(&self, generation: u64) {
        if let Source::SignIn(account) = &self.source {
            lock(&account.state).refused(generation, clock::ms());
        }
    }

    /// The upstream did not refuse what was shown.
    pub(super) fn accepted(&self, generation: u64) {
        if let Source::SignIn(account) = &self.source {
            lock(&account.state).accepted(generation);
        }
    }

    /// Whether a text that an upstream said is a piece of the credential, or has one in it: of its secrets, of the token that
    /// is held, or of what a sign-in sends. A token that is signed for each call is not looked for.
    pub(super) fn is_given_away_by(&self, text: &str) -> bool {
        let credentials = &self.connection.credentials;
        let secrets = credentials.members.iter().filter_map(|(_, value)| match value {
            CredentialValue::Secret(secret) => Some(secret.expose_secret()),
            CredentialValue::Plain(_) | CredentialValue::Unread => None,
        });
        if secrets.into_iter().any(|secret| overlap(secret.as_bytes(), text.as_bytes())) {
            return true;
        }
        let Source::SignIn(account) = &self.source else { return false };
        let token = lock(&account.state).token.as_ref().map(|held| held.value.clone());
        let token = token.as_ref().map(|value| value.as_bytes().get(self.auth.prefix.len()..).unwrap_or_default());
        if token.is_some_and(|token| overlap(token, text.as_bytes())) {
            return true;
        }
        // A secret may be sent in another form, such as a hash. Shorter texts are words that a request has anyway.
        let sent = accounts::request(&*self.connection.dialect, credentials).filter(|_| text.len() >= LIKE_A_HASH);
        sent.is_some_and(|sent| {
            holds(sent.uri().to_string().as_bytes(), text.as_bytes()) || holds(sent.body(), text.as_bytes())
        })
    }

    /// What there is to show without a sign-in, and without waiting for one.
    fn at_hand(&self, account: &SignInState) -> Option<Result<Shown, NoCredential>> {
        let (state, now_ms) = (lock(&account.state), clock::ms());
        state.without_asking(now_ms).or_else(|| {
            // While somebody else renews it ahead of its end, the old one still holds.
            state.holds(now_ms).filter(|_| account.turn.try_lock().is_err()).map(Ok)
        })
    }

    async fn signed_in(&self, client: &Client, account: &SignInState) -> Result<Shown, NoCredential> {
        let SignInState { state, turn, device } = account;
        let _turn = turn.lock().await;
        if let Some(known) = lock(state).without_asking(clock::ms()) {
            return known;
        }
        // Always after the turn of the account. Others may have been locked out meanwhile, and all with them.
        let _turn_at_device = match device {
            Some(device) => Some(device.turn.lock().await),
            None => None,
        };
        let asked_ms = clock::ms();
        if let Some(left_ms) = device.as_ref().and_then(|device| device.locked_for(asked_ms)) {
            return lock(state).learn(Answer::LockedOut { left_ms }, asked_ms, asked_ms);
        }
        let reading = self.ask(client).await;
        if !matches!(reading, Ok(SignInReading::Token { .. })) {
            let what = reading.as_ref().map_or_else(|_| "no answer".to_owned(), |reading| format!("{reading:?}"));
            let (tenant, connection) = (&*self.connection.tenant, &*self.connection.name);
            tracing::warn!(
                tenant,
                connection,
                answer = what,
                "the upstream gave no credential: check the connection's credentials"
            );
        }
        let now = clock::now();
        let answer = match reading {
            Ok(SignInReading::Token { value, lifetime_s }) => match self.value(&value) {
                // A life of no time at all would mean a sign-in for every call.
                Some(value) => {
                    let life_s = lifetime_s.filter(|life_s| *life_s > 0).unwrap_or(DEFAULT_LIFE_S);
                    Answer::Token { value, life_s }
                }
                None => Answer::Failed,
            },
            Ok(SignInReading::Refused) => Answer::Refused,
            Ok(SignInReading::Throttled(wait)) => Answer::Throttled {
                wait_s: match wait {
                    Some(Wait::For(seconds)) => seconds,
                    Some(Wait::Until(moment)) => moment.saturating_sub(now.unix_s),
                    None => THROTTLED_PAUSE_S,
                },
            },
            Ok(SignInReading::Unusable) | Err(_) => Answer::Failed,
        };
        if let (Some(device), Answer::Throttled { wait_s }) = (device, &answer) {
            device.lock_out(wait_s.saturating_mul(1_000), now.ms);
        }
        lock(state).learn(answer, asked_ms, now.ms)
    }

    /// One sign-in. Whatever goes wrong with it, no delete was sent.
    async fn ask(&self, client: &Client) -> Result<SignInReading, Lost> {
        let Connection { dialect, credentials, .. } = &*self.connection;
        let Some(sign_in) = dialect.sign_in() else { return Ok(SignInReading::Unusable) };
        let Some(request) = accounts::request(&**dialect, credentials) else { return Ok(SignInReading::Unusable) };
        client.send(request).await.map(|reply| sign_in.read(&reply))
    }

    fn signed(&self, id_claim: &str, subject: &str, client_id: &str, key: &jsonwebtoken::EncodingKey) -> Option<Shown> {
        let value = self.value(&sign(id_claim, subject, client_id, key)?)?;
        Some(Shown { value, generation: 0, since_ms: clock::ms() })
    }

    fn value(&self, token: &str) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("{}{token}", self.auth.prefix)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl State {
    /// The token, as long as it holds.
    fn holds(&self, now_ms: u64) -> Option<Shown> {
        self.token.as_ref().filter(|held| now_ms < held.over_at_ms).map(Held::shown)
    }

    /// Whether somebody who did not know this would sign in too early, now or after the next refusal.
    pub(super) fn is_resting(&self, now_ms: u64) -> bool {
        let longer = if self.refusals > 0 { REFUSED_PAUSE_MS.1 } else { 0 };
        now_ms < self.not_before_ms.saturating_add(longer)
    }

    fn standing(&self, now_ms: u64) -> CredentialStanding {
        let held = self.token.as_ref().filter(|held| now_ms < held.over_at_ms);
        match held {
            Some(held) => CredentialStanding::Token {
                age_ms: now_ms.saturating_sub(held.since_ms),
                left_ms: held.over_at_ms - now_ms,
            },
            None if now_ms < self.not_before_ms => {
                CredentialStanding::Paused { left_ms: self.not_before_ms - now_ms, refused: !self.passes }
            }
            None => CredentialStanding::NotAsked,
        }
    }

    /// What there is to show without a sign-in; `None` if it is time for one.
    fn without_asking(&self, now_ms: u64) -> Option<Result<Shown, NoCredential>> {
        if let Some(held) = self.token.as_ref().filter(|held| now_ms < held.renew_at_ms) {
            return Some(Ok(held.shown()));
        }
        (now_ms < self.not_before_ms).then(|| self.holds(now_ms).ok_or_else(|| self.paused(now_ms)))
    }

    /// Takes in a sign-in that began at `asked_ms` and ended now, and says what there is to show after it.
    fn learn(&mut self, answer: Answer, asked_ms: u64, now_ms: u64) -> Result<Shown, NoCredential> {
        let mut sign_in_failed = false;
        match answer {
            Answer::Token { value, life_s } => {
                self.generation += 1;
                self.failures = 0;
                let life_ms = life_s.saturating_mul(1_000);
                let held = Held {
                    value,
                    generation: self.generation,
                    since_ms: asked_ms,
                    renew_at_ms: asked_ms.saturating_add(life_ms.saturating_mul(RENEW_AT_PERCENT) / 100),
                    over_at_ms: asked_ms.saturating_add(life_ms),
                    accepted: false,
                };
                // However short its life is said to be, the call that obtained it shows it.
                return Ok(self.token.insert(held).shown());
            }
            Answer::Refused => self.refuse(now_ms),
            Answer::Throttled { wait_s } => self.pause(wait_s.saturating_mul(1_000), false, now_ms),
            Answer::LockedOut { left_ms } => self.pause(left_ms, false, now_ms),
            Answer::Failed => {
                self.pause(doubled(FAILED_PAUSE_MS, self.failures), true, now_ms);
                self.failures = self.failures.saturating_add(1);
                sign_in_failed = true;
            }
        }
        // A renewal ahead of time that comes to nothing is no reason to give up a token that holds.
        self.holds(now_ms).ok_or_else(|| NoCredential { sign_in_failed, ..self.paused(now_ms) })
    }

    /// A call that showed this token was refused for it.
    fn refused(&mut self, generation: u64, now_ms: u64) {
        let Some(held) = self.token.take_if(|held| held.generation == generation) else { return };
        // Another one would hardly fare better, and to sign in for every call is to run into a lock-out. One that was
        // accepted before, or is over, has simply come to its end.
        if !held.accepted && now_ms < held.over_at_ms {
            self.refuse(now_ms);
        }
    }

    /// A call that showed this token was not refused for it.
    fn accepted(&mut self, generation: u64) {
        if let Some(held) = self.token.as_mut().filter(|held| held.generation == generation) {
            held.accepted = true;
            // Not reset by the sign-in alone, or refused fresh tokens would never make the pause any longer.
            self.refusals = 0;
        }
    }

    fn refuse(&mut self, now_ms: u64) {
        self.pause(doubled(REFUSED_PAUSE_MS, self.refusals), false, now_ms);
        self.refusals = self.refusals.saturating_add(1);
    }

    fn pause(&mut self, ms: u64, passes: bool, now_ms: u64) {
        let until_ms = now_ms.saturating_add(ms);
        // What the upstream asked for may be longer.
        if until_ms > self.not_before_ms {
            (self.not_before_ms, self.passes) = (until_ms, passes);
        }
    }

    fn paused(&self, now_ms: u64) -> NoCredential {
        let left_s = self.not_before_ms.saturating_sub(now_ms).div_ceil(1_000);
        unavailable(Some(left_s), self.passes)
    }
}

impl Held {
    fn shown(&self) -> Shown {
        Shown { value: self.value.clone(), generation: self.generation, since_ms: 0 }
    }
}

/// The pause after `before` others of its kind.
fn doubled((first, most): (u64, u64), before: u32) -> u64 {
    first.saturating_mul(1 << before.min(16)).min(most)
}

impl CredentialValue {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Secret(secret) => Some(secret.expose_secret()),
            Self::Unread => None,
        }
    }
}

fn source(connection: &Arc<Connection>, auth: &'static AuthScheme, accounts: &Accounts) -> Option<Source> {
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
        Grant::SignIn => Some(Source::SignIn(accounts.of(connection))),
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

/// Whether one of the two is in the other; short ones only if they are the same.
fn overlap(secret: &[u8], text: &[u8]) -> bool {
    secret.eq_ignore_ascii_case(text)
        || secret.len().min(text.len()) >= 6 && (holds(secret, text) || holds(text, secret))
}

/// Whether the second is in the first, in capitals or not.
fn holds(whole: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && whole.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

fn unavailable(wait_s: Option<u64>, again: bool) -> NoCredential {
    let fault = Fault::new(FaultCode::CredentialUnavailable).wait(wait_s.map(Wait::For));
    NoCredential { lost: Lost::NotSent { fault, again }, sign_in_failed: false }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signs in at once; the token holds for 100 s and is due for renewal after 80.
    fn token(state: &mut State, now_ms: u64) -> u64 {
        let answer = Answer::Token { value: HeaderValue::from_static("t"), life_s: 100 };
        state.learn(answer, now_ms, now_ms).ok().unwrap().generation
    }

    /// The generation that is shown, or for how many seconds there is none and whether that passes by itself.
    fn told(shown: Result<Shown, NoCredential>) -> Result<u64, (u64, bool)> {
        match shown {
            Ok(shown) => Ok(shown.generation),
            Err(NoCredential { lost: Lost::NotSent { fault, again }, .. }) => {
                assert_eq!(fault.code, FaultCode::CredentialUnavailable);
                let Some(Wait::For(wait_s)) = fault.wait else { panic!("{fault:?}") };
                Err((wait_s, again))
            }
            Err(missing) => panic!("{:?}", missing.lost),
        }
    }

    fn known(state: &State, now_ms: u64) -> Option<Result<u64, (u64, bool)>> {
        state.without_asking(now_ms).map(told)
    }

    fn failed() -> [Answer; 3] {
        [Answer::Refused, Answer::Throttled { wait_s: 60 }, Answer::Failed]
    }

    #[test]
    fn each_fresh_token_that_is_refused_doubles_the_pause() {
        let (mut state, mut now_ms) = (State::default(), 0);
        for pause_s in [60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            let generation = token(&mut state, now_ms);
            state.refused(generation, now_ms);
            assert_eq!(known(&state, now_ms), Some(Err((pause_s, false))));
            state.refused(generation, now_ms);
            assert_eq!(known(&state, now_ms + 1_000), Some(Err((pause_s - 1, false))), "it is refused once");
            now_ms += pause_s * 1_000;
            assert_eq!(known(&state, now_ms), None);
        }
        let generation = token(&mut state, now_ms);
        state.accepted(generation);
        state.refused(generation, now_ms);
        let generation = token(&mut state, now_ms);
        state.refused(generation, now_ms);
        assert_eq!(known(&state, now_ms), Some(Err((60, false))), "an accepted one ends the row");
    }

    #[test]
    fn a_token_that_was_accepted_or_is_over_is_renewed_at_once() {
        let mut state = State::default();
        let generation = token(&mut state, 0);
        state.accepted(generation);
        state.refused(generation, 1_000);
        assert_eq!(known(&state, 1_000), None);
        let generation = token(&mut state, 1_000);
        state.refused(generation, 101_000);
        assert_eq!(known(&state, 101_000), None);
    }

    #[test]
    fn news_of_an_older_token_says_nothing_of_a_newer_one() {
        let mut state = State::default();
        let old = token(&mut state, 0);
        let new = token(&mut state, 0);
        state.refused(old, 0);
        assert_eq!(known(&state, 0), Some(Ok(new)));
        state.accepted(old);
        state.refused(new, 0);
        assert_eq!(known(&state, 0), Some(Err((60, false))));
    }

    #[test]
    fn a_failed_sign_in_is_followed_by_a_short_pause_that_doubles() {
        let (mut state, mut now_ms) = (State::default(), 0);
        for pause_s in [1, 2, 4, 8, 16, 32, 60, 60] {
            let missing = state.learn(Answer::Failed, now_ms, now_ms).err().unwrap();
            assert!(missing.sign_in_failed);
            assert_eq!(told(Err(missing)), Err((pause_s, true)));
            let end_ms = now_ms + pause_s * 1_000;
            assert_eq!(known(&state, end_ms - 1), Some(Err((1, true))));
            assert!(!state.paused(end_ms - 1).sign_in_failed, "to wait is no news");
            assert_eq!(known(&state, end_ms), None);
            now_ms = end_ms;
        }
        token(&mut state, now_ms);
        let over_ms = now_ms + 100_000;
        assert_eq!(told(state.learn(Answer::Failed, over_ms, over_ms)), Err((1, true)), "a success ends the row");
    }

    #[test]
    fn a_pause_counts_from_the_end_of_the_sign_in_and_a_life_from_its_start() {
        let mut state = State::default();
        assert_eq!(told(state.learn(Answer::Failed, 0, 30_000)), Err((1, true)));
        assert_eq!(known(&state, 30_999), Some(Err((1, true))));
        let answer = Answer::Token { value: HeaderValue::from_static("t"), life_s: 100 };
        assert_eq!(told(state.learn(answer, 31_000, 61_000)), Ok(1));
        assert_eq!((known(&state, 110_999), known(&state, 111_000)), (Some(Ok(1)), None));
    }

    #[test]
    fn a_token_that_holds_outlives_the_failure_of_its_renewal() {
        for answer in failed() {
            let mut state = State::default();
            let generation = token(&mut state, 0);
            assert_eq!((known(&state, 79_999), known(&state, 80_000)), (Some(Ok(generation)), None));
            assert_eq!(told(state.learn(answer, 80_000, 99_500)), Ok(generation));
            assert_eq!(known(&state, 99_999), Some(Ok(generation)), "the pause holds for the next renewal");
            assert!(matches!(known(&state, 100_000), Some(Err(_))), "until the token is over");
        }
        for answer in failed() {
            let mut state = State::default();
            token(&mut state, 0);
            assert!(state.learn(answer, 80_000, 100_000).is_err(), "it ended while the renewal was under way");
        }
    }

    #[test]
    fn a_shorter_pause_does_not_cut_a_longer_one() {
        let mut state = State::default();
        let generation = token(&mut state, 0);
        assert_eq!(told(state.learn(Answer::Throttled { wait_s: 10_800 }, 80_000, 80_000)), Ok(generation));
        state.refused(generation, 80_000);
        assert_eq!(known(&state, 80_000), Some(Err((10_800, false))));
    }
}
