//! `onedelete store`: a look at the store from the command line, a copy of it, and what is old made to be forgotten.

use serde_json::json;

use crate::cli::run;
use crate::support::{Running, Setup, ids, mock};

#[tokio::test]
async fn a_store_is_checked_copied_and_purged() {
    let mock = mock("kore_ai").await;
    let gateway = Setup::new().durable().mock("acme", "c", &mock, |_| {}).start().await;
    let id = &ids("kore_ai", 1)[0];
    let deletion = gateway.post("acme", &json!({ "contacts": [id] })).await.id();
    let config = gateway.folder().join("onedelete.toml").to_str().unwrap().to_owned();
    let copy = gateway.folder().join("copy.db").to_str().unwrap().to_owned();

    // While the gateway runs.
    let check = run(&["store", "check", "--config", &config], &[]).await;
    assert_eq!(check.code, Some(0), "{}", check.err);
    assert!(
        check.out.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == ["deletions", "1"]),
        "{}",
        check.out
    );
    let backup = run(&["store", "backup", "--config", &config, &copy], &[]).await;
    assert_eq!(backup.code, Some(0), "{}", backup.err);
    let again = run(&["store", "backup", "--config", &config, &copy], &[]).await;
    assert_eq!(again.code, Some(2), "a copy is never written over: {}", again.err);
    let purge = run(&["store", "purge", "--config", &config, "--older-than", "0s"], &[]).await;
    assert_eq!(purge.code, Some(2), "{}", purge.err);
    assert!(purge.err.contains("in use"), "{}", purge.err);

    let folder = gateway.stop_and_keep().await;
    // Its key acts for a week.
    let purge = run(&["store", "purge", "--config", &config, "--older-than", "0s"], &[]).await;
    assert_eq!(
        (purge.code, purge.out.starts_with("forgotten: 0 deletions")),
        (Some(0), true),
        "{}{}",
        purge.out,
        purge.err
    );
    let purge = run(&["store", "purge", "--config", &config, "--older-than", "0s", "--with-keys"], &[]).await;
    assert_eq!(
        (purge.code, purge.out.starts_with("forgotten: 1 deletions")),
        (Some(0), true),
        "{}{}",
        purge.out,
        purge.err
    );
    let gateway = Running::reopen(folder).await;
    assert_eq!(gateway.get("acme", &format!("/v1/deletions/{deletion}")).await.status, 404);

    // The copy still has it.
    let folder = gateway.stop_and_keep().await;
    std::fs::rename(&copy, folder.path().join("ledger.db")).unwrap();
    let gateway = Running::reopen(folder).await;
    let answer = gateway.get("acme", &format!("/v1/deletions/{deletion}")).await;
    assert_eq!((answer.status, answer.json["state"].as_str()), (200, Some("finished")));
    gateway.stop().await;
    mock.stop().await;
}

#[tokio::test]
async fn what_is_no_file_is_said_to_be_none() {
    let setup = Setup::new();
    let config = setup.write().join("onedelete.toml").to_str().unwrap().to_owned();
    for command in [&["store", "check"][..], &["store", "backup", "x.db"]] {
        let refused = run(&[command, &["--config", &config]].concat(), &[]).await;
        assert_eq!(
            (refused.code, refused.err.trim()),
            (Some(2), "error: memory: keeps nothing\nnext: onedelete store --help")
        );
    }
    let refused = run(&["store", "purge", "--older-than", "soon", "--config", &config], &[]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.err);
}
