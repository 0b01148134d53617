//! What `credentials` may say, where secrets are read from, and that they are never shown.

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

#[test]
fn a_token_url_obeys_the_same_rules() {
    let lists = |url: &str| {
        format!(
            "[connections.a]\ndialect = \"talkdesk\"\nbase_url = \"https://x.example\"\nrecord_list_id = \"x\"\n\
             [connections.a.credentials]\nclient_id = \"c\"\nclient_secret = \"plain:hunter2\"\ntoken_url = \"{url}\"\n"
        )
    };
    connection(&lists("https://id.example/oauth/token"));
    connection(&lists("http://127.0.0.1:9/oauth/token"));
    let key = "9: connections.a.credentials.token_url";
    let private = format!("{key}: must not be a private or special address (allow_private = true allows it)");
    check(&lists("https://192.168.0.1/x"), &[&private]);
    let http = "must start with https:// (plain http shows the credential to everybody on the way; allow_http = true allows it)";
    check(&lists("http://id.example/x"), &[&format!("{key}: {http}")]);
    check(&lists("id.example"), &[&format!("{key}: must start with https:// (or http://)")]);
}

#[test]
fn exactly_one_form_of_credentials_fits() {
    let possible = "possible: { client_id, client_secret } or { jwt }";
    let whole = "{ client_id = \"cs\", client_secret = \"plain:hunter2\" }";
    let neither = format!("7: connections.support.credentials: do not have one of the possible forms ({possible})");
    for some in [
        "{}",
        "{ client_id = \"cs\" }",
        "{ client_secret = \"plain:hunter2\" }",
        "{ client_id = \"cs\", client_secret = \"plain:hunter2\", jwt = \"plain:hunter2\" }",
    ] {
        check_with(SUPPORT, whole, some, &[&neither]);
    }
    let typo = format!(
        "7: connections.support.credentials.client_secert: is not known (did you mean client_secret? {possible})"
    );
    check_with(SUPPORT, "client_secret", "client_secert", &[&typo]);
    check_with(SUPPORT, whole, "\"plain:hunter2\"", &["7: connections.support.credentials: must be a table"]);
    check_with(SUPPORT, &format!("credentials = {whole}\n"), "", &["2: connections.support.credentials: is missing"]);
    let jwt = connection(&SUPPORT.replace(whole, "{ jwt = \"plain:hunter2\" }"));
    assert!(matches!(jwt.credentials.grant, Grant::Fixed));
    let pair = connection(SUPPORT);
    assert!(matches!(pair.credentials.grant, Grant::SignedJwt { .. }));
    let names: Vec<_> = pair.credentials.members.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["client_id", "client_secret"]);
    assert!(matches!(&pair.credentials.members[0].1, CredentialValue::Plain(id) if id == "cs"));
    assert!(!format!("{pair:?}").contains("hunter"));
}

/// The secret of PORTAL's token with this reference; files: `s` has it with a line end, `bare` without, `two` with two.
fn secret(reference: &str, secrets: Secrets) -> Result<Option<String>, String> {
    let folder = TempDir::new().unwrap();
    let files =
        [("s", "hunter2\n"), ("crlf", "hunter2\r\n"), ("bare", "hunter2"), ("two", "hunter2\n\n"), ("none", "\n")];
    let text = format!("id = \"acme\"\n{}", PORTAL.replace("plain:hunter2", reference));
    let tenants = read(folder.path(), &[&files[..], &[("acme.toml", &text)]].concat(), secrets).map_err(|errors| {
        let [error] = &errors[..] else { panic!("{errors:#?}") };
        assert_eq!(error.render(), error.to_string());
        assert_eq!((error.line, error.key.as_str()), (Some(5), "connections.portal.credentials.token"));
        let hint = error.hint.as_deref().unwrap_or_default();
        let message = error.message.replace(&format!("{}/", folder.path().display()), "");
        assert!(!format!("{message}{hint}").contains("hunter"), "{message} {hint}");
        message
    })?;
    let connection = &tenants.tenant("acme").unwrap().connections["portal"];
    Ok(match &connection.credentials.members[0].1 {
        CredentialValue::Secret(secret) => Some(secret.expose_secret().to_owned()),
        CredentialValue::Unread => None,
        CredentialValue::Plain(_) => panic!("a secret is plain"),
    })
}

#[test]
fn secrets_are_read_from_where_they_are() {
    for reference in ["plain:hunter2", "env:FULL", "file:s", "file:crlf", "file:bare", "file:./s"] {
        assert_eq!(secret(reference, Secrets::Read), Ok(Some("hunter2".to_owned())), "{reference}");
    }
    for reference in ["plain:hunter2", "env:FULL", "env:ABSENT", "file:s", "file:absent"] {
        assert_eq!(secret(reference, Secrets::Skip), Ok(None), "{reference}");
    }
}

#[test]
fn a_secret_that_cannot_be_used_is_refused_and_never_shown() {
    let blank = "leads to a secret with a character that a header cannot carry, such as a blank";
    let empty = "leads to an empty secret";
    for (reference, message) in [
        ("hunter2", "must say where the secret is"),
        ("", "must say where the secret is"),
        ("ENV:FULL", "must say where the secret is"),
        ("env:ABSENT", "needs the variable ABSENT, which is not set"),
        ("env:hunter-2", "must name a variable after env: (letters, digits and _)"),
        ("env:", "must name a variable after env: (letters, digits and _)"),
        ("file:", "must name a file after file:"),
        ("file:absent", "needs the file absent, which cannot be read: No such file or directory (os error 2)"),
        ("env:EMPTY", empty),
        ("plain:", empty),
        ("file:none", empty),
        ("env:BLANK", blank),
        ("file:two", blank),
        ("plain:hünter2", blank),
    ] {
        assert_eq!(secret(reference, Secrets::Read), Err(message.to_owned()), "{reference}");
    }
    for reference in ["hunter2", "plain:", "env:hunter-2", "file:"] {
        assert!(secret(reference, Secrets::Skip).is_err(), "{reference}");
    }
    let folder = TempDir::new().unwrap();
    let long = "x".repeat(65_537);
    let text = format!("id = \"acme\"\n{}", PORTAL.replace("plain:hunter2", "file:long"));
    let errors = read(folder.path(), &[("long", &long), ("acme.toml", &text)], Secrets::Read).unwrap_err();
    assert!(errors[0].message.ends_with("it has more than 65536 bytes"), "{}", errors[0]);
    // Only what stands in a header must be able to.
    connection(&SUPPORT.replace("plain:hunter2", "env:BLANK"));
    check_with(
        SUPPORT,
        "client_id = \"cs\"",
        "client_id = \"\"",
        &["7: connections.support.credentials.client_id: must not be empty"],
    );
    check_with(
        SUPPORT,
        "client_id = \"cs\"",
        "client_id = \"env:FULL\"",
        &["7: connections.support.credentials.client_id: is no secret and stands here as it is, without a prefix"],
    );
}

#[test]
fn a_line_that_may_hold_a_secret_is_never_quoted() {
    // Each has its mistake in a line with a secret, or next to one.
    for text in [
        "[connections.a]\ncredentials = { token = hunter2 }",
        "[connections.a.credentials]\ntoken = \"hunter2",
        "[connections.a.credentials]\ntoken = \"\"\"\nhunter2\n",
        "connections = { a = { credentials = { token = \"plain:hunter2\" }, dialect = 5 } }",
        "connections = { a = { dialect = 5, credentials = { token = \"plain:hunter2\" } } }",
        "[connections.a]\ntoken = \"hunter2\"",
        "[connections.a]\napikey = \"hunter2\"",
        "[connections.a]\ndialect = \"onlyoffice\"\nbase_url = \"htps://plain:hunter2.example\"",
        "[connections.a]\ndialect = \"onlyoffice\"\nbase_url = \"https://x.example/?token=hunter2\"",
        "[connections.a]\ndialect = \"onlyoffice\"\napikey = \"hunter2\"\nbase_url = \"https://hunter2@x.example\"",
        "[connections.a]\ndialect = \"onlyoffice\"\ncredentials = [\"hunter2\"]",
        "[connections.a]\ndialect = \"plain:hunter2\"",
        "[connections.a]\nallow_http = \"yes\" # hunter2",
    ] {
        let folder = TempDir::new().unwrap();
        let errors = read(folder.path(), &[("acme.toml", &format!("id = \"a\"\n{text}"))], Secrets::Read).unwrap_err();
        for error in errors {
            assert!(!format!("{error:?}{}", error.render()).contains("hunter"), "{text}\n{}", error.render());
        }
    }
}
