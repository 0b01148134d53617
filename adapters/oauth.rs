//! The OAuth 2.0 client credentials grant (RFC 6749, section 4.4), as a request and a reading.
//!
//! The token endpoint has its own error envelope (section 5.2), unlike that of the API behind it.

use std::borrow::Cow;

use base64::Engine;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::dialect::{SettingsError, SignInReading};
use crate::reply;

/// What `application/x-www-form-urlencoded` leaves as it is (WHATWG URL, section 5.2).
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*');

/// The request for a token: HTTP Basic with form-encoded id and secret (section 2.3.1), `scope` in the body.
pub fn client_credentials(
    token_url: &Uri,
    client_id: &str,
    client_secret: &str,
    scope: &str,
) -> Result<Request<Bytes>, SettingsError> {
    let pair = format!("{}:{}", form(client_id), form(client_secret));
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let mut basic =
        HeaderValue::try_from(basic).map_err(|_| SettingsError::new("credentials", "cannot be put into a header"))?;
    basic.set_sensitive(true);
    let body = format!("grant_type=client_credentials&scope={}", form(scope));
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = token_url.clone();
    let headers = request.headers_mut();
    headers.insert(AUTHORIZATION, basic);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    Ok(request)
}

/// What the token endpoint's reply means (sections 5.1 and 5.2).
pub fn read(reply: &Response<Bytes>) -> SignInReading {
    #[derive(Deserialize)]
    struct Token<'a> {
        #[serde(borrow)]
        access_token: Cow<'a, str>,
        #[serde(borrow)]
        expires_in: Option<Life<'a>>,
    }
    match reply.status() {
        StatusCode::OK => match reply::json::<Token<'_>>(reply) {
            Some(token) if !token.access_token.is_empty() => {
                let lifetime_s = token.expires_in.and_then(|life| life.seconds());
                SignInReading::Token { value: token.access_token.into_owned(), lifetime_s }
            }
            _ => SignInReading::Unusable,
        },
        StatusCode::TOO_MANY_REQUESTS => SignInReading::Throttled(reply::retry_after(reply.headers())),
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SignInReading::Refused,
        _ => SignInReading::Unusable,
    }
}

/// `expires_in`: a number of seconds (section 5.1), which some servers send as a fraction or as text. It is only advice
/// (RECOMMENDED there), so whatever else stands in it does not spoil the token beside it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Life<'a> {
    Whole(u64),
    Fraction(f64),
    Text(#[serde(borrow)] Cow<'a, str>),
    Else(IgnoredAny),
}

impl Life<'_> {
    fn seconds(&self) -> Option<u64> {
        match self {
            Self::Whole(seconds) => Some(*seconds),
            // The cast rounds down, and takes what is too large as the largest.
            Self::Fraction(seconds) => (*seconds >= 0.0).then_some(*seconds as u64),
            Self::Text(text) => reply::whole_seconds(text),
            Self::Else(_) => None,
        }
    }
}

fn form(text: &str) -> String {
    utf8_percent_encode(text, FORM).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_and_secret_are_form_encoded_before_basic() {
        let url = Uri::from_static("https://acme.example/oauth/token");
        let request = client_credentials(&url, "id", "a:b c%", "record-lists:manage").unwrap();
        let basic = base64::engine::general_purpose::STANDARD.encode("id:a%3Ab%20c%25");
        assert_eq!(request.headers()[AUTHORIZATION], format!("Basic {basic}"));
        assert_eq!(request.body().as_ref(), b"grant_type=client_credentials&scope=record-lists%3Amanage");
        assert!(request.headers()[AUTHORIZATION].is_sensitive());
    }

    #[test]
    fn a_refused_client_is_not_tried_again() {
        let reply = Response::builder().status(401).body(Bytes::from(r#"{"error":"invalid_client"}"#)).unwrap();
        assert_eq!(read(&reply), SignInReading::Refused);
    }

    #[test]
    fn an_odd_life_does_not_spoil_the_token() {
        for (life, expected) in [
            ("3600", Some(3_600)),
            ("3599.9", Some(3_599)),
            ("6e2", Some(600)),
            ("\"3600\"", Some(3_600)),
            ("1e300", Some(u64::MAX)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("null", None),
            ("-1", None),
            ("-0.5", None),
            ("\"\"", None),
            ("\"1.5\"", None),
            ("\"soon\"", None),
            ("true", None),
            ("[600]", None),
            ("{\"seconds\":600}", None),
        ] {
            let body = format!(r#"{{"access_token":"t","token_type":"Bearer","expires_in":{life}}}"#);
            let token = SignInReading::Token { value: "t".to_owned(), lifetime_s: expected };
            assert!(read(&Response::new(Bytes::from(body))) == token, "{life}");
        }
    }
}
