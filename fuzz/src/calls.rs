//! Dialects with their examples' settings, contacts that they accept, and a call for some of them. It reads no reply.

use std::sync::Arc;

use adapters::{Call, DIALECTS, Dialect, Evidence, Identifier, IdentifierKind, Registration, Slot, Target};
use serde_json::{Map, Value};

/// A dialect, a kind of its identifiers, and whether its calls of identifiers that a reply cannot name hold several.
#[derive(Clone, Copy)]
pub struct Case {
    /// The dialect.
    pub registration: &'static Registration,
    /// What its contacts are named by.
    pub kind: IdentifierKind,
    /// Whether totals stand for several contacts.
    pub batch: bool,
}

/// Every case, always in the same order.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for registration in DIALECTS {
        for rule in registration.profile.identifiers {
            for batch in [false, true] {
                let possible = !batch || registration.profile.evidence.contains(&Evidence::Aggregate);
                cases.extend(possible.then_some(Case { registration, kind: rule.kind, batch }));
            }
        }
    }
    cases
}

/// The settings of a dialect's example, without what is not its own.
pub fn settings(registration: &Registration) -> Map<String, Value> {
    let table: toml::Table = registration.example.parse().expect("the example is TOML");
    let Ok(Value::Object(mut settings)) = serde_json::to_value(table) else { panic!("the example is a table") };
    for key in ["dialect", "credentials", "allow_http", "allow_private"] {
        settings.remove(key);
    }
    settings
}

/// A dialect with the settings of its example, some changed.
pub fn open(registration: &Registration, changes: &Map<String, Value>) -> Arc<dyn Dialect> {
    let mut settings = settings(registration);
    settings.extend(changes.clone());
    Arc::from((registration.open)(Value::Object(settings)).expect("the settings are good"))
}

impl Case {
    /// The dialect.
    pub fn dialect(&self) -> Arc<dyn Dialect> {
        let changes = self.batch.then(|| ("attribution".to_owned(), Value::from("batch")));
        open(self.registration, &changes.into_iter().collect())
    }

    /// The first call for so many contacts.
    pub fn call(&self, dialect: &dyn Dialect, contacts: usize) -> Call {
        let targets: Vec<_> =
            (0..contacts).map(|n| Target { slot: Slot(n as u32), identifier: self.contact(n) }).collect();
        dialect.plan(targets).calls.remove(0)
    }

    /// One of the contacts that this case has. No text of one is part of another's.
    pub fn contact(&self, n: usize) -> Identifier {
        let rule = self.registration.profile.identifiers.iter().find(|rule| rule.kind == self.kind);
        let forms = match self.kind {
            IdentifierKind::Id => vec![
                Identifier::Id(format!("{}", n + 7_000_001).into()),
                Identifier::Id(format!("6960cbe9b155d194e2f{n:05x}").into()),
                Identifier::Id(format!("91c615e3-1040-4815-8ecb-{n:012x}").into()),
            ],
            IdentifierKind::Phone => vec![Identifier::Phone(format!("+1415{n:07}").into())],
            IdentifierKind::External => {
                vec![Identifier::External { provider: "salesforce".into(), id: format!("003DL{n:09}").into() }]
            }
        };
        let accepts = rule.expect("the case names a rule").accepts;
        forms.into_iter().find(|form| accepts(form)).expect("one form is accepted")
    }
}
