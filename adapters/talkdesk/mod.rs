//! Talkdesk Record Lists API: one DELETE with an array of identifiers of one kind, answered by totals and the ids that failed.
//!
//! Vendor page: <https://docs.talkdesk.com/reference/delete-a-record>.

mod double;
mod records;
#[cfg(test)]
mod tests;
mod wire;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::{
    Call, Evidence, Fault, FaultCode, Finding, Identifier, IdentifierKind, Plan, Processed, Reading, Target, TurnedAway,
};
use crate::dialect::{
    Account, AuthScheme, CredentialForm, Dialect, Grant, IdentifierRule, Member, Profile, Registration, Roster,
    SettingsError, SignIn, SignInReading, batch_size, body_of_route, read_settings,
};
use crate::reply::Object;
use crate::url::BaseUrl;
use crate::{grammar, oauth, reply};

/// The line for `DIALECTS`.
pub(crate) const DIALECT: Registration = Registration {
    profile: &PROFILE,
    open,
    example: r#"
dialect = "talkdesk"
base_url = "https://api.talkdeskapp.com"
record_list_id = "d9be9636-528f-45e8-bdf8-27ffd9ee6085"
credentials = { token_url = "https://acme.talkdeskid.com/oauth/token", client_id = "td-demo", client_secret = "plain:talkdesk-demo-client-secret" }
"#,
    double: double::new,
    fixtures: &[include_str!("fixtures/exchanges.json")],
};

static PROFILE: Profile = Profile {
    id: "talkdesk",
    title: "Talkdesk Record Lists",
    docs: &[
        "https://docs.talkdesk.com/reference/delete-a-record",
        "https://docs.talkdesk.com/reference/record-lists-bulks",
        "https://docs.talkdesk.com/reference/cc-basic",
    ],
    style: "DELETE /record-lists/{record_list_id}/records/bulks with an array of identifiers of one kind",
    // The documented totals of a reply end at 100, so a larger call could not be accounted for.
    max_contacts_per_call: 100,
    contacts_per_call_ceiling: 100,
    identifiers: &[
        IdentifierRule {
            kind: IdentifierKind::Id,
            syntax: "a UUID with hyphens",
            replay_safe: true,
            accepts: grammar::uuid_id,
            case_blind: true,
        },
        IdentifierRule {
            kind: IdentifierKind::Phone,
            syntax: "+ and 1 to 15 digits",
            replay_safe: false,
            accepts: |identifier| matches!(identifier, Identifier::Phone(phone) if grammar::is_phone(phone)),
            case_blind: false,
        },
        // The most that either may have is `MAX_IDENTIFIER_BYTES`, which `Profile::admit` checks.
        IdentifierRule {
            kind: IdentifierKind::External,
            syntax: "a provider and an id, each of 1 to 128 visible ASCII characters",
            replay_safe: false,
            accepts: |identifier| {
                matches!(identifier, Identifier::External { provider, id }
                    if grammar::is_visible_ascii(provider) && grammar::is_visible_ascii(id))
            },
            case_blind: false,
        },
    ],
    pace: None,
    auth: AuthScheme {
        header: "authorization",
        prefix: "Bearer ",
        forms: &[CredentialForm {
            members: &[
                Member { name: "token_url", secret: false },
                Member { name: "client_id", secret: false },
                Member { name: "client_secret", secret: true },
            ],
            grant: Grant::SignIn,
        }],
    },
    evidence: &[Evidence::Aggregate],
    assumptions: &[
        "A call may carry 100 contacts: no most is published, but the documented totals end at 100.",
        "failed_records gives no reason, so nothing is ever read as not found.",
        "Totals count records. A phone or external id may match several; with attribution \"batch\", as many deleted as sent and no error is read as one for each.",
        "has_errors only repeats what the totals say; it is read only where neither an error total nor a failed record stands beside it.",
        "202 means that the delete is not done yet.",
        "401 and 429, which the page does not list, mean what they mean in HTTP; 412 and 422 in the error envelope are refusals, as 400 is.",
        "The scope is record-lists:manage, as the page says; other pages spell it differently, so it is a setting.",
        "A token whose reply does not say how long it holds is good for 10 minutes.",
    ],
};

/// What a published page gives every token.
const TOKEN_LIFE_S: u64 = 600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    base_url: String,
    record_list_id: String,
    attribution: Option<String>,
    scope: Option<String>,
    max_contacts_per_call: Option<usize>,
}

#[derive(Debug)]
struct Talkdesk {
    uri: Uri,
    scope: String,
    max_contacts_per_call: usize,
    /// The same for phones and external ids, whose failures a reply cannot name.
    max_unnamed_per_call: usize,
}

fn open(settings: Value) -> Result<Box<dyn Dialect>, SettingsError> {
    let settings: Settings = read_settings(settings)?;
    let base = BaseUrl::parse(&settings.base_url)?;
    if settings.record_list_id.len() > 36 {
        return Err(SettingsError::new("record_list_id", "may have 36 characters at most"));
    }
    let segments = ["record-lists", &settings.record_list_id, "records", "bulks"];
    let uri = base.route(&segments, "record_list_id")?;
    let max_contacts_per_call = batch_size(settings.max_contacts_per_call, &PROFILE)?;
    let max_unnamed_per_call = match settings.attribution.as_deref() {
        None | Some("per_contact") => 1,
        Some("batch") => max_contacts_per_call,
        Some(_) => return Err(SettingsError::new("attribution", "must be per_contact or batch")),
    };
    let scope = settings.scope.unwrap_or_else(|| "record-lists:manage".to_owned());
    // RFC 6749, section 3.3.
    if !scope.split(' ').all(|word| grammar::is_visible_ascii(word) && !word.contains(['"', '\\'])) {
        return Err(SettingsError::new("scope", "must be words of visible ASCII, with one blank between them"));
    }
    Ok(Box::new(Talkdesk { uri, scope, max_contacts_per_call, max_unnamed_per_call }))
}

impl Dialect for Talkdesk {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn plan(&self, targets: Vec<Target>) -> Plan {
        let (sendable, refused) = PROFILE.sift(targets);
        // A group starts with its first contact, so groups stand in the order of their first slots.
        let mut groups: Vec<Vec<Target>> = Vec::new();
        let (mut ids, mut phones, mut externals) = (None, None, None);
        for target in sendable {
            let (open, most) = match target.identifier.kind() {
                IdentifierKind::Id => (&mut ids, self.max_contacts_per_call),
                IdentifierKind::Phone => (&mut phones, self.max_unnamed_per_call),
                IdentifierKind::External => (&mut externals, self.max_unnamed_per_call),
            };
            match open.and_then(|index: usize| groups.get_mut(index)).filter(|group| group.len() < most) {
                Some(group) => group.push(target),
                None => {
                    *open = Some(groups.len());
                    groups.push(vec![target]);
                }
            }
        }
        Plan { calls: groups.into_iter().map(|group| self.call(group)).collect(), refused }
    }

    fn interpret(&self, call: &Call, reply: &Response<Bytes>) -> Reading {
        match reply.status() {
            StatusCode::OK => processed(call, reply),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                refused(FaultCode::UpstreamValidation, call, reply)
            }
            StatusCode::PRECONDITION_FAILED => refused(FaultCode::UpstreamPrecondition, call, reply),
            // 404 is about the list, never about a contact: what any 404 means.
            _ => with_word(reply::by_status(reply), call, reply),
        }
    }

    fn contacts_of(&self, request: &Request<Bytes>) -> Option<Vec<Identifier>> {
        let items: Vec<Object<wire::Asked>> = body_of_route(request, &Method::DELETE, &self.uri)?;
        let identifiers: Vec<_> = items.into_iter().map(|Object(item)| item.identifier()).collect::<Option<_>>()?;
        let kind = identifiers.first()?.kind();
        let one_kind = identifiers.iter().all(|identifier| identifier.kind() == kind);
        PROFILE.all_admitted(identifiers).filter(|_| one_kind)
    }

    fn max_contacts_per_call(&self) -> usize {
        self.max_contacts_per_call
    }

    fn sign_in(&self) -> Option<&dyn SignIn> {
        Some(self)
    }
}

impl SignIn for Talkdesk {
    fn request(&self, account: &Account<'_>) -> Result<Request<Bytes>, SettingsError> {
        let text = account.text("token_url");
        let wrong = |why: String| SettingsError::new("credentials.token_url", why);
        BaseUrl::parse(text).map_err(|err| wrong(err.message))?;
        let url = Uri::try_from(text).map_err(|_| wrong("is not a URL".to_owned()))?;
        oauth::client_credentials(&url, account.text("client_id"), account.text("client_secret"), &self.scope)
    }

    fn read(&self, reply: &Response<Bytes>) -> SignInReading {
        match oauth::read(reply) {
            SignInReading::Token { value, lifetime_s } => {
                SignInReading::Token { value, lifetime_s: lifetime_s.or(Some(TOKEN_LIFE_S)) }
            }
            other => other,
        }
    }
}

impl Talkdesk {
    fn call(&self, targets: Vec<Target>) -> Call {
        let mut request = Request::new(Bytes::from(wire::to_json(&targets)));
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/hal+json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Call { request, targets }
    }
}

fn processed(call: &Call, reply: &Response<Bytes>) -> Reading {
    let Some(body) = reply::json::<wire::Response>(reply) else {
        return Reading::unreadable(FaultCode::ResponseUnreadable, reply);
    };
    if body.total_deleted.is_none() && body.total_errors.is_none() {
        return Reading::Processed(Processed::nothing_said(call, reply));
    }
    match call.targets.first().map(|target| target.identifier.kind()) {
        Some(IdentifierKind::Id) => by_id(call, reply, &body),
        _ => by_totals(call, reply, &body),
    }
}

/// Failures are named, successes only counted: the contacts that are not named are deleted if the count is theirs.
fn by_id(call: &Call, reply: &Response<Bytes>, body: &wire::Response) -> Reading {
    let fault = |code| Finding::Fault(Fault::of_reply(code, reply));
    let mut failed = vec![false; call.targets.len()];
    let mut roster = Roster::new(call);
    for record in body.failed_records() {
        let position = record.id.as_deref().and_then(|id| roster.find(id));
        match position.and_then(|position| failed.get_mut(position)) {
            Some(place) => *place = true,
            // A failure of a record that was not sent: these totals are not about our contacts alone.
            None => return Reading::for_all(call, &fault(FaultCode::ResponseContradictory)),
        }
    }
    let listed = failed.iter().filter(|failed| **failed).count();
    if body.total_errors.is_some_and(|errors| errors != listed as u64) {
        return Reading::for_all(call, &fault(FaultCode::ResponseContradictory));
    }
    let others = (call.targets.len() - listed) as u64;
    let other = match body.total_deleted {
        Some(deleted) if deleted == others => Finding::Deleted(Evidence::Aggregate),
        None => fault(FaultCode::ResponseIncomplete),
        // Nothing is said of the only contact.
        Some(0) if call.targets.len() == 1 => fault(FaultCode::ResponseIncomplete),
        Some(_) => fault(FaultCode::ResponseContradictory),
    };
    let mut processed = Processed::all(call, &other);
    for (position, _) in failed.iter().enumerate().filter(|(_, failed)| **failed) {
        let fault = Fault::of_reply(FaultCode::UpstreamUnspecified, reply).named();
        processed.put(position, Finding::Fault(fault));
    }
    Reading::Processed(processed)
}

/// By phone or external id, failures are named by record ids that the call does not know: only totals can be read.
fn by_totals(call: &Call, reply: &Response<Bytes>, body: &wire::Response) -> Reading {
    let fault = |code| Finding::Fault(Fault::of_reply(code, reply));
    // Totals that cover the whole call say this, not the status.
    let failed = || {
        let fault = Fault::of_reply(FaultCode::UpstreamUnspecified, reply);
        Finding::Fault(Fault { evidence: Evidence::Aggregate, ..fault })
    };
    let sent = call.targets.len() as u64;
    let listed = body.records_listed();
    let finding = match (body.total_deleted, body.total_errors.unwrap_or(listed)) {
        _ if body.total_errors.is_none() && listed == 0 && body.has_errors == Some(true) => {
            fault(FaultCode::ResponseContradictory)
        }
        (_, 0) if listed > 0 => fault(FaultCode::ResponseContradictory),
        // One identifier may match several records: it is gone only if none of them failed.
        (Some(1..), 0) if sent == 1 => Finding::Deleted(Evidence::Aggregate),
        (_, 1..) if sent == 1 => failed(),
        (Some(deleted), 0) if deleted == sent => Finding::Deleted(Evidence::Aggregate),
        (Some(0), errors) if errors == sent => failed(),
        _ => fault(FaultCode::ResponseIncomplete),
    };
    Reading::for_all(call, &finding)
}

/// Talkdesk refuses the whole call in its error envelope; without it, something in between answered.
fn refused(code: FaultCode, call: &Call, reply: &Response<Bytes>) -> Reading {
    let ours = reply::json::<wire::Error<'_>>(reply).is_some();
    let code = if ours { code } else { FaultCode::UpstreamMisconfigured };
    with_word(Reading::turned_away(code, reply), call, reply)
}

/// Adds the upstream's own code, if the reply has the error envelope.
fn with_word(mut reading: Reading, call: &Call, reply: &Response<Bytes>) -> Reading {
    use TurnedAway as T;
    if let Some(error) = reply::json::<wire::Error<'_>>(reply)
        && let Reading::TurnedAway(T::Credential(fault) | T::Throttled(fault) | T::Fault(fault))
        | Reading::Unreadable(fault) = &mut reading
    {
        *fault = fault.clone().word(Some(&error.code), call);
    }
    reading
}
