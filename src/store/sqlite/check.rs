//! Whether a ledger's file is sound: what SQLite can say of it, and what we know must be so.
//!
//! It reads only, and a gateway may be at work on the file. It mends nothing, and no finding quotes what is stored but
//! ids of deletions.

use std::fmt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};
use serde::de::IgnoredAny;

use super::body;
use super::fault::Failure;
use super::file::{self, Kind};
use super::look;
use super::tables::{DRAFT, HELD, OF_A_DELETION, OVER, VERSION, WAITING};
use crate::store::{Asked, DeletionId, PART, Tally};

/// Findings beyond so many are only counted.
const FINDINGS: usize = 50;

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The version of the tables. Of an older one's, only SQLite's own check is made.
    pub version: i32,
    /// The size of the database in bytes, its log not counted.
    pub bytes: u64,
    /// Deletions that were accepted.
    pub deletions: u64,
    /// Of them, those that are not finished.
    pub unfinished: u64,
    /// Their parts.
    pub parts: u64,
    /// Their contacts.
    pub contacts: u64,
    /// Of them, those without a result.
    pub open: u64,
    /// Of them, those whose identifiers are there.
    pub identifiers: u64,
    /// Calls that are known of: of parts that are not over.
    pub attempts: u64,
    /// Keys that were used.
    pub claims: u64,
    /// Deletions that are still arriving.
    pub drafts: u64,
    /// Forgotten deletions and drafts of which rows are left to be swept.
    pub forgotten: u64,
    /// What is wrong, a line each.
    pub findings: Vec<String>,
    /// How many more there are.
    pub more_findings: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, what: fmt::Arguments<'_>) {
        if self.findings.len() < FINDINGS {
            self.findings.push(what.to_string());
        } else {
            self.more_findings += 1;
        }
    }
}

/// Checks the ledger at `path` as of one moment. It needs no lock, and memory for one part at a time; while it runs, the
/// log beside the ledger grows. This blocks, as long as it takes to read the file twice.
///
/// # Errors
/// One line, if what is at `path` is not a ledger or cannot be opened. What is wrong inside of it is a finding.
pub fn check(path: &Path) -> Result<Report, String> {
    let told = |what: String| format!("{}: {what}", path.display());
    let place = file::existing(path)?;
    let mut connection = file::connection(&place, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(told)?;
    let Kind::Ours(version) = file::kind(&connection).map_err(told)? else {
        return Err(told("nothing was ever put into it".to_owned()));
    };
    let transaction = connection.transaction().map_err(|error| told(file::sqlite(error)))?;
    let mut report = Report { version, ..Report::default() };
    if let Err(failure) = examine(&transaction, &mut report) {
        report.find(format_args!("the check could not go on: {}", failure.into_cause()));
    }
    Ok(report)
}

fn examine(connection: &Connection, report: &mut Report) -> Result<(), Failure> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0).map(i64::unsigned_abs));
    report.bytes = number("PRAGMA page_count")? * number("PRAGMA page_size")?;
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let mut lines = statement.query([])?;
    let (mut first, mut count) = (String::new(), 0);
    while let Some(line) = lines.next()? {
        if count == 0 {
            first = line.get(0)?;
        }
        count += 1;
    }
    if (first.as_str(), count) != ("ok", 1) {
        // What it says may quote the file: it is not passed on.
        report.find(format_args!("SQLite finds {count} faults in the file (PRAGMA integrity_check)"));
    }
    match file::missing_table(connection, report.version) {
        Ok(None) => {}
        Ok(Some(name)) => {
            report.find(format_args!("there is no table {name}"));
            return Ok(());
        }
        Err(cause) => return Err(Failure::Fatal(cause)),
    }
    if report.version < VERSION {
        return Ok(());
    }
    report.attempts = number("SELECT count(*) FROM attempts")?;
    report.claims = number("SELECT count(*) FROM claims")?;
    report.drafts = number("SELECT count(*) FROM drafts")?;
    report.forgotten = number("SELECT count(*) FROM forgotten")?;
    each_deletion(connection, report)?;
    each_part(connection, report)?;
    strays(connection, report)
}

/// Every deletion has all its parts, in order and without a gap, and is finished if and only if it was said to be.
fn each_deletion(connection: &Connection, report: &mut Report) -> Result<(), Failure> {
    let sql = "SELECT id, finished_ms IS NOT NULL, contacts, parts, tenant,
            (SELECT count(*) FROM claims WHERE claims.scope = deletions.scope AND deletion = id), scope IS NOT NULL
        FROM deletions";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = DeletionId::from_bytes(row.get(0)?);
        let (finished, contacts, parts): (bool, u32, u32) = (row.get(1)?, row.get(2)?, row.get(3)?);
        report.deletions += 1;
        report.unfinished += u64::from(!finished);
        if row.get::<_, i64>(5)? != row.get::<_, i64>(6)? {
            report.find(format_args!("{id}: its key is not there"));
        }
        let tenant: String = row.get(4)?;
        let sql = "SELECT part, first, contacts, open, tenant = ?2 FROM parts WHERE deletion = ?1 ORDER BY part";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![id.to_bytes(), tenant])?;
        let (mut next, mut count) = (0u32, 0u32);
        let (mut in_order, mut open) = (true, 0u32);
        while let Some(row) = rows.next()? {
            let (part, first): (u32, u32) = (row.get(0)?, row.get(1)?);
            in_order &= (part, first) == (count, next) && row.get(4)?;
            next = next.saturating_add(row.get(2)?);
            open = open.saturating_add(row.get(3)?);
            count = count.saturating_add(1);
        }
        if !in_order || (count, next) != (parts, contacts) {
            report.find(format_args!("{id}: its parts are not those that it should have"));
        }
        if finished && open > 0 {
            report.find(format_args!("{id}: it is finished and has {open} open contacts"));
        }
    }
    Ok(())
}

/// Every part of a deletion counts what its lists have.
fn each_part(connection: &Connection, report: &mut Report) -> Result<(), Failure> {
    let sql = format!(
        "SELECT deletion, part, first, parts.contacts, state, open, fence, kept, {} FROM parts
            JOIN deletions ON id = deletion",
        Tally::COLUMNS.join(", ")
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = DeletionId::from_bytes(row.get(0)?);
        let part = Row {
            id,
            part: row.get(1)?,
            first: row.get(2)?,
            contacts: row.get(3)?,
            state: row.get(4)?,
            open: row.get(5)?,
            fence: row.get(6)?,
            kept: row.get(7)?,
            tally: look::tally(row, 8)?,
        };
        report.parts += 1;
        report.contacts += u64::from(part.contacts);
        report.open += u64::from(part.open);
        match part.faults(connection, report) {
            Ok(()) => {}
            Err(Failure::Refused(_)) => report.find(format_args!("{id} part {}: a row cannot be read", part.part)),
            Err(fatal) => return Err(fatal),
        }
    }
    Ok(())
}

/// A part's own row.
struct Row {
    id: DeletionId,
    part: u32,
    first: u32,
    contacts: u32,
    state: i64,
    open: u32,
    fence: i64,
    kept: bool,
    tally: Tally,
}

impl Row {
    fn faults(&self, connection: &Connection, report: &mut Report) -> Result<(), Failure> {
        let Self { id, part, .. } = *self;
        if self.contacts as usize > PART {
            report.find(format_args!("{id} part {part}: it has more contacts than a part may have"));
            return Ok(());
        }
        let contacts = self.contacts as usize;
        let mut lists = 0;
        body::each(connection, "contacts", id, part, |list: Vec<Asked>| lists += list.len())?;
        if lists != contacts {
            report.find(format_args!("{id} part {part}: not all of its contacts are there"));
        }

        let (mut settled, mut twice) = (vec![false; contacts], 0u32);
        let mut tally = Tally::default();
        body::each_run(connection, id, part, |slot, count, result| {
            for slot in (slot.0..).take(count as usize) {
                match slot.checked_sub(self.first).and_then(|n| settled.get_mut(n as usize)) {
                    Some(place @ false) => *place = true,
                    _ => twice += 1,
                }
            }
            tally.count(result, count);
        })?;
        if twice > 0 {
            report.find(format_args!("{id} part {part}: {twice} results are of no contact, or not its first"));
        }
        if tally != self.tally || tally.total().checked_add(self.open) != Some(self.contacts) {
            report.find(format_args!("{id} part {part}: it does not count the results that are there"));
        }
        let known = match self.state {
            OVER => self.open == 0,
            WAITING => self.open > 0,
            HELD => self.open > 0 && self.fence > 0,
            _ => false,
        };
        if !known {
            report.find(format_args!("{id} part {part}: its state is not that of a part with {} open", self.open));
        }

        let mut named = 0;
        body::each(connection, "identifiers", id, part, |list: Vec<IgnoredAny>| named += list.len())?;
        report.identifiers += named as u64;
        if self.open > 0 && named != contacts {
            report.find(format_args!("{id} part {part}: not all identifiers of its contacts are there"));
        }
        if self.open == 0 && named > 0 && !self.kept {
            report.find(format_args!("{id} part {part}: it is over, and identifiers are left"));
        }
        let sql = "SELECT 1 FROM attempts WHERE deletion = ?1 AND part = ?2";
        if self.open == 0 && connection.prepare_cached(sql)?.exists(params![id.to_bytes(), part])? {
            report.find(format_args!("{id} part {part}: it is over, and calls of it are left"));
        }
        Ok(())
    }
}

/// Nothing belongs to a deletion that is not there, and nobody works a draft.
fn strays(connection: &Connection, report: &mut Report) -> Result<(), Failure> {
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    for (table, _) in OF_A_DELETION {
        let home = match table {
            "parts" => {
                "SELECT 1 FROM deletions WHERE id = t.deletion UNION ALL SELECT 1 FROM drafts WHERE id = t.deletion"
            }
            _ => "SELECT 1 FROM parts WHERE parts.deletion = t.deletion AND parts.part = t.part",
        };
        let count = number(&format!(
            "SELECT count(*) FROM {table} AS t WHERE NOT EXISTS ({home})
                AND NOT EXISTS (SELECT 1 FROM forgotten WHERE id = t.deletion)"
        ))?;
        if count > 0 {
            report.find(format_args!("{count} rows of {table} belong to nothing"));
        }
    }
    let working = number(&format!(
        "SELECT count(*) FROM parts JOIN drafts ON id = deletion WHERE state <> {DRAFT} AND state <> {OVER}"
    ))?;
    if working > 0 {
        report.find(format_args!("{working} parts of drafts can be worked"));
    }
    let lost = number("SELECT count(*) FROM claims WHERE deletion NOT IN (SELECT id FROM deletions)")?;
    if lost > 0 {
        report.find(format_args!("{lost} keys are of no deletion"));
    }
    Ok(())
}
