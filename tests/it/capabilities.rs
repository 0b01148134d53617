//! The README's table of dialects is what their profiles say: it is made from them, and compared with every run.
//!
//! What a profile does not say stands on the dialect's own page.

use std::path::Path;

use adapters::{DIALECTS, Profile};

const HEAD: &str =
    "| id | product | request | identifiers | contacts a call | pace | evidence |\n|---|---|---|---|---|---|---|\n";

fn row(profile: &Profile) -> String {
    let identifiers = profile.identifiers.iter().map(|rule| {
        let repeat = if rule.replay_safe { "" } else { "; not sent twice in doubt" };
        format!("`{}` ({}{repeat})", rule.kind.as_str(), rule.syntax)
    });
    let identifiers: Vec<_> = identifiers.collect();
    let most = match (profile.max_contacts_per_call, profile.contacts_per_call_ceiling) {
        (most, ceiling) if ceiling > most => format!("{most}, up to {ceiling}"),
        (most, _) => most.to_string(),
    };
    let pace = profile.pace.map_or("off".to_owned(), |pace| format!("{} in {} s", pace.calls, pace.per_s));
    let evidence: Vec<_> = profile.evidence.iter().map(|evidence| format!("`{}`", evidence.as_str())).collect();
    format!(
        "| [`{0}`](adapters/{0}/README.md) | {1} | {2} | {3} | {most} | {pace} | {4} |\n",
        profile.id,
        profile.title,
        profile.style,
        identifiers.join("; "),
        evidence.join(", ")
    )
}

#[test]
fn the_table_of_dialects_is_made_from_their_profiles() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = readme.split_once(HEAD).expect("README.md has no table of dialects");
    let after: String = rest.split_inclusive('\n').skip_while(|line| line.starts_with('|')).collect();
    let table: String = DIALECTS.iter().map(|registration| row(registration.profile)).collect();
    let whole = format!("{before}{HEAD}{table}{after}");
    if std::env::var_os("ONEDELETE_WRITE_DOCS").is_some() {
        std::fs::write(&file, &whole).unwrap();
    } else {
        let written = rest.strip_suffix(&after).unwrap_or_default();
        assert_eq!(written, table, "README.md: ONEDELETE_WRITE_DOCS=1 writes it anew");
    }
}
