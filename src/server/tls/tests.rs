//! Files that are good, and every way in which they are not.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn files(&self) -> TlsFiles {
        let path = |name: &str| self.0.path().join(name);
        TlsFiles {
            certificate: path("c.pem"),
            key: path("k.pem"),
            client_ca: None,
            http2: false,
            poll: Duration::from_millis(1),
        }
    }

    /// What is wrong, without the folder.
    fn mistakes(&self, files: &TlsFiles) -> Vec<String> {
        let prefix = format!("{}/", self.0.path().display());
        check(files).iter().map(|mistake| mistake.to_string().replace(&prefix, "")).collect()
    }
}

fn certificate(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    change(&mut params);
    params.self_signed(key).unwrap().pem()
}

fn authority() -> String {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap().pem()
}

#[test]
fn everything_that_is_wrong_is_said_file_by_file() {
    let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
    let mut files = folder.files();
    let absent = ": cannot be read: entity not found";
    assert_eq!(
        folder.mistakes(&files),
        [format!("c.pem: server.tls.certificate{absent}"), format!("k.pem: server.tls.key{absent}")]
    );
    let sound = certificate(&key, |_| {});
    folder.write("c.pem", &sound);
    folder.write("k.pem", &key.serialize_pem());
    assert_eq!(folder.mistakes(&files), [""; 0]);
    files.client_ca = Some(folder.0.path().join("ca.pem"));
    folder.write("ca.pem", &authority());
    assert_eq!(folder.mistakes(&files), [""; 0]);

    let not_that = "the private key is not that of the first certificate in server.tls.certificate";
    let another = KeyPair::generate().unwrap().serialize_pem();
    let cut = &sound[..sound.len() - 40];
    let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let ended = certificate(&key, |params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = certificate(&key, |params| params.not_before = date_time_ymd(2999, 1, 1));
    let no_key = "k.pem: server.tls.key: there is no private key (PEM, not encrypted) in it";
    for (name, text, expected) in [
        ("k.pem", another.as_str(), format!("k.pem: server.tls.key: {not_that}")),
        ("k.pem", &sound, no_key.to_owned()),
        ("k.pem", "", no_key.to_owned()),
        ("c.pem", "", "c.pem: server.tls.certificate: there is no certificate (PEM) in it".to_owned()),
        ("c.pem", cut, "c.pem: server.tls.certificate: what stands in it is not proper PEM".to_owned()),
        ("c.pem", garbled, "c.pem: server.tls.certificate: a certificate in it cannot be read".to_owned()),
        (
            "c.pem",
            &ended,
            "c.pem: server.tls.certificate: a certificate in it is over since 2020-01-01T00:00:00Z".to_owned(),
        ),
        (
            "c.pem",
            &future,
            "c.pem: server.tls.certificate: a certificate in it is not valid before 2999-01-01T00:00:00Z".to_owned(),
        ),
        ("ca.pem", "", "ca.pem: server.tls.client_ca: there is no certificate (PEM) in it".to_owned()),
        ("ca.pem", garbled, "ca.pem: server.tls.client_ca: a certificate in it cannot be an authority's".to_owned()),
    ] {
        let before = std::fs::read_to_string(folder.0.path().join(name)).unwrap();
        folder.write(name, text);
        assert_eq!(folder.mistakes(&files), [expected]);
        folder.write(name, &before);
        assert_eq!(folder.mistakes(&files), [""; 0]);
    }
    folder.write("c.pem", &"x".repeat(2 << 20));
    assert!(folder.mistakes(&files)[0].contains("is longer than"), "{:?}", folder.mistakes(&files));
}

/// The end of the certificate that is in use.
fn ends(tls: &Tls) -> i64 {
    tls.loaded().validity.until_s
}

#[tokio::test]
async fn files_that_changed_are_taken_whole_or_not_at_all() {
    let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
    let until = |year| certificate(&key, move |params| params.not_after = date_time_ymd(year, 1, 1));
    let second = |year: i32| {
        let date = jiff::civil::date(i16::try_from(year).unwrap(), 1, 1);
        date.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second()
    };
    folder.write("c.pem", &until(2990));
    folder.write("k.pem", &key.serialize_pem());
    let tls = Tls::open(folder.files()).unwrap();
    assert_eq!(ends(&tls), second(2990));
    folder.write("c.pem", &until(2991));
    tls.reload().unwrap();
    assert_eq!(ends(&tls), second(2991));
    for text in [certificate(&KeyPair::generate().unwrap(), |_| {}), String::new(), until(2019)] {
        folder.write("c.pem", &text);
        assert!(tls.reload().is_err());
        assert_eq!(ends(&tls), second(2991));
    }
    std::fs::remove_file(folder.0.path().join("c.pem")).unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(ends(&tls), second(2991));

    // Whoever watches sees it without being told, and what is broken in between changes nothing.
    let stop = CancellationToken::new();
    let changes = async {
        folder.write("c.pem", &until(2992));
        while ends(&tls) != second(2992) {
            tokio::task::yield_now().await;
        }
        folder.write("c.pem", "nothing");
        folder.write("c.pem", &until(2993));
        while ends(&tls) != second(2993) {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let watched = async { tokio::join!(Arc::clone(&tls).watch(stop.clone()), changes) };
    tokio::time::timeout(Duration::from_secs(30), watched).await.unwrap();
}

#[test]
fn a_certificate_that_is_over_is_replaced_by_one_that_is_over_too() {
    let (folder, key) = (Folder::new(), KeyPair::generate().unwrap());
    folder.write("c.pem", &certificate(&key, |params| params.not_after = date_time_ymd(2019, 1, 1)));
    folder.write("k.pem", &key.serialize_pem());
    // Nothing that was accepted stands still because of it.
    let tls = Tls::open(folder.files()).unwrap();
    folder.write("c.pem", &certificate(&key, |params| params.not_after = date_time_ymd(2020, 1, 1)));
    tls.reload().unwrap();
}
