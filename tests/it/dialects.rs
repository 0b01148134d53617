//! Every recorded exchange of every dialect through the running gateway: what reaches an upstream, and what the caller is told.
//!
//! The laws in `adapters/conformance.rs` hold the same fixtures against the pure functions; here nothing is called,
//! everything is sent. Nothing here reads a log or a `Debug` text. A new fixture needs no new test.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use adapters::exchange::{Exchange, Exchanges, WireRequest};
use adapters::{CredentialForm, DIALECTS, FaultCode, Grant, Outcome, Registration};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use http::{Method, Response};
use onedelete::mock::{Entry, Mock};
use serde_json::{Value, json};

use crate::support::{Answer, Setup, attempts, id, ids, mock, table};

/// How many exchanges each dialect has at least: one that is lost is missed, a new one needs no line here.
const AT_LEAST: &[(&str, usize)] =
    &[("bas_ip", 14), ("kore_ai", 12), ("onlyoffice", 12), ("talkdesk", 18), ("wethod", 14)];

/// What a scripted sign-in hands out.
const TOKEN: &str = "token-of-the-scripted-sign-in";

/// The headers that the gateway may send besides those of a fixture.
const OWN_HEADERS: &[&str] = &["accept", "accept-encoding", "content-length", "host", "user-agent"];

/// One exchange with everything that belongs to it: a tenant, a connection and an upstream of its own, so that no
/// breaker, pace or token can reach from one to another.
struct Case {
    registration: &'static Registration,
    exchange: Exchange,
    tenant: String,
    connection: toml::Table,
    upstream: Mock,
}

#[tokio::test]
async fn every_recorded_exchange_goes_through_the_gateway_as_it_was_recorded() {
    let mut setup = Setup::new();
    let mut cases = Vec::new();
    for registration in DIALECTS {
        for exchange in exchanges(registration.profile.id) {
            let case = Case::stage(registration, exchange).await;
            setup = setup.connection(&case.tenant, "c", case.connection.clone());
            cases.push(case);
        }
    }
    let gateway = setup.start().await;
    let asking = cases.iter().map(|case| async { gateway.post(&case.tenant, &case.body()).await });
    let answers = tokio::time::timeout(Duration::from_secs(20), join_all(asking)).await.expect("all answers in time");
    // Once it has stopped, nothing more can arrive.
    gateway.stop().await;

    let mut ran: BTreeMap<&str, usize> = BTreeMap::new();
    for (case, answer) in cases.iter().zip(&answers) {
        case.check_sent();
        case.check_told(answer);
        *ran.entry(case.registration.profile.id).or_default() += 1;
    }
    for (dialect, least) in AT_LEAST {
        assert!(ran.get(dialect) >= Some(least), "{dialect}: {ran:?}");
    }
    assert!(ran.values().sum::<usize>() >= 70 && ran.len() == DIALECTS.len(), "{ran:?}");
    for case in cases {
        case.upstream.stop().await;
    }
}

#[tokio::test]
async fn a_dry_run_sends_nothing_not_even_a_sign_in() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let mock = mock(dialect).await;
        let gateway = Setup::new().mock("acme", "c", &mock, sign_in_if_possible);
        let gateway = gateway.start().await;
        let known = ids(dialect, 3);
        mock.seed(&id(&known[0]), false);
        let answer = gateway.post("acme", &json!({ "contacts": known, "dry_run": true })).await;
        gateway.stop().await;
        assert_eq!((answer.status, answer.outcomes()), (200, vec!["would_delete"; 3]), "{dialect}: {}", answer.text);
        assert!(mock.journal().is_empty(), "{dialect}: {:?}", mock.journal());
        assert!(mock.holds(&id(&known[0])), "{dialect}");
        mock.stop().await;
    }
}

/// Takes the form of credentials that has most to send before a delete.
fn sign_in_if_possible(connection: &mut toml::Table) {
    if connection["dialect"].as_str() == Some("bas_ip") {
        connection.insert("credentials".to_owned(), door_account().into());
    }
}

/// The account that the double of `bas_ip` knows.
fn door_account() -> toml::Table {
    "username = \"admin\"\npassword = \"plain:door-demo-password\"".parse().unwrap()
}

/// All fixtures of a dialect.
fn exchanges(dialect: &str) -> Vec<Exchange> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("adapters").join(dialect).join("fixtures");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file| serde_json::from_slice::<Exchanges>(&std::fs::read(file).unwrap()).unwrap();
    files.into_iter().map(read).inspect(|file| assert_eq!(file.dialect, dialect)).flat_map(|f| f.exchanges).collect()
}

/// Whether the recorded exchange is a sign-in: then it is one that fails, and no delete follows.
fn is_sign_in(exchange: &Exchange) -> bool {
    exchange.outcomes.iter().any(|expected| expected.error == Some(FaultCode::CredentialUnavailable))
}

impl Case {
    async fn stage(registration: &'static Registration, exchange: Exchange) -> Self {
        let recorded = exchange.response.as_ref().map(|response| response.to_http().unwrap());
        let sign_in_is_recorded = is_sign_in(&exchange);
        let upstream = mock(registration.profile.id).await;
        upstream.answer_with(move |arrived| match &recorded {
            Some(recorded) if (arrived.method != Method::DELETE) == sign_in_is_recorded => Some(recorded.clone()),
            _ if arrived.method != Method::DELETE => Some(token()),
            // Nothing is recorded for it, so it must not come; the journal tells of it.
            _ => Some(Response::new(bytes::Bytes::new())),
        });

        let mut connection = upstream.connection_toml();
        connection.extend(toml::Table::try_from(&exchange.settings).unwrap());
        table(&mut connection, "limits").insert("rate".to_owned(), "off".into());
        attempts(1)(&mut connection);
        if registration.profile.id == "bas_ip" && sign_in_is_recorded {
            connection.insert("credentials".to_owned(), door_account().into());
            connection.insert("login_method".to_owned(), "POST".into());
        }
        let tenant = format!("{}-{}", registration.profile.id, exchange.name);
        Self { registration, exchange, tenant, connection, upstream }
    }

    fn body(&self) -> Value {
        let contacts = self.exchange.contacts.iter().enumerate().map(|(n, contact)| {
            let mut contact = serde_json::to_value(contact).unwrap();
            contact["ref"] = format!("row-{n}").into();
            contact
        });
        json!({ "contacts": contacts.collect::<Vec<_>>() })
    }

    /// What reached the upstream, compared with what was recorded.
    fn check_sent(&self) {
        let name = &self.tenant;
        let (deletes, sign_ins): (Vec<_>, Vec<_>) =
            self.upstream.journal().into_iter().partition(|arrived| arrived.method == Method::DELETE);
        let Some(request) = &self.exchange.request else {
            assert!(deletes.is_empty() && sign_ins.is_empty(), "{name}: something was sent");
            return;
        };
        let signs_in = matches!(self.credential_form().grant, Grant::SignIn);
        assert_eq!(sign_ins.len(), usize::from(signs_in), "{name}: sign-ins");
        if is_sign_in(&self.exchange) {
            assert!(deletes.is_empty(), "{name}: a delete followed a failed sign-in");
            self.check_sign_in(&sign_ins[0], request);
        } else {
            assert_eq!(deletes.len(), 1, "{name}: deletes");
            self.check_request(&deletes[0], request);
            assert_eq!(deletes[0].path, request.path, "{name}: path");
            assert_eq!(body_of(&deletes[0], request), request.body, "{name}: body");
            self.check_credential(&deletes[0], request);
        }
    }

    /// Method, headers and framing: what holds for deletes and sign-ins alike.
    fn check_request(&self, arrived: &Entry, request: &WireRequest) {
        let name = &self.tenant;
        assert_eq!(arrived.method, request.method.as_str(), "{name}: method");
        for (header, value) in request.headers.iter().filter(|(header, _)| !is_credential(header)) {
            assert_eq!(only(arrived, header), value, "{name}: {header}");
        }
        for header in arrived.headers.keys().map(http::HeaderName::as_str) {
            let expected = OWN_HEADERS.contains(&header) || request.headers.contains_key(header);
            assert!(expected, "{name}: {header} is in no fixture");
        }
        for header in ["referer", "cookie"] {
            assert!(!arrived.headers.contains_key(header), "{name}: {header}");
        }
        assert_eq!(only(arrived, "accept-encoding"), "identity", "{name}");
        assert_eq!(only(arrived, "host"), self.upstream.addr().to_string(), "{name}");
        if request.body.is_null() {
            assert!(arrived.body.is_empty(), "{name}: a body");
        } else {
            assert_eq!(only(arrived, "content-length"), arrived.body.len().to_string(), "{name}");
        }
    }

    /// The recorded credential is a placeholder: its scheme counts, and that the connection's own stands there.
    fn check_credential(&self, arrived: &Entry, request: &WireRequest) {
        let name = &self.tenant;
        let auth = &self.registration.profile.auth;
        let shown = only(arrived, auth.header);
        assert_eq!(scheme(shown), scheme(&request.headers[auth.header]), "{name}: scheme");
        let shown = shown.rsplit(' ').next().unwrap();
        match self.credential_form().grant {
            Grant::Fixed => assert_eq!(shown, self.credential(self.credential_form().members[0].name), "{name}"),
            Grant::SignIn => assert_eq!(shown, TOKEN, "{name}"),
            Grant::SignedJwt { .. } => {
                check_jwt(shown, self.credential("client_id"), self.credential("client_secret"), name);
            }
        }
    }

    fn check_sign_in(&self, arrived: &Entry, request: &WireRequest) {
        let name = &self.tenant;
        self.check_request(arrived, request);
        let body = body_of(arrived, request);
        match self.registration.profile.id {
            // The recorded path is inferred, and a setting.
            "bas_ip" => {
                // MD5 of the password, by another program than this one.
                let account = json!({ "username": "admin", "password": "92f151502b518b3f990215efdccfed07" });
                assert_eq!(body, account, "{name}: body");
                assert!(!arrived.headers.contains_key("authorization"), "{name}: a credential before there is one");
            }
            _ => {
                assert_eq!(arrived.path, request.path, "{name}: path");
                assert_eq!(body, request.body, "{name}: body");
                let client = format!("{}:{}", self.credential("client_id"), self.credential("client_secret"));
                assert_eq!(only(arrived, "authorization"), format!("Basic {}", STANDARD.encode(client)), "{name}");
                assert_eq!(scheme(&request.headers["authorization"]), "Basic", "{name}");
            }
        }
    }

    /// What the gateway answered, compared with the recorded outcomes.
    fn check_told(&self, answer: &Answer) {
        let (name, expected) = (&self.tenant, &self.exchange.outcomes);
        let absent = |outcome: Outcome| matches!(outcome, Outcome::Deleted | Outcome::NotFound);
        let all_absent = expected.iter().all(|expected| absent(expected.outcome));
        assert_eq!(answer.status, if all_absent { 200 } else { 207 }, "{name}: {}", answer.text);
        assert_eq!(answer.json["state"], "finished", "{name}");

        let results = answer.json["results"].as_array().unwrap();
        assert_eq!(results.len(), self.exchange.contacts.len(), "{name}: one result for every contact");
        assert_eq!(results.len(), expected.len(), "{name}: the fixture's own");
        // A sign-in that fails is an attempt too, though nothing was sent for the contact.
        let tried = usize::from(self.exchange.request.is_some());
        for (n, (result, expected)) in results.iter().zip(expected).enumerate() {
            assert_eq!((&result["index"], &result["ref"]), (&json!(n), &json!(format!("row-{n}"))), "{name}");
            assert_eq!(result["outcome"], expected.outcome.as_str(), "{name} {n}: {result}");
            let code = expected.error.map_or(Value::Null, |code| code.as_str().into());
            assert_eq!(result["error"]["code"], code, "{name} {n}: {result}");
            assert_eq!(result["absent"] == true, absent(expected.outcome), "{name} {n}: {result}");
            assert_eq!(result["attempts"], tried, "{name} {n}: {result}");
            assert_eq!(result["retry"] == "after", !result["retry_after_s"].is_null(), "{name} {n}: {result}");
            if let Some(wait_s) = self.exchange.retry_after_s {
                assert_eq!(result["retry_after_s"], wait_s, "{name} {n}: {result}");
            }
        }

        let counts = answer.json["counts"].as_object().unwrap();
        assert_eq!(counts["requested"], results.len(), "{name}: {counts:?}");
        assert_eq!(counts.len(), 1 + Outcome::ALL.len(), "{name}: {counts:?}");
        for outcome in Outcome::ALL {
            let among = expected.iter().filter(|expected| expected.outcome == outcome).count();
            assert_eq!(counts[outcome.as_str()], among, "{name}: {counts:?}");
        }
    }

    /// The form that the connection's credentials have.
    fn credential_form(&self) -> &'static CredentialForm {
        let credentials = self.connection["credentials"].as_table().unwrap();
        let forms = self.registration.profile.auth.forms;
        let fits = |form: &&CredentialForm| form.members.iter().all(|member| credentials.contains_key(member.name));
        forms.iter().find(fits).unwrap()
    }

    /// A member of the connection's credentials, in the clear.
    fn credential(&self, member: &str) -> &str {
        let text = self.connection["credentials"][member].as_str().unwrap();
        text.strip_prefix("plain:").unwrap_or(text)
    }
}

/// The answer to a sign-in that succeeds.
fn token() -> Response<bytes::Bytes> {
    let body = json!({ "access_token": TOKEN, "token_type": "Bearer", "expires_in": 600 });
    Response::builder().header("content-type", "application/json").body(body.to_string().into()).unwrap()
}

/// The one value of a header.
fn only<'a>(arrived: &'a Entry, header: &str) -> &'a str {
    let mut values = arrived.headers.get_all(header).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().unwrap(),
        _ => panic!("{} {}: not one {header}", arrived.method, arrived.path),
    }
}

fn is_credential(header: &str) -> bool {
    header == "authorization" || header == "auth"
}

/// What stands before a credential; nothing where it stands alone, as a placeholder in `<…>` does.
fn scheme(value: &str) -> &str {
    if value.starts_with('<') { "" } else { value.split_once(' ').map_or("", |(scheme, _)| scheme) }
}

/// A body in the form in which the fixture has it: nothing, the text of a form, or JSON.
fn body_of(arrived: &Entry, request: &WireRequest) -> Value {
    match &request.body {
        Value::Null if arrived.body.is_empty() => Value::Null,
        Value::String(_) => std::str::from_utf8(&arrived.body).unwrap().into(),
        _ => serde_json::from_slice(&arrived.body).unwrap(),
    }
}

/// A JSON Web Token (RFC 7519) as Kore.ai wants it, verified by hand: the gateway's own library is no witness.
fn check_jwt(token: &str, client_id: &str, client_secret: &str, name: &str) {
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{name}: {} parts", parts.len()) };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let json = |part: &str| serde_json::from_slice::<Value>(&decode(part)).unwrap();
    assert_eq!(json(header)["alg"], "HS256", "{name}");
    let claims_json = json(claims);
    assert_eq!(claims_json["appId"], client_id, "{name}");
    let seconds = |claim: &str| claims_json[claim].as_i64().unwrap_or_else(|| panic!("{name}: no {claim}"));
    let (from, until, now) = (seconds("iat"), seconds("exp"), onedelete::clock::unix_ms() / 1_000);
    assert!(from <= now && now < until && until - from <= 300, "{name}: from {from} until {until}, now {now}");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, client_secret.as_bytes());
    let signed = format!("{header}.{claims}");
    aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &decode(signature))
        .unwrap_or_else(|_| panic!("{name}: signature"));
}
