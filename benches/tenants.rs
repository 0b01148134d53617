//! Ten thousand tenants with five connections each: how long it takes until the gateway listens, how long to read them again, and how
//! much memory a connection takes until it is used. Every dialect's example is one of the five.
//!
//! It sends nothing. `cargo bench --bench tenants -- --max-ms 2000 --max-kib 3` fails where it takes more; Linux, for `/proc`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench, not a part of the product"
)]

use std::fmt::Write as _;
use std::time::Instant;

use adapters::DIALECTS;
use onedelete::app::Gateway;
use onedelete::{api, settings, tenants};

const TENANTS: usize = 10_000;
const CONNECTIONS: usize = 5;

/// Resident memory in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The number after a name on the command line.
fn option(name: &str) -> Option<f64> {
    let all: Vec<_> = std::env::args().collect();
    let place = all.iter().position(|each| each == name)?;
    all.get(place + 1)?.parse().ok()
}

fn tenant(n: usize) -> String {
    let hash = api::sha256_hex(&format!("odk_a-key-of-tenant-{n}-0123456789012345"));
    let mut text = format!("id = \"t{n}\"\n[[api_keys]]\nname = \"all\"\nsha256 = {hash:?}\n");
    for connection in 0..CONNECTIONS {
        let registration = &DIALECTS[connection % DIALECTS.len()];
        let mut example: toml::Table = registration.example.parse().unwrap();
        example.insert("dialect".to_owned(), registration.profile.id.into());
        let one = toml::Table::from_iter([(format!("c{connection}"), example.into())]);
        let all = toml::Table::from_iter([("connections".to_owned(), one.into())]);
        write!(text, "{}", toml::to_string(&all).unwrap()).unwrap();
    }
    text
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("tenants");
    std::fs::create_dir(&directory).unwrap();
    for n in 0..TENANTS {
        std::fs::write(directory.join(format!("t{n}.toml")), tenant(n)).unwrap();
    }
    let file = folder.path().join("onedelete.toml");
    let text = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[store]\nurl = \"memory:\"\n[tenants]\npoll_ms = 0\n";
    std::fs::write(&file, text).unwrap();

    let before = resident();
    let begun = Instant::now();
    let settings = settings::load(&file).unwrap();
    let read = tenants::load(&settings.tenants.directory, &settings.upstream, tenants::Secrets::Read).unwrap();
    let read_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    let gateway = Gateway::start(&settings, read).await.unwrap();
    let start_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    let kib = resident().saturating_sub(before) as f64 / (TENANTS * CONNECTIONS) as f64;
    gateway.follow(&file);
    let begun = Instant::now();
    assert!(gateway.reload().await);
    let again_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    let after = resident();
    gateway.stop().await;
    println!(
        "{TENANTS} tenants with {CONNECTIONS} connections: listens after {start_ms:.0} ms (files read after {read_ms:.0} ms), \
         {kib:.2} KiB a connection; read again in {again_ms:.0} ms, {} MiB then",
        after / 1_024
    );
    for (name, seen) in [("--max-ms", start_ms), ("--max-kib", kib)] {
        if let Some(most) = option(name) {
            assert!(seen <= most, "{name}: {seen:.2} is more than {most}");
        }
    }
}
