//! Base URLs and what is appended to them: origin, prefix and segments stay as they are, also for a URL parser.
//!
//! An input is a base URL, a zero, and a segment.

#![no_main]

use adapters::url::BaseUrl;
use libfuzzer_sys::fuzz_target;
use onedelete_fuzz::seeds;

fuzz_target!(init: { seeds::write(seeds::base_urls) }, |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, segment) = text.split_once('\0').unwrap_or((text, "42"));
    let Ok(base) = BaseUrl::parse(text) else { return };
    assert_eq!(base.as_str(), text.strip_suffix('/').unwrap_or(text));
    let Some(uri) = base.join(&["contact", segment]) else {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        let tame = !segment.is_empty() && segment.chars().all(plain) && segment != "." && segment != "..";
        // Beyond what a URI may have, nothing is sent.
        assert!(!tame || text.len() + segment.len() > 60_000, "{segment:?} is refused");
        return;
    };
    let expected = format!("{}/contact/{segment}", base.as_str());
    assert_eq!(uri.to_string(), expected);
    let parsed = url::Url::parse(&expected).expect("what leaves is a URL");
    assert_eq!(parsed.as_str(), expected, "a URL parser reads another URL");
    assert!(parsed.username().is_empty() && parsed.password().is_none() && parsed.query().is_none() && parsed.fragment().is_none());
});
