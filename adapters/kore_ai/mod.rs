//! Kore.ai AI for Service, Contacts API: one DELETE with a list of ids, answered by a list of successes and a list of failures.
//!
//! Vendor page: <https://docs.kore.ai/ai-for-service/apis/contact-center/bulk-delete-contacts>.

mod double;
#[cfg(test)]
mod tests;
mod wire;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::{
    Call, Evidence, Fault, FaultCode, Finding, Identifier, IdentifierKind, Plan, Processed, Reading, Target,
    TurnedAway, Wait,
};
use crate::dialect::{
    AuthScheme, CredentialForm, Dialect, Grant, IdentifierRule, Member, Pace, Profile, Registration, Roster,
    SettingsError, SignIn, batch_size, body_of_route, groups, read_settings,
};
use crate::reply::Object;
use crate::url::BaseUrl;
use crate::{grammar, reply};
use wire::{ID_DIGITS, Told};

/// The line for `DIALECTS`.
pub(crate) const DIALECT: Registration = Registration {
    profile: &PROFILE,
    open,
    example: r#"
dialect = "kore_ai"
base_url = "https://platform.kore.ai"
stream_id = "st-7dc994f0-4436-5134-9fa8-a94262500001"
account_id = "65f7d49a5dd06e2cefa45012"
credentials = { client_id = "cs-demo", client_secret = "plain:kore-demo-client-secret-of-32-bytes" }
"#,
    double: double::new,
    fixtures: &[include_str!("fixtures/exchanges.json")],
};

static PROFILE: Profile = Profile {
    id: "kore_ai",
    title: "Kore.ai AI for Service",
    docs: &[
        "https://docs.kore.ai/ai-for-service/apis/contact-center/bulk-delete-contacts",
        "https://docs.kore.ai/ai-for-service/apis/automation/api-introduction",
    ],
    style: "DELETE …/{streamId}/contacts/bulk-delete with {\"ids\":[…]}",
    // No most is published; 100 keeps one lost reply from putting more contacts in doubt.
    max_contacts_per_call: 100,
    contacts_per_call_ceiling: 10_000,
    identifiers: &[IdentifierRule {
        kind: IdentifierKind::Id,
        syntax: "24 hexadecimal digits",
        replay_safe: true,
        accepts: |identifier| matches!(identifier, Identifier::Id(id) if grammar::is_hex_of::<ID_DIGITS>(id)),
        case_blind: true,
    }],
    // "60 requests per minute per account", shared by all Contact Center APIs of the account.
    pace: Some(Pace { calls: 60, per_s: 60 }),
    auth: AuthScheme {
        header: "auth",
        prefix: "",
        forms: &[
            CredentialForm {
                members: &[Member { name: "client_id", secret: false }, Member { name: "client_secret", secret: true }],
                // The vendor's sample payload is {"sub": "1234567890", "appId": "<Client ID>"}.
                grant: Grant::SignedJwt { id_claim: "appId", subject: "1234567890" },
            },
            CredentialForm { members: &[Member { name: "jwt", secret: true }], grant: Grant::Fixed },
        ],
    },
    evidence: &[Evidence::Item],
    assumptions: &[
        "The request member is `ids`: the sample has it, the parameter table says `id`.",
        "A failed record is a text or an object with `id`, `_id` or `contactId` and a reason; its shape is not published.",
        "A rate limit is answered with 429; without Retry-After the wait is 60 s, the length of the published window.",
        "401, 400 and 412 mean here what they mean on Kore.ai's other public APIs.",
    ],
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    base_url: String,
    stream_id: String,
    account_id: String,
    max_contacts_per_call: Option<usize>,
}

#[derive(Debug)]
struct KoreAi {
    uri: Uri,
    headers: HeaderMap,
    max_contacts_per_call: usize,
}

fn open(settings: Value) -> Result<Box<dyn Dialect>, SettingsError> {
    let settings: Settings = read_settings(settings)?;
    let base = BaseUrl::parse(&settings.base_url)?;
    let segments = ["agentassist", "api", "v1", "public", &settings.stream_id, "contacts", "bulk-delete"];
    let account = HeaderValue::try_from(&settings.account_id)
        .ok()
        .filter(|_| grammar::is_visible_ascii(&settings.account_id))
        .ok_or_else(|| SettingsError::new("account_id", "must be printable characters without blanks"))?;
    let headers = [
        (ACCEPT, HeaderValue::from_static("application/json")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("accountid"), account),
    ];
    Ok(Box::new(KoreAi {
        uri: base.route(&segments, "stream_id")?,
        headers: HeaderMap::from_iter(headers),
        max_contacts_per_call: batch_size(settings.max_contacts_per_call, &PROFILE)?,
    }))
}

impl Dialect for KoreAi {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn plan(&self, targets: Vec<Target>) -> Plan {
        let (sendable, refused) = PROFILE.sift(targets);
        let calls = groups(sendable, self.max_contacts_per_call).map(|group| self.call(group)).collect();
        Plan { calls, refused }
    }

    fn interpret(&self, call: &Call, reply: &Response<Bytes>) -> Reading {
        match reply.status() {
            StatusCode::OK => processed(call, reply),
            StatusCode::UNAUTHORIZED => unauthorized(call, reply),
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = reply::retry_after(reply.headers()).unwrap_or(Wait::For(60));
                reply::throttled(Some(wait), reply)
            }
            StatusCode::BAD_REQUEST | StatusCode::PRECONDITION_FAILED => refused(call, reply),
            _ => reply::by_status(reply),
        }
    }

    fn contacts_of(&self, request: &Request<Bytes>) -> Option<Vec<Identifier>> {
        let body: Object<wire::Asked> = body_of_route(request, &Method::DELETE, &self.uri)?;
        PROFILE.ids(body.0.ids)
    }

    fn max_contacts_per_call(&self) -> usize {
        self.max_contacts_per_call
    }

    fn sign_in(&self) -> Option<&dyn SignIn> {
        None
    }
}

impl KoreAi {
    fn call(&self, targets: Vec<Target>) -> Call {
        let mut request = Request::new(Bytes::from(wire::to_json(&targets)));
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        Call { request, targets }
    }
}

fn processed(call: &Call, reply: &Response<Bytes>) -> Reading {
    let Some((totals, said)) = wire::read(reply, || Said::nothing(call), Said::hear) else {
        return Reading::unreadable(FaultCode::ResponseUnreadable, reply);
    };
    if totals.total_requested == Some(0) && totals.nothing_listed() && totals.successful.unwrap_or(0) == 0 {
        return Reading::turned_away(FaultCode::UpstreamMisconfigured, reply);
    }
    // Lists decide, counters only confirm: where they disagree, a contact in no list is not just left out.
    let silent =
        if totals.counters_disagree() { FaultCode::ResponseContradictory } else { FaultCode::ResponseIncomplete };
    let finding = |code| Finding::Fault(Fault::of_reply(code, reply).named());
    let mut processed = Processed::all(call, &finding(silent));
    let mut position = 0;
    for same in said.words.chunk_by(|one, next| one == next) {
        let positions = position..position + same.len();
        position = positions.end;
        match same[0] {
            Word::Nothing => {}
            Word::Deleted => processed.put_all(positions, &Finding::Deleted(Evidence::Item)),
            Word::NotFound => processed.put_all(positions, &Finding::NotFound(Evidence::Item)),
            Word::Refused(code) => processed.put_all(positions, &finding(code)),
        }
    }
    Reading::Processed(processed)
}

/// What a reply's lists say of each contact of a call.
struct Said<'c> {
    successes: Roster<'c>,
    failures: Roster<'c>,
    words: Vec<Word>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Nothing,
    Deleted,
    NotFound,
    Refused(FaultCode),
}

impl<'c> Said<'c> {
    fn nothing(call: &'c Call) -> Self {
        let roster = Roster::new(call);
        Self { successes: roster.clone(), failures: roster, words: vec![Word::Nothing; call.targets.len()] }
    }

    /// In any order: whoever is told of twice in different ways is told of in contradiction.
    fn hear(&mut self, told: Told<'_>) {
        let (id, roster, word) = match told {
            Told::Successful { id } => (id, &mut self.successes, Word::Deleted),
            Told::Failed { id, reason } => (id, &mut self.failures, why(reason.unwrap_or_default())),
        };
        let position = id.and_then(|id| roster.find(id));
        let Some(place) = position.and_then(|position| self.words.get_mut(position)) else { return };
        if *place != Word::Nothing && *place != word {
            *place = Word::Refused(FaultCode::ResponseContradictory);
        } else {
            *place = word;
        }
    }
}

fn why(reason: &str) -> Word {
    if says(reason, &["not found", "notfound", "not_found", "does not exist"]) {
        Word::NotFound
    } else if says(reason, &["invalid"]) {
        Word::Refused(FaultCode::UpstreamValidation)
    } else {
        Word::Refused(FaultCode::UpstreamUnspecified)
    }
}

/// A wrong scope is answered like a bad token: "Permission denied. Scope is incorrect!", 401. A new token would not help.
fn unauthorized(call: &Call, reply: &Response<Bytes>) -> Reading {
    let errors = reply::json::<wire::Errors<'_>>(reply).unwrap_or_default();
    let code = errors.code();
    if errors.message().is_some_and(|message| says(message, &["scope"])) {
        let fault = Fault::of_reply(FaultCode::UpstreamForbidden, reply).word(code.as_deref(), call);
        return Reading::TurnedAway(TurnedAway::Fault(fault));
    }
    let fault = Fault::of_reply(FaultCode::UpstreamUnauthenticated, reply).word(code.as_deref(), call);
    Reading::TurnedAway(TurnedAway::Credential(fault))
}

/// 400 and 412 in Kore.ai's envelope refuse the whole call; without it, something in between answered.
fn refused(call: &Call, reply: &Response<Bytes>) -> Reading {
    let Some(errors) = reply::json::<wire::Errors<'_>>(reply) else {
        return Reading::turned_away(FaultCode::UpstreamMisconfigured, reply);
    };
    let fault = Fault::of_reply(FaultCode::UpstreamValidation, reply).word(errors.code().as_deref(), call);
    Reading::TurnedAway(TurnedAway::Fault(fault))
}

fn says(text: &str, words: &[&str]) -> bool {
    let text = text.to_ascii_lowercase();
    words.iter().any(|word| text.contains(word))
}
