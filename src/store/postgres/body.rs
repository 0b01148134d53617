//! Contacts, identifiers and results as rows of up to 1,000 each, in JSON.
//!
//! It does not talk to the database. What it makes shows nothing of its content where parameters are logged.

use adapters::{Identifier, Slot};
use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::fault::Failure;
use crate::engine::Settled;
use crate::store::{Asked, Contact, Page, Part};

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
    bodies(&part.asked())
}

/// Whom contacts name.
pub(super) fn identifiers(contacts: &[Contact]) -> Result<Bodies, Failure> {
    bodies(&contacts.iter().map(|contact| &contact.identifier).collect::<Vec<_>>())
}

/// What became of contacts.
pub(super) fn results(settled: &[(Slot, Settled)]) -> Result<Bodies, Failure> {
    bodies(settled)
}

/// The same, but one row at least.
pub(super) fn results_or_none(settled: &[(Slot, Settled)]) -> Result<Bodies, Failure> {
    if settled.is_empty() { Ok(Hidden(vec![b"[]".to_vec()])) } else { results(settled) }
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
    let mut places = vec![None; asked.len()];
    for (slot, settled) in lists::<(Slot, Settled)>(results)? {
        // The first result stays.
        if let Some(place @ None) = slot.0.checked_sub(first).and_then(|n| places.get_mut(n as usize)) {
            *place = Some(settled);
        }
    }
    Ok(Page { first, contacts: asked, results: places })
}

/// A part as it is worked.
pub(super) fn part(number: u32, page: Page, identifiers: &[&[u8]]) -> Result<Part, Failure> {
    let identifiers = lists::<Identifier>(identifiers)?;
    if identifiers.len() != page.contacts.len() {
        return Err(Failure::unreadable());
    }
    let contact = |(asked, identifier): (Asked, Identifier)| {
        let hash = asked.hash.ok_or_else(Failure::unreadable)?;
        Ok(Contact { share: asked.share, identifier, hash, reference: asked.reference })
    };
    let contacts = page.contacts.into_iter().zip(identifiers).map(contact).collect::<Result<_, Failure>>()?;
    let settled = page.results.into_iter().zip(page.first..).filter_map(|(result, n)| Some((Slot(n), result?)));
    Ok(Part { number, first: page.first, contacts, settled: settled.collect() })
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
        let contact =
            |id: &str| Contact { share: 0, identifier: Identifier::Id(id.into()), hash: [0; 16], reference: None };
        let rows = identifiers(&[contact("8841")]).unwrap();
        assert_eq!(format!("{rows:?}"), "…");
        assert_eq!(rows.0, [br#"[{"id":"8841"}]"#]);
    }
}
