//! The traces that the settings name: passed on, and sent to a collector if there is one.

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::settings::Settings;
use crate::telemetry::{Exporter, Tracer};

/// Begins to trace. What was put down last is sent after the token is cancelled.
pub(super) fn begin(settings: &Settings, tasks: &TaskTracker) -> Result<(Tracer, CancellationToken), String> {
    let (otlp, end) = (&settings.telemetry.otlp, CancellationToken::new());
    let exporter = exporter(settings)?.map(|(queue, exporter)| {
        tasks.spawn(exporter.run(end.clone()));
        queue
    });
    Ok((Tracer::new(settings.telemetry.pass_upstream, otlp.sample_one_in, exporter), end))
}

/// Reads the secrets that the collector needs, and keeps none.
///
/// # Errors
/// One line: which setting leads nowhere, or to no headers.
pub fn check_secrets(settings: &Settings) -> Result<(), String> {
    exporter(settings).map(drop)
}

fn exporter(settings: &Settings) -> Result<Option<(crate::telemetry::Queue, Exporter)>, String> {
    let otlp = &settings.telemetry.otlp;
    if otlp.endpoint.is_empty() {
        return Ok(None);
    }
    let headers = otlp.headers.read().map_err(|message| format!("telemetry.otlp.headers: {message}"))?;
    Exporter::new(&otlp.endpoint, headers.as_ref()).map(Some)
}
