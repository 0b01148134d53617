//! One deletion from the first byte sent to the last result read, over a connection that may break at any point.
//!
//! Everything is asked again under the same idempotency key until it is answered or patience ends, so that nothing is
//! deleted twice. Whoever gives up says how to go on.

use std::cell::OnceCell;
use std::time::Duration;

use bytes::Bytes;

use super::deletion::Deletion;
use super::gateway::{Fault, Gateway, Refusal};
use super::input::{Source, Survey};
use super::patience::Patience;
use super::progress::Progress;
use super::report::{Report, ReportError};
use super::upload::Upload;
use crate::cli::Failure;

/// Between two looks at a running deletion, in milliseconds; longer and longer.
const FIRST_LOOK_MS: u64 = 1_000;
const LAST_LOOK_MS: u64 = 5_000;

/// So long the gateway may wait with its answer to a small deletion, to give its end right away.
const WAIT_S: u32 = 2;

/// A deletion that is asked for.
pub(super) struct Errand<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) progress: Progress,
    /// The idempotency key.
    pub(super) name: String,
    /// What to do after an end without an answer.
    pub(super) advice: String,
    /// The deletion's id, once it is known.
    pub(super) id: &'a OnceCell<String>,
    /// An attempt may have been accepted although no answer came.
    pub(super) in_doubt: bool,
}

/// What is sent.
pub(super) struct Load<'a> {
    pub(super) source: &'a Source,
    pub(super) survey: &'a Survey,
    pub(super) form: Form,
}

/// How it is sent.
pub(super) enum Form {
    /// One JSON document, which is held.
    Document(Bytes),
    /// JSON Lines, which are streamed, with this query.
    Lines(String),
}

/// Why a look at a deletion came to nothing for good.
pub(super) enum Lookout {
    /// The gateway knows no such deletion.
    Absent(String),
    Failed(Failure),
}

impl Errand<'_> {
    /// Sends the deletion until the gateway has answered that it has it.
    pub(super) async fn submit(&mut self, load: &Load<'_>) -> Result<Deletion, Failure> {
        let mut patience = Patience::default();
        loop {
            let fault = match self.attempt(load).await {
                Ok(deletion) => match &deletion.id {
                    Some(id) => {
                        let _ = self.id.set(id.clone());
                        return Ok(deletion);
                    }
                    None => Fault::Lost("the gateway's answer has no id".to_owned()),
                },
                Err(Attempt::Broken(text)) => return Err(self.refused(text)),
                Err(Attempt::Fault(fault)) => fault,
            };
            let wait = match &fault {
                Fault::Refused(refusal) => return Err(self.refused(worded(refusal, load))),
                Fault::Busy(after, _) => patience.busy(*after),
                // Where nobody has answered yet, nobody is likely to.
                Fault::Unconnected(_) if !self.in_doubt && patience.is_fresh() => None,
                Fault::Unconnected(_) | Fault::Lost(_) => patience.lost(),
            };
            let Some(wait) = wait else { return Err(self.unreachable(&fault)) };
            self.progress.note(&format!("{fault}\nasking again in {:.0} s", wait.as_secs_f64().ceil()));
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&mut self, load: &Load<'_>) -> Result<Deletion, Attempt> {
        let Load { source, survey, form } = load;
        match form {
            Form::Document(body) => {
                let answer = self.gateway.post(body.clone(), &self.name, WAIT_S).await;
                self.in_doubt |= matches!(answer, Err(Fault::Lost(_)));
                Ok(answer.map_err(Attempt::Fault)?.1)
            }
            Form::Lines(query) => {
                let (body, sent) =
                    Upload::new(source, survey).map_err(|mistake| Attempt::Broken(mistake.to_string()))?;
                let progress = &mut self.progress;
                let told = |lines| progress.sent(lines, survey.count);
                let answer = self.gateway.upload(query, body, &sent, &self.name, told).await;
                match (answer, sent.broken()) {
                    (Err(_), Some(text)) => Err(Attempt::Broken(format!("{text}; the gateway did not accept it"))),
                    (Err(fault), None) => {
                        // A gateway accepts nothing before the whole of it was there.
                        self.in_doubt |= sent.is_whole() && matches!(fault, Fault::Lost(_));
                        Err(Attempt::Fault(fault))
                    }
                    (Ok(deletion), _) => Ok(deletion),
                }
            }
        }
    }

    /// The gateway takes nothing of it; what an earlier try came to is another matter.
    fn refused(&self, text: String) -> Failure {
        match self.in_doubt {
            true => Failure::Unreachable(format!("{text}; an earlier try may have been accepted: {}", self.advice)),
            false => Failure::Usage(text),
        }
    }

    /// Waits for the end of a deletion: by its events, and by looks at it where there are none.
    pub(super) async fn follow(&mut self, id: &str) -> Result<Deletion, Lookout> {
        let (mut patience, mut has_events, mut pause_ms) = (Patience::default(), true, FIRST_LOOK_MS);
        loop {
            if has_events {
                match self.listen(id, &mut patience).await {
                    Ok(Some(finished)) => return Ok(finished),
                    // A stream that ends before the deletion does is one that was lost.
                    Ok(None) | Err(Fault::Lost(_) | Fault::Unconnected(_) | Fault::Busy(..)) => {}
                    Err(Fault::Refused(_)) => has_events = false,
                }
            }
            let (wait, text) = match self.gateway.look(id).await {
                Ok(deletion) => {
                    self.progress.settled(&deletion.counts);
                    if deletion.is_finished() {
                        return Ok(deletion);
                    }
                    patience.progressed();
                    let pause = Duration::from_millis(pause_ms);
                    pause_ms = (pause_ms * 3 / 2).min(LAST_LOOK_MS);
                    (Some(pause), String::new())
                }
                Err(Fault::Refused(refusal)) if refusal.is_absent => return Err(Lookout::Absent(refusal.text)),
                Err(Fault::Refused(refusal)) if refusal.nothing_sent => (None, refusal.text),
                Err(Fault::Busy(after, text)) => (patience.busy(after), text),
                Err(fault) => (patience.lost(), fault.to_string()),
            };
            let Some(wait) = wait else { return Err(Lookout::Failed(self.unlearnt(&text))) };
            tokio::time::sleep(wait).await;
        }
    }

    /// The finished deletion; `None` if the stream ended before, or if there is none.
    async fn listen(&mut self, id: &str, patience: &mut Patience) -> Result<Option<Deletion>, Fault> {
        let Some(mut listening) = self.gateway.listen(id).await? else { return Ok(None) };
        while let Some((name, deletion)) = listening.next().await? {
            patience.progressed();
            self.progress.settled(&deletion.counts);
            if name == "finished" {
                return Ok(Some(deletion));
            }
        }
        Ok(None)
    }

    /// Reads the results of a finished deletion into a report. A stream that breaks is asked for again.
    pub(super) async fn collect(&mut self, id: &str, report: &mut Report) -> Result<bool, Failure> {
        let mut patience = Patience::default();
        report.begin().map_err(unwritten)?;
        while !report.is_complete() {
            let before = report.taken();
            let fault = match self.take_all(id, report).await {
                Ok(()) if report.is_complete() => break,
                Ok(()) => Fault::Lost("the results ended too early".to_owned()),
                Err(Taking::Fault(fault)) => fault,
                Err(Taking::Failure(failure)) => return Err(failure),
            };
            if report.taken() > before {
                patience.progressed();
            }
            let wait = match &fault {
                Fault::Refused(refusal) => return Err(self.unlearnt(&refusal.text)),
                Fault::Busy(after, _) => patience.busy(*after),
                Fault::Unconnected(_) | Fault::Lost(_) => patience.lost(),
            };
            let Some(wait) = wait else { return Err(self.unlearnt(&fault.to_string())) };
            tokio::time::sleep(wait).await;
        }
        report.end().map_err(unwritten)
    }

    async fn take_all(&self, id: &str, report: &mut Report) -> Result<(), Taking> {
        let mut lines = self.gateway.results(id, report.filter().as_deref()).await.map_err(Taking::Fault)?;
        while let Some(line) = lines.next().await.map_err(Taking::Fault)? {
            match report.take(&line) {
                Ok(()) => {}
                Err(ReportError::Unreadable) => {
                    return Err(Taking::Fault(Fault::Lost("a result cannot be read".to_owned())));
                }
                Err(err) => return Err(Taking::Failure(unwritten(err))),
            }
        }
        Ok(())
    }

    fn unreachable(&self, fault: &Fault) -> Failure {
        Failure::Unreachable(match self.in_doubt {
            true => format!("{fault}; the gateway may have accepted the deletion: {}", self.advice),
            false => format!("{fault}; nothing was accepted"),
        })
    }

    /// The deletion was accepted, and its end could not be learnt.
    fn unlearnt(&self, text: &str) -> Failure {
        Failure::Unreachable(format!("{text}; the deletion goes on at the gateway: {}", self.advice))
    }
}

/// Why an attempt to send came to nothing.
enum Attempt {
    Fault(Fault),
    /// On this side: the contacts could not be read to their end.
    Broken(String),
}

/// Why the results were not read to their end.
enum Taking {
    Fault(Fault),
    Failure(Failure),
}

/// A refusal in which contacts are named by where they stand.
fn worded(refusal: &Refusal, load: &Load<'_>) -> String {
    let mut text = refusal.text.clone();
    for (index, what) in &refusal.contacts {
        let place = load.source.place(*index);
        text.push_str("\n  ");
        text.push_str(&place.map_or_else(|| what.clone(), |place| format!("{place} ({what})")));
    }
    text
}

fn unwritten(err: ReportError) -> Failure {
    let text = match err {
        ReportError::Unwritten(err) => err.to_string(),
        ReportError::Unreadable => "they cannot be read".to_owned(),
    };
    Failure::Unreachable(format!("the results could not be written: {text}; the same command prints them again"))
}
