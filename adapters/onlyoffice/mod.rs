//! ONLYOFFICE Workspace CRM: one DELETE a contact, answered by the contact as it was.
//!
//! Vendor page: <https://api.onlyoffice.com/workspace/api-backend/usage-api/crm/contacts/delete-a-contact>.
//! What it leaves out was read in the product's public source (ONLYOFFICE/CommunityServer 12.7.1).

mod double;
#[cfg(test)]
mod tests;
mod wire;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::{
    Call, Evidence, Fault, FaultCode, Finding, Identifier, IdentifierKind, Plan, Reading, Target, TurnedAway,
};
use crate::dialect::{
    AuthScheme, CredentialForm, Dialect, Grant, IdentifierRule, Member, Profile, Registration, SettingsError, SignIn,
    read_settings,
};
use crate::url::BaseUrl;
use crate::{grammar, reply};

/// The greatest id: the vendor's ids are int32.
const MOST: u64 = i32::MAX as u64;

/// The line for `DIALECTS`.
pub(crate) const DIALECT: Registration = Registration {
    profile: &PROFILE,
    open,
    example: r#"
dialect = "onlyoffice"
base_url = "https://portal.example.com"
credentials = { token = "plain:onlyoffice-demo-token" }
"#,
    double: double::new,
    fixtures: &[include_str!("fixtures/exchanges.json")],
};

static PROFILE: Profile = Profile {
    id: "onlyoffice",
    title: "ONLYOFFICE Workspace CRM",
    docs: &[
        "https://api.onlyoffice.com/workspace/api-backend/usage-api/crm/contacts/delete-a-contact",
        "https://api.onlyoffice.com/workspace/api-backend/usage-api/crm/contacts/delete-contacts-by-parameters",
    ],
    style: "DELETE …/api/2.0/crm/contact/{id}",
    max_contacts_per_call: 1,
    contacts_per_call_ceiling: 1,
    identifiers: &[IdentifierRule {
        kind: IdentifierKind::Id,
        syntax: "a whole number from 1 to 2147483647, without sign or leading zeros",
        // A hard delete, and ids count up: a repeat cannot meet another contact.
        replay_safe: true,
        // `filter` in the id's place is a route that deletes every contact: digits alone may stand there.
        accepts: |identifier| matches!(identifier, Identifier::Id(id) if grammar::is_positive_integer(id, MOST)),
        case_blind: false,
    }],
    pace: None,
    auth: AuthScheme {
        header: "authorization",
        prefix: "",
        forms: &[CredentialForm { members: &[Member { name: "token", secret: true }], grant: Grant::Fixed }],
    },
    evidence: &[Evidence::Item],
    assumptions: &[
        "The body member `contactid` of the vendor's page is not sent: the product reads the id from the route.",
        "Replies have the envelope `status`, `statusCode`, `response` of the product's source; a success without one of them is unknown.",
        "Member names may be in camel case (source) or Pascal case (page); the id may be a number or its text.",
        "A 404 says that the contact is missing only in the vendor's envelope; another 404 is that of a portal or a route.",
        "A 403 may mean the account's rights or an invoice that names the contact: it does not prove that the contact is there.",
        "A 503 without a body comes from the portal's gate, before any work.",
        "400, 412 and 422 in the vendor's envelope refuse the request; only 400 was seen in the source.",
    ],
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    base_url: String,
}

#[derive(Debug)]
struct OnlyOffice {
    base: BaseUrl,
}

fn open(settings: Value) -> Result<Box<dyn Dialect>, SettingsError> {
    let settings: Settings = read_settings(settings)?;
    let base = BaseUrl::parse(&settings.base_url)?;
    // The longest id: what has a URL here has one for every contact.
    base.route(&segments(&MOST.to_string()), "base_url")?;
    Ok(Box::new(OnlyOffice { base }))
}

fn segments(id: &str) -> [&str; 5] {
    ["api", "2.0", "crm", "contact", id]
}

impl Dialect for OnlyOffice {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn plan(&self, targets: Vec<Target>) -> Plan {
        let (sendable, mut refused) = PROFILE.sift(targets);
        let mut calls = Vec::with_capacity(sendable.len());
        for target in sendable {
            match self.base.join(&segments(target.identifier.text())) {
                Some(uri) => calls.push(call(uri, target)),
                // Ruled out by the grammar and by `open`; what has no URL is not sent all the same.
                None => refused.push((target.slot, Fault::new(FaultCode::InvalidIdentifier))),
            }
        }
        Plan { calls, refused }
    }

    fn interpret(&self, call: &Call, reply: &Response<Bytes>) -> Reading {
        match reply.status() {
            StatusCode::OK => processed(call, reply),
            StatusCode::NOT_FOUND if is_refusal(reply) => Reading::for_all(call, &Finding::NotFound(Evidence::Status)),
            StatusCode::BAD_REQUEST | StatusCode::PRECONDITION_FAILED | StatusCode::UNPROCESSABLE_ENTITY
                if is_refusal(reply) =>
            {
                Reading::turned_away(FaultCode::UpstreamValidation, reply)
            }
            StatusCode::SERVICE_UNAVAILABLE if reply.body().is_empty() => {
                let fault = Fault::of_reply(FaultCode::UpstreamUnavailable, reply);
                Reading::TurnedAway(TurnedAway::Fault(fault.wait(reply::retry_after(reply.headers()))))
            }
            _ => reply::by_status(reply),
        }
    }

    fn contacts_of(&self, request: &Request<Bytes>) -> Option<Vec<Identifier>> {
        let (_, id) = request.uri().path().rsplit_once('/')?;
        let ours = self.base.join(&segments(id))?.path() == request.uri().path() && request.uri().query().is_none();
        // `filter` in the id's place is refused by the grammar.
        PROFILE.ids([id]).filter(|_| ours && request.method() == Method::DELETE)
    }

    fn max_contacts_per_call(&self) -> usize {
        1
    }

    fn sign_in(&self) -> Option<&dyn SignIn> {
        None
    }
}

fn call(uri: Uri, target: Target) -> Call {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = Method::DELETE;
    *request.uri_mut() = uri;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    Call { request, targets: vec![target] }
}

/// 200: deleted if the envelope says so twice, and names the contact that was asked for.
fn processed(call: &Call, reply: &Response<Bytes>) -> Reading {
    let Some(body) = reply::json::<wire::Envelope<'_>>(reply) else {
        return Reading::unreadable(FaultCode::ResponseUnreadable, reply);
    };
    if !body.says_something() {
        return Reading::unreadable(FaultCode::ResponseUnreadable, reply);
    }
    let denies =
        body.error.is_some() || body.status.is_some_and(|s| s != 0) || body.status_code.is_some_and(|code| code != 200);
    // A call has one contact; every id in the reply must be its own, under whatever name it stands there.
    let names_another = body.ids().any(|id| call.targets.iter().any(|target| !id.is(target.identifier.text())));
    if denies || names_another {
        return Reading::unreadable(FaultCode::ResponseContradictory, reply);
    }
    if body.status.is_none() || body.status_code.is_none() || body.ids().next().is_none() {
        return Reading::unreadable(FaultCode::ResponseIncomplete, reply);
    }
    Reading::for_all(call, &Finding::Deleted(Evidence::Item))
}

/// Whether this is the vendor's own error envelope, for the very status under which it came.
fn is_refusal(reply: &Response<Bytes>) -> bool {
    reply::json::<wire::Envelope<'_>>(reply).is_some_and(|body| {
        let same_status = body.status_code == Some(reply.status().as_u16().into());
        body.status == Some(1) && same_status && body.response.is_none()
    })
}
