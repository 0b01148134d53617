//! The credential of a registration's example, for tests and benches that talk to a double without a gateway.
//!
//! Not how the gateway does it: a token that is signed here never ends, and a sign-in is neither kept nor renewed.

use adapters::{Account, Dialect, Grant, Registration, SignInReading};
use bytes::Bytes;
use http::{Request, Response};

/// The request with a credential that the double accepts. `ask` carries out a sign-in, where the dialect has one.
pub(super) fn with_credential(
    registration: &Registration,
    dialect: &dyn Dialect,
    connection: &toml::Table,
    mut request: Request<Bytes>,
    ask: impl FnOnce(Request<Bytes>) -> Response<Bytes>,
) -> Request<Bytes> {
    let credentials = connection["credentials"].as_table().unwrap();
    let form = registration.profile.auth.forms.iter().find(|form| {
        form.members.len() == credentials.len() && form.members.iter().all(|m| credentials.contains_key(m.name))
    });
    let form = form.unwrap();
    let plain = |name: &str| {
        let text = credentials[name].as_str().unwrap();
        text.strip_prefix("plain:").unwrap_or(text)
    };
    let value = match &form.grant {
        Grant::Fixed => plain(form.members[0].name).to_owned(),
        Grant::SignedJwt { id_claim, .. } => signed_jwt(id_claim, plain("client_id"), plain("client_secret")),
        Grant::SignIn => {
            let members: Vec<_> = form.members.iter().map(|m| (m.name, plain(m.name))).collect();
            let sign_in = dialect.sign_in().unwrap();
            let reading = sign_in.read(&ask(sign_in.request(&Account(&members)).unwrap()));
            let SignInReading::Token { value, .. } = reading else { panic!("{reading:?}") };
            value
        }
    };
    let value = format!("{}{value}", registration.profile.auth.prefix);
    request.headers_mut().insert(registration.profile.auth.header, value.parse().unwrap());
    request
}

/// A JSON Web Token with one claim and no end, signed with HS256 (RFC 7515, section 5.1).
pub(crate) fn signed_jwt(id_claim: &str, client_id: &str, secret: &str) -> String {
    use aws_lc_rs::hmac;
    use base64::Engine;
    let part = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let json = |json: serde_json::Value| part(json.to_string().as_bytes());
    let (header, payload) = (serde_json::json!({ "alg": "HS256" }), serde_json::json!({ (id_claim): client_id }));
    let signed = format!("{}.{}", json(header), json(payload));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", part(signature.as_ref()))
}

/// The dialect of a connection's table.
pub(super) fn open(registration: &Registration, connection: &toml::Table) -> Box<dyn Dialect> {
    let mut settings = connection.clone();
    for key in ["dialect", "credentials", "allow_http", "allow_private"] {
        settings.remove(key);
    }
    (registration.open)(serde_json::to_value(settings).unwrap()).unwrap()
}

/// The `n`-th of many native ids that the dialect takes.
pub(super) fn some_id(registration: &Registration, n: usize) -> adapters::Identifier {
    let forms = [format!("{}", n + 7_000_001), format!("{n:024x}"), format!("91c615e3-1040-4815-8ecb-{n:012x}")];
    let mut ids = forms.into_iter().map(|text| adapters::Identifier::Id(text.into()));
    ids.find(|id| registration.profile.admit(id).is_ok()).unwrap()
}
