//! Toy Box, a vendor that does not exist: one DELETE with a list of names, answered by what became of each.
//!
//! It shows what a new dialect takes, and `tests/sixth_dialect.rs` holds it to the laws. No release has it.

mod double;
#[cfg(test)]
mod tests;
mod wire;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::Value;

use crate::contract::{Call, Evidence, Fault, FaultCode, Finding, Identifier, IdentifierKind, Plan, Processed, Reading, Target};
use crate::dialect::{
    AuthScheme, CredentialForm, Dialect, Grant, IdentifierRule, Member, Profile, Registration, Roster, SettingsError,
    SignIn, batch_size, body_of_route, read_settings,
};
use crate::reply::Object;
use crate::url::BaseUrl;
use crate::{grammar, reply};

/// The line for `DIALECTS`.
pub(crate) const DIALECT: Registration = Registration {
    profile: &PROFILE,
    open,
    example: r#"
dialect = "toy"
base_url = "https://toys.example.com/v1"
credentials = { token = "plain:toy-demo-token" }
"#,
    double: double::new,
    fixtures: &[include_str!("fixtures/exchanges.json")],
};

static PROFILE: Profile = Profile {
    id: "toy",
    title: "Toy Box",
    docs: &["https://toys.example.com/docs/delete-toys"],
    style: "DELETE …/toys with {\"toys\":[…]}",
    max_contacts_per_call: 10,
    contacts_per_call_ceiling: 50,
    identifiers: &[IdentifierRule {
        kind: IdentifierKind::Id,
        syntax: "a UUID",
        replay_safe: true,
        accepts: grammar::uuid_id,
        case_blind: true,
    }],
    pace: None,
    auth: AuthScheme {
        header: "x-toy-token",
        prefix: "",
        forms: &[CredentialForm { members: &[Member { name: "token", secret: true }], grant: Grant::Fixed }],
    },
    evidence: &[Evidence::Item],
    assumptions: &["A toy that the reply does not name may be gone or not."],
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    base_url: String,
    max_contacts_per_call: Option<usize>,
}

#[derive(Debug)]
struct Toy {
    uri: Uri,
    max_contacts_per_call: usize,
}

fn open(settings: Value) -> Result<Box<dyn Dialect>, SettingsError> {
    let settings: Settings = read_settings(settings)?;
    let uri = BaseUrl::parse(&settings.base_url)?.route(&["toys"], "base_url")?;
    let max_contacts_per_call = batch_size(settings.max_contacts_per_call, &PROFILE)?;
    Ok(Box::new(Toy { uri, max_contacts_per_call }))
}

impl Dialect for Toy {
    fn profile(&self) -> &'static Profile {
        &PROFILE
    }

    fn plan(&self, targets: Vec<Target>) -> Plan {
        let (sendable, refused) = PROFILE.sift(targets);
        let calls = sendable.chunks(self.max_contacts_per_call).map(|chunk| self.call(chunk)).collect();
        Plan { calls, refused }
    }

    fn interpret(&self, call: &Call, reply: &Response<Bytes>) -> Reading {
        match reply.status() {
            StatusCode::OK => processed(call, reply),
            StatusCode::BAD_REQUEST => Reading::turned_away(FaultCode::UpstreamValidation, reply),
            _ => reply::by_status(reply),
        }
    }

    fn contacts_of(&self, request: &Request<Bytes>) -> Option<Vec<Identifier>> {
        let body: Object<wire::Asked> = body_of_route(request, &Method::DELETE, &self.uri)?;
        PROFILE.ids(body.0.toys)
    }

    fn max_contacts_per_call(&self) -> usize {
        self.max_contacts_per_call
    }

    fn sign_in(&self) -> Option<&dyn SignIn> {
        None
    }
}

impl Toy {
    fn call(&self, targets: &[Target]) -> Call {
        let mut request = Request::new(wire::to_json(targets));
        *request.method_mut() = Method::DELETE;
        *request.uri_mut() = self.uri.clone();
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(ACCEPT, json.clone());
        request.headers_mut().insert(CONTENT_TYPE, json);
        Call { request, targets: targets.to_vec() }
    }
}

fn processed(call: &Call, reply: &Response<Bytes>) -> Reading {
    let Some(body) = reply::json::<wire::Response<'_>>(reply) else {
        return Reading::unreadable(FaultCode::ResponseUnreadable, reply);
    };
    let fault = |code| Finding::Fault(Fault::of_reply(code, reply).named());
    let mut said: Vec<Option<Finding>> = vec![None; call.targets.len()];
    let mut roster = Roster::new(call);
    for toy in body.toys() {
        let Some(position) = toy.name.as_deref().and_then(|name| roster.find(name)) else { continue };
        let finding = match toy.state.as_deref() {
            Some("gone") => Finding::Deleted(Evidence::Item),
            Some("never seen") => Finding::NotFound(Evidence::Item),
            Some("kept") => fault(FaultCode::UpstreamPrecondition),
            _ => fault(FaultCode::ResponseIncomplete),
        };
        // Named twice, with two states: neither counts.
        let agreed = said[position].as_ref().is_none_or(|other| *other == finding);
        said[position] = Some(if agreed { finding } else { fault(FaultCode::ResponseContradictory) });
    }
    let mut processed = Processed::nothing_said(call, reply);
    for (position, finding) in said.into_iter().enumerate() {
        if let Some(finding) = finding {
            processed.put(position, finding);
        }
    }
    Reading::Processed(processed)
}
