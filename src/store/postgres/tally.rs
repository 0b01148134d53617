//! The counts of results: a column each in the table of parts.

use adapters::Outcome;
use tokio_postgres::Row;

use super::fault::Failure;
use crate::store::Tally;

/// Counts in the order of the columns.
pub(super) fn numbers(tally: &Tally) -> Result<Vec<i32>, Failure> {
    let numbers = tally.settled.into_iter().chain([tally.absent, tally.duplicates]);
    numbers.map(super::arrive::int).collect()
}

/// Counts from a row that has them as `bigint`, from a column on.
pub(super) fn read(row: &Row, from: usize) -> Result<Tally, Failure> {
    let number = |n: usize| -> Result<u32, Failure> {
        row.try_get::<_, i64>(from + n)?.try_into().map_err(|_| Failure::unreadable())
    };
    let mut tally = Tally::default();
    for (n, count) in tally.settled.iter_mut().enumerate() {
        *count = number(n)?;
    }
    tally.absent = number(Outcome::ALL.len())?;
    tally.duplicates = number(Outcome::ALL.len() + 1)?;
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_column() {
        let outcomes = Outcome::ALL.map(Outcome::as_str);
        assert_eq!(Tally::COLUMNS[..Outcome::ALL.len()], outcomes);
        assert_eq!(Tally::COLUMNS[Outcome::ALL.len()..], ["absent", "duplicates"]);
        for (n, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, n);
        }
    }
}
