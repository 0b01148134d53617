//! `Authorization`, `Idempotency-Key`, `Content-Type` and `Prefer` in any form: a key is one text of the right form, or none.
//!
//! An input is the values of these headers, with a zero between two; those beyond the fourth repeat the first two.

#![no_main]

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use onedelete::api::fuzzing::{gateway_key, idempotency_key, is_lines, wait};
use onedelete_fuzz::seeds;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PREFER: HeaderName = HeaderName::from_static("prefer");

fuzz_target!(init: { seeds::write(seeds::headers) }, |data: &[u8]| {
    let names = [AUTHORIZATION, IDEMPOTENCY_KEY, CONTENT_TYPE, PREFER, AUTHORIZATION, IDEMPOTENCY_KEY];
    let mut headers = HeaderMap::new();
    for (name, value) in names.into_iter().zip(data.split(|byte| *byte == 0)) {
        // An empty value stands for no header.
        if let Ok(value) = HeaderValue::from_bytes(value)
            && !value.is_empty()
        {
            headers.append(name, value);
        }
    }
    let only = |name: &HeaderName| {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        match values[..] {
            [value] => value.to_str().ok(),
            _ => None,
        }
    };

    let mut request = Request::new(());
    request.headers_mut().clone_from(&headers);
    let (parts, ()) = request.into_parts();
    let expected = only(&AUTHORIZATION).and_then(|value| {
        let (scheme, key) = (value.get(..7)?, value.get(7..)?.trim_start_matches(' '));
        let good = scheme.eq_ignore_ascii_case("bearer ") && (32..=512).contains(&key.len());
        (good && key.chars().all(|c| ('!'..='~').contains(&c))).then_some(key)
    });
    assert_eq!(gateway_key(&parts), expected);

    match idempotency_key(&headers) {
        Ok(None) => assert!(!headers.contains_key(&IDEMPOTENCY_KEY)),
        Ok(Some(key)) => {
            let value = only(&IDEMPOTENCY_KEY).expect("one value").trim();
            assert!(value == key || value == format!("\"{key}\""), "{key:?} is not what stands there");
            assert!((1..=255).contains(&key.len()) && key.chars().all(|c| ('!'..='~').contains(&c) && c != '"' && c != '\\'));
        }
        Err(problem) => {
            let values: Vec<_> = headers.get_all(&IDEMPOTENCY_KEY).iter().collect();
            assert!(!values.is_empty());
            // The value is never said back: every refusal is the same.
            let mut other = HeaderMap::new();
            other.append(IDEMPOTENCY_KEY, HeaderValue::from_static("\""));
            let said = idempotency_key(&other).expect_err("a quote is no key");
            assert_eq!(format!("{problem:?}"), format!("{said:?}"));
        }
    }

    if is_lines(&headers).is_ok() {
        let value = only(&CONTENT_TYPE).expect("one value").to_ascii_lowercase();
        assert!(value.trim_start().starts_with("application/"));
    }
    assert!(wait(&headers, 25).as_secs() <= 25);
});
