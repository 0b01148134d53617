//! How far a deletion is, on stderr: a bar on a terminal, elsewhere a line now and then. It has no colours at all.

use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::deletion::Counts;
use crate::cli::output;

/// Between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// Tells people how far it is.
pub(super) struct Progress {
    quiet: bool,
    bar: Option<ProgressBar>,
    told: Instant,
    phase: Option<Phase>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Sending,
    Following,
}

impl Progress {
    pub(super) fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let bar = (!quiet && stderr().is_terminal() && !dumb).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style());
            bar
        });
        Self { quiet, bar, told: Instant::now(), phase: None }
    }

    /// Something to know; not said if all is to be quiet.
    pub(super) fn note(&self, text: &str) {
        if !self.quiet {
            self.warn(text);
        }
    }

    /// Something that must be known.
    pub(super) fn warn(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    }

    /// So many contacts of all have been sent.
    pub(super) fn sent(&mut self, sent: u64, all: u64) {
        self.tell(Phase::Sending, "sending", sent, all, String::new);
    }

    /// So far is a deletion.
    pub(super) fn settled(&mut self, counts: &Counts) {
        self.tell(Phase::Following, "deleting", counts.done(), counts.requested, || counts.summary());
    }

    /// Takes the bar away: what comes next is the result.
    pub(super) fn end(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn tell(&mut self, phase: Phase, what: &'static str, done: u64, all: u64, more: impl Fn() -> String) {
        let is_new = self.phase.replace(phase) != Some(phase);
        if let Some(bar) = &self.bar {
            bar.update(|state| {
                state.set_len(all);
                state.set_pos(done);
            });
            if is_new {
                bar.set_prefix(what);
                // What was done before is no measure of the speed.
                bar.reset_elapsed();
                bar.reset_eta();
            }
            bar.set_message(more());
        } else if !self.quiet && self.told.elapsed() >= PAUSE {
            self.told = Instant::now();
            let more = more();
            let colon = if more.is_empty() { "" } else { ": " };
            output::note(&format!("{what}, {done} of {all}{colon}{more}"));
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix} [{bar:30}] {human_pos}/{human_len} {rate}, {eta} left  {wide_msg}";
    // The template is a constant; the default style would do as well.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let rate = |state: &ProgressState, text: &mut dyn Write| {
        let _ = write!(text, "{:.0}/s", state.per_sec());
    };
    style.progress_chars("=> ").with_key("rate", rate)
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
