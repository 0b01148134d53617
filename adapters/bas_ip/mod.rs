//! BAS-IP intercom monitors, the device's own HTTP API: one DELETE with a list of link ids, answered by one result for each.
//!
//! Vendor page: <https://developers.bas-ip.com/camdroid-monitors/1.1.1/delete-contacts-by-theirs-uids>.

mod double;
#[cfg(test)]
mod tests;
mod wire;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::{
    Call, Evidence, Fault, FaultCode, Finding, Identifier, IdentifierKind, Plan, Processed, Reading, Target,
    TurnedAway, Wait,
};
use crate::dialect::{
    Account, AuthScheme, CredentialForm, Dialect, Grant, IdentifierRule, Member, Profile, Registration, Roster,
    SettingsError, SignIn, SignInReading, batch_size, body_of_route, groups, read_settings,
};
use crate::reply::Object;
use crate::url::BaseUrl;
use crate::{grammar, reply};

/// The line for `DIALECTS`.
///
/// The double also signs in the user `admin` with the password `door-demo-password`, for
/// `credentials = { username = "admin", password = "plain:door-demo-password" }`.
pub(crate) const DIALECT: Registration = Registration {
    profile: &PROFILE,
    open,
    example: r#"
dialect = "bas_ip"
base_url = "http://192.0.2.10/api/v0"
allow_http = true
allow_private = true
credentials = { token = "plain:93144b288eb1fd3cbe46d6fc0f241a51766ecd3d" }
"#,
    double: double::new,
    fixtures: &[include_str!("fixtures/exchanges.json")],
};

static PROFILE: Profile = Profile {
    id: "bas_ip",
    title: "BAS-IP intercom monitors",
    docs: &[
        "https://developers.bas-ip.com/camdroid-monitors/1.1.1/delete-contacts-by-theirs-uids",
        "https://developers.bas-ip.com/android-panels/login-user",
        "https://developers.bas-ip.com/android-panels/delete-multiple-user-entities-with-link-id",
    ],
    style: "DELETE …/contacts/items/link with {\"link_ids\":[…]}",
    // A device holds at most 300 contacts.
    max_contacts_per_call: 300,
    contacts_per_call_ceiling: 300,
    identifiers: &[IdentifierRule {
        kind: IdentifierKind::Id,
        syntax: "a UUID, the contact's link_id",
        replay_safe: true,
        accepts: grammar::uuid_id,
        case_blind: true,
    }],
    pace: None,
    auth: AuthScheme {
        header: "authorization",
        prefix: "Bearer ",
        forms: &[
            CredentialForm { members: &[Member { name: "token", secret: true }], grant: Grant::Fixed },
            CredentialForm {
                members: &[Member { name: "username", secret: false }, Member { name: "password", secret: true }],
                grant: Grant::SignIn,
            },
        ],
    },
    evidence: &[Evidence::Item],
    assumptions: &[
        "The method and path of the call are not published: `method` and `path`, by default DELETE and contacts/items/link.",
        "The sign-in differs by firmware: `login_method` and `login_path`, by default GET and login.",
        "A password is sent as its MD5 in lower-case hexadecimal; the vendor's newest sample does not show which form it has.",
        "A device holds at most 300 contacts, so a call names at most 300.",
        "`not_found`, printed for sibling calls, means what `entity_not_found` means.",
        "An error with a code that is not listed, or without one, refuses the call under 400, 412 and 422.",
    ],
};

/// A token holds for two hours and cannot be renewed, only replaced.
const TOKEN_LIFE_S: u64 = 7200;

/// What RFC 3986, section 2.3, leaves as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const JSON: HeaderValue = HeaderValue::from_static("application/json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    base_url: String,
    path: Option<String>,
    method: Option<String>,
    login_path: Option<String>,
    login_method: Option<String>,
    max_contacts_per_call: Option<usize>,
}

#[derive(Debug)]
struct BasIp {
    method: Method,
    uri: Uri,
    login_method: Method,
    login_uri: Uri,
    max_contacts_per_call: usize,
}

fn open(settings: Value) -> Result<Box<dyn Dialect>, SettingsError> {
    let settings: Settings = read_settings(settings)?;
    let base = BaseUrl::parse(&settings.base_url)?;
    let route = |path: Option<&str>, default, key| {
        let segments: Vec<_> = path.unwrap_or(default).split('/').collect();
        base.route(&segments, key)
    };
    let changes = [Method::DELETE, Method::POST, Method::PUT, Method::PATCH];
    let sign_ins = [Method::GET, Method::POST, Method::PUT, Method::PATCH];
    Ok(Box::new(BasIp {
        method: one_of(settings.method.as_deref(), changes, "method")?,
        uri: route(settings.path.as_deref(), "contacts/items/link", "path")?,
        login_method: one_of(settings.login_method.as_deref(), sign_ins, "login_method")?,
        login_uri: route(settings.login_path.as_deref(), "login", "login_path")?,
        max_contacts_per_call: batch_size(settings.max_contacts_per_call, &PROFILE)?,
    }))
}

/// The method that a setting names; the first of those allowed, unless it names one.
fn one_of(asked: Option<&str>, allowed: [Method; 4], key: &str) -> Result<Method, SettingsError> {
    let message = format!("must be one of {}", allowed.each_ref().map(Method::as_str).join(", "));
    let mut fitting = allowed.into_iter().filter(|method| asked.is_none_or(|asked| asked == method.as_str()));
    fitting.next().ok_or_else(|| SettingsError::new(key, message))
}

impl Dialect for BasIp {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn plan(&self, targets: Vec<Target>) -> Plan {
        let (sendable, refused) = PROFILE.sift(targets);
        let calls = groups(sendable, self.max_contacts_per_call).map(|group| self.call(group)).collect();
        Plan { calls, refused }
    }

    fn interpret(&self, call: &Call, reply: &Response<Bytes>) -> Reading {
        let status = reply.status();
        let readable = wire::Envelope::of(reply);
        if readable.is_none() && status == StatusCode::OK {
            // Two errors in one body are none that could be left out of account.
            return Reading::unreadable(FaultCode::ResponseUnreadable, reply);
        }
        let envelope = readable.unwrap_or_default();
        let fault = |code| Fault::of_reply(code, reply).word(envelope.code(), call);
        // The code decides before the status: `system_error` may stand under 400.
        match envelope.code() {
            Some("system_error") => {
                let wait = reply::retry_after(reply.headers());
                return Reading::Unreadable(fault(FaultCode::UpstreamError).wait(wait));
            }
            Some("invalid_authentication") if status.is_client_error() => {
                return Reading::TurnedAway(TurnedAway::Credential(fault(FaultCode::UpstreamUnauthenticated)));
            }
            Some("permission_denied") if status.is_client_error() => {
                return Reading::TurnedAway(TurnedAway::Fault(fault(FaultCode::UpstreamForbidden)));
            }
            _ => {}
        }
        match status {
            StatusCode::OK if envelope.is_error() => Reading::Unreadable(fault(FaultCode::ResponseContradictory)),
            StatusCode::OK => processed(call, reply),
            // `not_valid`, or the bare text of other firmware. Without an envelope something in between answered.
            StatusCode::BAD_REQUEST | StatusCode::PRECONDITION_FAILED | StatusCode::UNPROCESSABLE_ENTITY
                if envelope.is_error() =>
            {
                Reading::TurnedAway(TurnedAway::Fault(fault(FaultCode::UpstreamValidation)))
            }
            StatusCode::TOO_MANY_REQUESTS => reply::throttled(wait(&envelope, reply), reply),
            _ => reply::by_status(reply),
        }
    }

    fn contacts_of(&self, request: &Request<Bytes>) -> Option<Vec<Identifier>> {
        let body: Object<wire::Asked> = body_of_route(request, &self.method, &self.uri)?;
        PROFILE.ids(body.0.link_ids)
    }

    fn max_contacts_per_call(&self) -> usize {
        self.max_contacts_per_call
    }

    fn sign_in(&self) -> Option<&dyn SignIn> {
        Some(self)
    }
}

impl SignIn for BasIp {
    fn request(&self, account: &Account<'_>) -> Result<Request<Bytes>, SettingsError> {
        let username = account.text("username");
        let password = md5_hex(account.text("password"));
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = self.login_method.clone();
        request.headers_mut().insert(ACCEPT, JSON);
        if self.login_method == Method::GET {
            let username = utf8_percent_encode(username, QUERY);
            let uri = format!("{}?username={username}&password={password}", self.login_uri);
            *request.uri_mut() =
                Uri::try_from(uri).map_err(|_| SettingsError::new("credentials", "cannot be put into a URL"))?;
        } else {
            *request.uri_mut() = self.login_uri.clone();
            *request.body_mut() = wire::to_json(&wire::Login { username, password: &password });
            request.headers_mut().insert(CONTENT_TYPE, JSON);
        }
        Ok(request)
    }

    fn is_a_device(&self) -> bool {
        true
    }

    fn read(&self, reply: &Response<Bytes>) -> SignInReading {
        let envelope = wire::Envelope::of(reply).unwrap_or_default();
        if envelope.code() == Some("system_error") {
            return SignInReading::Unusable;
        }
        match reply.status() {
            StatusCode::OK => match wire::Token::of(reply) {
                // Anything else would not fit into a header.
                Some(value) if grammar::is_visible_ascii(&value) => {
                    SignInReading::Token { value, lifetime_s: Some(TOKEN_LIFE_S) }
                }
                _ => SignInReading::Unusable,
            },
            // A wrong password is 400 here. Whoever may have answered it: five tries lock the gateway's address out.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SignInReading::Refused,
            StatusCode::TOO_MANY_REQUESTS => SignInReading::Throttled(wait(&envelope, reply)),
            _ => SignInReading::Unusable,
        }
    }
}

impl BasIp {
    fn call(&self, targets: Vec<Target>) -> Call {
        let mut request = Request::new(wire::request(&targets));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(ACCEPT, JSON);
        request.headers_mut().insert(CONTENT_TYPE, JSON);
        Call { request, targets }
    }
}

fn processed(call: &Call, reply: &Response<Bytes>) -> Reading {
    let Some(results) = wire::Results::of(reply) else {
        return Reading::unreadable(FaultCode::ResponseUnreadable, reply);
    };
    let contradiction = || Finding::Fault(Fault::of_reply(FaultCode::ResponseContradictory, reply));
    let mut said: Vec<Option<Finding>> = vec![None; call.targets.len()];
    let mut roster = Roster::new(call);
    for item in results {
        // `link_id` is null by default, and then the item names nobody.
        let position = item.link_id.text().and_then(|id| roster.find(id));
        let Some(place) = position.and_then(|position| said.get_mut(position)) else { continue };
        let finding = finding(&item, call, reply);
        *place = Some(match (place.take(), finding) {
            (None, finding) => finding,
            (Some(earlier), finding) if earlier == finding => finding,
            // The vendor's own example for an id that stands twice in a call.
            (Some(Finding::Deleted(how)), Finding::NotFound(_))
            | (Some(Finding::NotFound(_)), Finding::Deleted(how)) => Finding::Deleted(how),
            _ => contradiction(),
        });
    }
    let silent = Finding::Fault(Fault::of_reply(FaultCode::ResponseIncomplete, reply));
    Reading::Processed(Processed::said(call, said, &silent))
}

/// What one item says. Only `success: true` and `deleted` together are proof.
fn finding(item: &wire::Item<'_>, call: &Call, reply: &Response<Bytes>) -> Finding {
    let info = item.extended_info.text();
    let code = match (item.success.flag(), info) {
        (Some(true), Some("deleted")) => return Finding::Deleted(Evidence::Item),
        (Some(false), Some("entity_not_found" | "not_found")) => return Finding::NotFound(Evidence::Item),
        (Some(true), Some(_)) | (Some(false), Some("deleted")) => FaultCode::ResponseContradictory,
        (Some(false), _) => FaultCode::UpstreamUnspecified,
        (Some(true), None) | (None, _) => FaultCode::ResponseIncomplete,
    };
    Finding::Fault(Fault::of_reply(code, reply).named().word(info, call))
}

/// The body's `seconds`, which the vendor documents, before a Retry-After, which it does not.
fn wait(envelope: &wire::Envelope<'_>, reply: &Response<Bytes>) -> Option<Wait> {
    envelope.seconds().map(Wait::For).or_else(|| reply::retry_after(reply.headers()))
}

/// The form in which the device wants a password. It protects nothing: whoever reads it can sign in with it.
fn md5_hex(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
