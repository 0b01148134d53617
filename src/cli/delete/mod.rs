//! `onedelete delete`: asks a running gateway to delete contacts, waits for the end, and prints the results.
//!
//! It is a client of the contract like any other. The key comes from the environment or a file, never from an argument.
//! Files of any length are streamed, both ways. It decides nothing about a contact: what became of it is the gateway's word.

mod arguments;
mod contact;
mod deletion;
mod errand;
mod events;
mod gateway;
mod input;
mod patience;
mod progress;
mod report;
mod resume;
mod upload;

use std::cell::OnceCell;
use std::io::IsTerminal;
use std::process::ExitCode;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use self::arguments::Delete;
use self::arguments::MOST_AT_ONCE;
use self::contact::Contact;
use self::deletion::Deletion;
use self::errand::{Errand, Form, Load, Lookout};
use self::gateway::{Fault, Gateway};
use self::input::{Source, Survey};
use self::progress::Progress;
use self::report::Report;
use self::resume::{Note, NoteError};
use super::{Failure, Outcome, interrupted, output};

/// A longer JSON document might be more than the gateway takes; JSON Lines have no such limit.
const LONGEST_DOCUMENT: u64 = 3 << 20;

/// The exit code where the end could not be learnt.
const UNLEARNT: u8 = 3;

impl Delete {
    pub(super) async fn run(self) -> Outcome {
        let gateway = Gateway::new(&self.url, self.key()?, self.ca.as_deref(), self.client_certificate.as_deref())?;
        if let Some(id) = &self.follow {
            return self.look_after(&gateway, id).await;
        }
        let source = self.source()?;
        let survey = source.survey().map_err(|mistake| Failure::Usage(mistake.to_string()))?;
        let count = survey.count;
        if count == 0 {
            return Err(Failure::Usage("no contacts: give ids, --phone, --external or --file".to_owned()));
        }
        if count > self.max {
            let text = format!("{count} contacts are more than --max {}; nothing was sent", self.max);
            return Err(Failure::Usage(text));
        }
        if self.dry_run {
            return self.plan(&gateway, &source, &survey).await;
        }
        let note = self.find_note(&gateway, &source, &survey)?;
        if !self.yes {
            self.ask(&gateway, &source, &survey).await?;
        }
        let form = if count <= MOST_AT_ONCE && survey.bytes <= LONGEST_DOCUMENT {
            Form::Document(self.document(&source, &survey, false)?)
        } else {
            Form::Lines(gateway::query(&self.options()))
        };
        let (name, note) = self.name(&gateway, &source, &survey, note)?;
        let load = Load { source: &source, survey: &survey, form };
        let id = OnceCell::new();
        let advice = match &note {
            Some(note) => {
                format!("the same command goes on with it (its key, {name}, is in {})", note.path().display())
            }
            None => format!("ask again with --idempotency-key {name}"),
        };
        let progress = Progress::new(self.quiet);
        let in_doubt = note.as_ref().is_some_and(|note| note.found);
        let mut errand = Errand { gateway: &gateway, progress, name, advice: advice.clone(), id: &id, in_doubt };
        let stop = watch_for_signals();
        tokio::select! {
            outcome = self.carry_out(&mut errand, &load, note) => outcome,
            () = stop.cancelled() => Ok(interruption(id.get(), Some(&advice))),
        }
    }

    /// The contacts of all places, and everything else that makes it the same deletion.
    fn source(&self) -> Result<Source, Failure> {
        let given = self.contacts.identifiers()?.into_iter().map(Contact::from);
        let options = serde_json::to_string(&self.options()).unwrap_or_default();
        Source::new(given, self.file.as_deref(), &self.columns, options, self.max)
            .map_err(|mistake| Failure::Usage(mistake.to_string()))
    }

    /// The note of an earlier run, unless the caller names the deletion.
    fn find_note(&self, gateway: &Gateway, source: &Source, survey: &Survey) -> Result<Option<Note>, Failure> {
        match (&self.idempotency_key, source.file()) {
            (None, Some(file)) => match Note::find(file, gateway.url(), &survey.digest) {
                Ok(Some(note)) => {
                    if !self.quiet {
                        let (path, entry) = (note.path().display(), note.entry());
                        let (started, key) = (&entry.started, &entry.idempotency_key);
                        output::note(&format!("going on with the deletion of {started}, key {key} ({path})"));
                    }
                    Ok(Some(note))
                }
                Ok(None) => Ok(None),
                Err(NoteError::Unfit(text) | NoteError::Unwritable(text)) => Err(Failure::Usage(text)),
            },
            _ => Ok(None),
        }
    }

    /// The deletion's idempotency key, and the note that keeps it.
    fn name(
        &self,
        gateway: &Gateway,
        source: &Source,
        survey: &Survey,
        found: Option<Note>,
    ) -> Result<(String, Option<Note>), Failure> {
        if let Some(name) = &self.idempotency_key {
            return Ok((name.clone(), None));
        }
        let name = uuid::Uuid::new_v4().to_string();
        let note = match (found, source.file()) {
            (Some(note), _) => note,
            (None, None) => return Ok((name, None)),
            (None, Some(file)) => match Note::write(file, gateway.url(), &survey.digest, &name) {
                Ok(note) => note,
                Err(NoteError::Unfit(text)) => return Err(Failure::Usage(text)),
                Err(NoteError::Unwritable(text)) => {
                    output::note(&format!(
                        "warning: {text}. If this is cut short, go on with --idempotency-key {name}"
                    ));
                    return Ok((name, None));
                }
            },
        };
        Ok((note.entry().idempotency_key.clone(), Some(note)))
    }

    /// Sends, follows, prints. The note goes once there is nothing to go on with.
    async fn carry_out(&self, errand: &mut Errand<'_>, load: &Load<'_>, mut note: Option<Note>) -> Outcome {
        let known = note.as_ref().and_then(|note| note.entry().deletion.clone());
        let finished = match known {
            Some(id) => {
                let _ = errand.id.set(id.clone());
                match errand.follow(&id).await {
                    Ok(finished) => Some(finished),
                    // A gateway with another store: the key still says that it is the same deletion.
                    Err(Lookout::Absent(_)) => None,
                    Err(Lookout::Failed(failure)) => return Err(failure),
                }
            }
            None => None,
        };
        let finished = match finished {
            Some(finished) => finished,
            None => match errand.submit(load).await {
                Ok(deletion) => self.see_through(errand, deletion, note.as_mut()).await?,
                Err(failure) => {
                    if !errand.in_doubt {
                        remove(note);
                    }
                    return Err(failure);
                }
            },
        };
        let (code, is_read) = self.print(errand, finished).await?;
        if is_read {
            remove(note);
        }
        Ok(code)
    }

    /// From the acceptance of a deletion to its end.
    async fn see_through(
        &self,
        errand: &mut Errand<'_>,
        deletion: Deletion,
        note: Option<&mut Note>,
    ) -> Result<Deletion, Failure> {
        let id = deletion.id.clone().unwrap_or_default();
        if let Some(note) = note {
            note.accepted(&id);
        }
        if deletion.is_finished() {
            return Ok(deletion);
        }
        errand.progress.note(&format!("accepted as {id}; waiting for its end"));
        match errand.follow(&id).await {
            Ok(finished) => Ok(finished),
            Err(Lookout::Absent(text)) => Err(Failure::Unreachable(format!("{text}: {id}; {}", errand.advice))),
            Err(Lookout::Failed(failure)) => Err(failure),
        }
    }

    /// Prints a finished deletion. The exit code, and whether somebody read all of it.
    async fn print(&self, errand: &mut Errand<'_>, finished: Deletion) -> Result<(ExitCode, bool), Failure> {
        errand.progress.end();
        let (id, requested) = (finished.id.clone().unwrap_or_default(), finished.counts.requested);
        let mut report = Report::new(self.output, self.outcome.clone(), finished);
        let is_read = errand.collect(&id, &mut report).await?;
        let absent = report.absent();
        if report.is_summary() {
            errand.progress.note(&format!(
                "for a line each: onedelete delete --follow {id} --output jsonl (--outcome failed,unknown picks some)"
            ));
        }
        errand.progress.note(&format!("{absent} of {requested} are absent; deletion {id}"));
        Ok((if absent == requested { ExitCode::SUCCESS } else { ExitCode::from(1) }, is_read))
    }

    /// `--follow`: a deletion that was sent before, by whomever.
    async fn look_after(&self, gateway: &Gateway, deletion: &str) -> Outcome {
        if !deletion.starts_with("del_") {
            return Err(Failure::Usage("--follow needs a deletion's id, such as del_…".to_owned()));
        }
        let id = OnceCell::from(deletion.to_owned());
        let advice = format!("onedelete delete --follow {deletion}");
        let mut errand = Errand {
            gateway,
            progress: Progress::new(self.quiet),
            name: String::new(),
            advice: advice.clone(),
            id: &id,
            in_doubt: false,
        };
        let stop = watch_for_signals();
        let following = async {
            if self.cancel {
                gateway.cancel(deletion).await.map_err(|fault| failure(&fault))?;
            }
            let finished = errand.follow(deletion).await.map_err(|lookout| match lookout {
                Lookout::Absent(text) => Failure::Usage(text),
                Lookout::Failed(failure) => failure,
            })?;
            Ok(self.print(&mut errand, finished).await?.0)
        };
        tokio::select! {
            outcome = following => outcome,
            () = stop.cancelled() => Ok(interruption(id.get(), None)),
        }
    }

    /// `--dry-run`.
    async fn plan(&self, gateway: &Gateway, source: &Source, survey: &Survey) -> Outcome {
        let count = survey.count;
        if count > MOST_AT_ONCE {
            let text = format!("--dry-run takes at most {MOST_AT_ONCE} contacts, not {count}; nothing was sent");
            return Err(Failure::Usage(text));
        }
        let text = self.ask_for_plan(gateway, source, survey).await?;
        let all = report::print_plan(self.output, self.outcome.as_deref(), &text);
        Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    async fn ask_for_plan(&self, gateway: &Gateway, source: &Source, survey: &Survey) -> Result<String, Failure> {
        // A dry run takes no notice of a key.
        let name = uuid::Uuid::new_v4().to_string();
        let answer = gateway.post(self.document(source, survey, true)?, &name, 0).await;
        Ok(answer.map_err(|fault| failure(&fault))?.0)
    }

    /// Shows what would be done and asks; on anything but a terminal, `--yes` is needed.
    async fn ask(&self, gateway: &Gateway, source: &Source, survey: &Survey) -> Result<(), Failure> {
        let count = survey.count;
        if !std::io::stdin().is_terminal() || self.reads_stdin() {
            return Err(Failure::Usage(
                "this deletes contacts for good: say --yes, or run it on a terminal".to_owned(),
            ));
        }
        if count > MOST_AT_ONCE {
            output::note(&format!("{count} contacts are to be deleted at {}, for good.", gateway.url()));
        } else {
            let would = report::would_delete(&self.ask_for_plan(gateway, source, survey).await?);
            output::note(&format!("{would} of {count} contacts would be deleted at {}, for good.", gateway.url()));
        }
        output::note(&format!("Type {count} to go on:"));
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer);
        if read.is_ok() && answer.trim() == count.to_string() {
            return Ok(());
        }
        Err(Failure::Usage("nothing was sent".to_owned()))
    }

    /// All contacts as one JSON document.
    fn document(&self, source: &Source, survey: &Survey, dry_run: bool) -> Result<Bytes, Failure> {
        let unread = |mistake: input::Mistake| Failure::Usage(mistake.to_string());
        let mut text = format!("{{\"dry_run\":{dry_run}");
        for (name, value) in self.options().into_iter().filter_map(|(name, value)| Some((name, value?))) {
            text.push_str(&format!(",\"{name}\":{}", serde_json::Value::from(value)));
        }
        text.push_str(",\"contacts\":[");
        let mut tally = source.tally();
        for (n, line) in source.read().map_err(unread)?.enumerate() {
            if n > 0 {
                text.push(',');
            }
            let line = line.map_err(unread)?;
            tally.add(&line);
            text.push_str(&line);
        }
        if tally.survey() != *survey {
            return Err(Failure::Usage("the file was changed while it was read; nothing was sent".to_owned()));
        }
        text.push_str("]}");
        Ok(text.into())
    }
}

/// A failure where nothing is asked twice.
fn failure(fault: &Fault) -> Failure {
    match fault {
        Fault::Refused(refusal) => {
            let contacts = refusal.contacts.iter().map(|(_, what)| format!("\n  {what}")).collect::<String>();
            Failure::Usage(format!("{}{contacts}", refusal.text))
        }
        _ => Failure::Unreachable(fault.to_string()),
    }
}

fn remove(note: Option<Note>) {
    let Some(note) = note else { return };
    let path = note.path().to_owned();
    if let Err(err) = note.remove()
        && err.kind() != std::io::ErrorKind::NotFound
    {
        output::note(&format!("warning: {} is of no more use and could not be removed: {err}", path.display()));
    }
}

/// Cancelled by the first Ctrl-C or SIGTERM. The second ends the process at once, whatever it is waiting for.
fn watch_for_signals() -> CancellationToken {
    let stop = CancellationToken::new();
    let (first, told) = (interrupted(), stop.clone());
    TaskTracker::new().spawn(async move {
        first.await;
        let second = interrupted();
        told.cancel();
        second.await;
        std::process::exit(UNLEARNT.into());
    });
    stop
}

/// What to say to somebody who stops waiting.
fn interruption(id: Option<&String>, advice: Option<&str>) -> ExitCode {
    let advice = advice.unwrap_or("the same command again");
    output::note(&match id {
        Some(id) => format!(
            "interrupted; deletion {id} goes on at the gateway\n\
             to see its end: {advice}\n\
             without sending it again: onedelete delete --follow {id}\n\
             to stop it: onedelete delete --follow {id} --cancel"
        ),
        None => format!("interrupted; the gateway may have accepted the deletion: {advice}"),
    });
    ExitCode::from(UNLEARNT)
}
