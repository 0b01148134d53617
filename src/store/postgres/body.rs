//! Contacts, identifiers and results as rows of up to 1,000 each, in JSON.
//!
//! It does not talk to the database. What it makes shows nothing of its content where parameters are logged.

use std::sync::Arc;

use adapters::{Identifier, Slot};
use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::fault::Failure;
use crate::engine::{Run, Settled};
use crate::store::{Asked, Page, Part, Results, places};

/// The most contacts in one row, so that no row grows with its deletion.
const CHUNK: usize = 1_000;

/// A parameter whose content nobody may read in a log: the database's client logs parameters as `Debug` shows them.
pub(super) struct Hidden<T>(pub(super) T);

impl<T> std::fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl<T: ToSql> ToSql for Hidden<T> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        T::accepts(ty)
    }

    to_sql_checked!();
}

/// Rows of a table, as one parameter.
pub(super) type Bodies = Hidden<Vec<Vec<u8>>>;

/// What stays of contacts.
pub(super) fn asked(part: &Part) -> Result<Bodies, Failure> {
    bodies(&part.contacts)
}

/// Whom contacts name.
pub(super) fn identifiers(identifiers: &[Identifier]) -> Result<Bodies, Failure> {
    bodies(identifiers)
}

/// What became of contacts.
pub(super) fn results(settled: &[(Slot, Settled)]) -> Result<Bodies, Failure> {
    bodies(settled)
}

/// The same of a record, but one row at least. There is an entry for each contact.
pub(super) fn results_of(runs: &[Run]) -> Result<Bodies, Failure> {
    if runs.is_empty() {
        return Ok(Hidden(vec![b"[]".to_vec()]));
    }
    let each = |run| Run::slots(run).map(move |slot| (slot, &run.settled));
    bodies(&runs.iter().flat_map(each).collect::<Vec<_>>())
}

fn bodies<T: Serialize>(items: &[T]) -> Result<Bodies, Failure> {
    let rows = items.chunks(CHUNK).map(serde_json::to_vec).collect::<Result<_, _>>();
    rows.map(Hidden).map_err(|_| Failure::broken("a row cannot be written"))
}

/// A part as it is read back.
pub(super) fn page(first: i32, contacts: i32, asked: &[&[u8]], results: &[&[u8]]) -> Result<Page, Failure> {
    let first = u32::try_from(first).map_err(|_| Failure::unreadable())?;
    let asked = lists::<Asked>(asked)?;
    if usize::try_from(contacts) != Ok(asked.len()) {
        return Err(Failure::unreadable());
    }
    let mut known = Results::open(asked.len());
    for (slot, settled) in lists::<(Slot, Settled)>(results)? {
        known.put(places(first, slot, 1), &settled, |_| {});
    }
    Ok(Page { first, contacts: Arc::new(asked), results: known })
}

/// A part as it is worked.
pub(super) fn part(number: u32, page: Page, identifiers: &[&[u8]]) -> Result<Part, Failure> {
    let identifiers = lists::<Identifier>(identifiers)?;
    if identifiers.len() != page.contacts.len() {
        return Err(Failure::unreadable());
    }
    if page.contacts.iter().any(|contact| contact.hash.is_none()) {
        return Err(Failure::unreadable());
    }
    let settled = page.settled();
    Ok(Part { number, first: page.first, contacts: page.contacts, identifiers, settled })
}

fn lists<T: DeserializeOwned>(rows: &[&[u8]]) -> Result<Vec<T>, Failure> {
    let mut all = Vec::new();
    for row in rows {
        all.append(&mut serde_json::from_slice::<Vec<T>>(row).map_err(|_| Failure::unreadable())?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_shows_nothing_where_it_is_logged() {
        let rows = identifiers(&[Identifier::Id("8841".into())]).unwrap();
        assert_eq!(format!("{rows:?}"), "…");
        assert_eq!(rows.0, [br#"[{"id":"8841"}]"#]);
    }
}
