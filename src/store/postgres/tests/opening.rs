//! Opening: what is made, what is refused and how that is said, and TLS.

use std::path::Path;
use std::process::Command;

use futures_util::future::join_all;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn many_that_begin_at_once_all_begin() {
    let Some(database) = Database::new() else { return };
    let ledgers = join_all((0..8).map(|_| open(&database))).await;
    assert!(ledgers.iter().all(|ledger| ledger.hash_key() == ledgers[0].hash_key()));
    assert_eq!(database.query("SELECT version FROM onedelete.meta"), ["1"]);
    let given = PostgresSettings { hash_key: Some([7; 16]), ..settings(&database.url()) };
    assert_eq!(Postgres::open(given).await.unwrap().hash_key(), [7; 16]);
    assert_eq!(open(&database).await.hash_key(), ledgers[0].hash_key());
}

#[tokio::test]
async fn a_newer_version_is_left_alone() {
    let Some(database) = Database::new() else { return };
    open(&database).await.close().await;
    database.execute(&["UPDATE onedelete.meta SET version = 2"]);
    let why = refused(settings(&database.url())).await;
    assert!(why.contains("newer version") && why.contains('2'), "{why}");
    assert_eq!(database.query("SELECT version FROM onedelete.meta"), ["2"]);
}

#[tokio::test]
async fn another_programs_schema_is_left_alone() {
    for made in ["CREATE TABLE onedelete.meta (version integer)", "CREATE TABLE onedelete.other (n integer)"] {
        let Some(database) = Database::new() else { return };
        database.execute(&["CREATE SCHEMA onedelete", made]);
        let why = refused(settings(&database.url())).await;
        assert!(why.contains("another program"), "{why}");
        assert_eq!(database.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'onedelete'"), ["1"]);
    }
}

#[tokio::test]
async fn a_user_needs_a_schema_or_the_right_to_make_one() {
    let Some(server) = machine::own_server(&[]) else { return };
    let database = Database::on(&server.url());
    let role = "somebody";
    let url = database.url();
    let (_, address) = url.rsplit_once('@').unwrap();
    let as_role = format!("postgres://{role}:secret-word@{address}");
    database.execute(&[&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret-word'")]);
    let why = refused(settings(&as_role)).await;
    assert!(why.contains("may not create a schema"), "{why}");
    database.execute(&["CREATE SCHEMA onedelete"]);
    let why = refused(settings(&as_role)).await;
    assert!(why.contains("may not use the schema"), "{why}");
    database.execute(&[&format!("GRANT USAGE ON SCHEMA onedelete TO {role}")]);
    let why = refused(settings(&as_role)).await;
    assert!(why.contains("may not create tables"), "{why}");
    database.execute(&["DROP SCHEMA onedelete", &format!("CREATE SCHEMA onedelete AUTHORIZATION {role}")]);
    let ledger = Postgres::open(settings(&as_role)).await.unwrap();
    ledger.accept(waiting(1)).await.unwrap();
    ledger.close().await;
    // The password may stand elsewhere, and a wrong one is not repeated.
    let bare = as_role.replace(":secret-word", "");
    let given = |word: &str| PostgresSettings { password: Some(word.into()), ..settings(&bare) };
    Postgres::open(given("secret-word")).await.unwrap().close().await;
    for wrong in [given("wrong-word"), settings(&bare)] {
        let why = refused(wrong).await;
        assert!(why.contains("password") && !why.contains("word'") && !why.contains("wrong-word"), "{why}");
        assert!(!why.contains(role) && !why.contains('\n'), "{why}");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_said_in_one_line() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let why = refused(settings(&format!("postgres://me:secret-word@127.0.0.1:{nobody}/x"))).await;
    assert_eq!(why, "the store failed: the database server cannot be reached (connection refused)");
    let Some(database) = Database::new() else { return };
    let why = refused(settings(&machine::of_database(&database.url(), "no_such_thing"))).await;
    assert_eq!(why, "the store failed: there is no such database (SQLSTATE 3D000)");
}

#[tokio::test]
async fn nobodys_default_weakens_a_commit() {
    let Some(database) = Database::new() else { return };
    let name = database.query("SELECT current_database()").remove(0);
    for (default, expected) in [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")] {
        database.execute(&[&format!("ALTER DATABASE {name} SET synchronous_commit = {default}")]);
        let ledger = open(&database).await;
        let client = ledger.pool.connect().await.unwrap();
        let now: String = client.query_one("SHOW synchronous_commit", &[]).await.unwrap().get(0);
        assert_eq!(now, expected, "with {default}");
        let level: String = client.query_one("SHOW transaction_isolation", &[]).await.unwrap().get(0);
        assert_eq!(level, "read committed");
    }
}

#[tokio::test]
async fn a_server_is_known_by_its_certificate() {
    let Some(server) = machine::own_server(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: no openssl to make certificates with");
        return;
    }
    let (ours, theirs) = (authority(folder.path(), "ours"), authority(folder.path(), "theirs"));
    let mode = |name: &str, mode: &str| server.url().replace("127.0.0.1", name) + "?connect_timeout=5&sslmode=" + mode;
    let trusting = |url: String, file: &Path| PostgresSettings { ca_file: Some(file.to_owned()), ..settings(&url) };

    let why = refused(settings(&mode("127.0.0.1", "require"))).await;
    assert!(why.contains("does not do TLS"), "{why}");
    assert!(Postgres::open(settings(&mode("127.0.0.1", "prefer"))).await.is_ok());

    certificate(folder.path(), "ours", "DNS:localhost");
    for file in ["server.crt", "server.key"] {
        server.put(file, &std::fs::read(folder.path().join(file)).unwrap());
    }
    server.configure(&["ssl = on"]).unwrap();
    server.stop("fast");
    server.go_on();

    for (name, word, file) in [
        ("localhost", "verify-full", Some(&ours)),
        ("127.0.0.1", "verify-ca", Some(&ours)),
        ("127.0.0.1", "require", Some(&ours)),
        ("127.0.0.1", "require", None),
        ("127.0.0.1", "prefer", Some(&theirs)),
    ] {
        let settings = PostgresSettings { ca_file: file.cloned(), ..settings(&mode(name, word)) };
        let ledger = Postgres::open(settings).await.unwrap_or_else(|error| panic!("{name} {word}: {error}"));
        let client = ledger.pool.connect().await.unwrap();
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert!(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0), "{name} {word}");
        ledger.accept(waiting(1_000)).await.unwrap();
    }
    for (name, word, file, expected) in [
        ("localhost", "verify-full", &theirs, "nobody who is trusted signed it"),
        ("127.0.0.1", "verify-ca", &theirs, "nobody who is trusted signed it"),
        ("127.0.0.1", "require", &theirs, "nobody who is trusted signed it"),
        ("127.0.0.1", "verify-full", &ours, "it is for another name"),
    ] {
        let why = refused(trusting(mode(name, word), file)).await;
        assert!(why.ends_with(expected), "{name} {word}: {why}");
    }
    let why = refused(settings(&mode("localhost", "verify-full"))).await;
    assert!(why.contains("nobody who is trusted") || why.contains("no authorities"), "{why}");
    let why = refused(trusting(mode("localhost", "verify-full"), &folder.path().join("none"))).await;
    assert!(why.contains("store.ca_file"), "{why}");
    let empty = folder.path().join("server.key");
    let why = refused(trusting(mode("localhost", "verify-full"), &empty)).await;
    assert!(why.contains("no certificate of an authority"), "{why}");
}

/// Makes an authority; its certificate.
fn authority(folder: &Path, name: &str) -> std::path::PathBuf {
    let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
    let subject = format!("/CN={name}");
    openssl(
        folder,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            &key,
            "-out",
            &certificate,
            "-subj",
            &subject,
        ],
    );
    folder.join(certificate)
}

/// Makes a server's certificate and key that an authority signed.
fn certificate(folder: &Path, authority: &str, name: &str) {
    std::fs::write(folder.join("names"), format!("subjectAltName={name}")).unwrap();
    openssl(
        folder,
        &[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-keyout",
            "server.key",
            "-out",
            "server.csr",
            "-subj",
            "/CN=server",
        ],
    );
    let (key, certificate) = (format!("{authority}.key"), format!("{authority}.pem"));
    openssl(
        folder,
        &[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            &certificate,
            "-CAkey",
            &key,
            "-CAcreateserial",
            "-days",
            "2",
            "-out",
            "server.crt",
            "-extfile",
            "names",
        ],
    );
}

fn openssl(folder: &Path, arguments: &[&str]) {
    let done = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
