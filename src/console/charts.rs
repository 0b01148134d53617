//! The last hour as two charts: what became of contacts, and how long calls took. The same stands below each as a table.
//!
//! They are drawn here, as SVG, and know nothing of tenants.

use adapters::Outcome;

use super::page::{Count, Page};
use crate::telemetry::minutes::{self, MINUTES, Minute};

/// The chart's height in its own units.
const HEIGHT: u64 = 120;
/// One minute's width, and that of its bar.
const WIDTH: usize = 10;
const BAR: usize = 8;

/// Outcomes that contacts end with, as the chart piles them up.
const SHOWN: [Outcome; 6] =
    [Outcome::Deleted, Outcome::NotFound, Outcome::Rejected, Outcome::Failed, Outcome::Unknown, Outcome::Skipped];

/// Both charts.
pub(super) fn draw(page: &mut Page) {
    let hour = minutes::last_hour();
    let sum = Minute::sum(&hour);
    page.raw("<section id=\"hour\" data-live aria-labelledby=\"hour-title\"><h2 id=\"hour-title\">The last hour</h2>");
    page.raw("<div class=\"charts\">");
    outcomes(page, &hour, &sum);
    latency(page, &hour, &sum);
    page.raw("</div>");
    table(page, &hour);
    page.raw("</section>");
}

fn outcomes(page: &mut Page, hour: &[Minute], sum: &Minute) {
    let total = |minute: &Minute| SHOWN.iter().map(|outcome| minute.outcomes[*outcome as usize]).sum::<u64>();
    let most = hour.iter().map(total).max().unwrap_or(0);
    page.raw("<figure><figcaption><b>Outcomes</b> of contacts in each minute. ");
    match most {
        0 => page.raw("No contact was settled."),
        most => page.text(Count(total(sum))).raw(" were settled; ").text(Count(most)).raw(" in the busiest minute."),
    };
    page.raw("</figcaption>");
    begin(page, "Contacts settled in each minute of the last hour, by outcome");
    for (n, minute) in hour.iter().enumerate() {
        let (mut below, mut top) = (0, HEIGHT);
        for outcome in SHOWN {
            below += minute.outcomes[outcome as usize];
            // Rounded from the whole pile, so that the pieces fit without a gap.
            let next = HEIGHT - below * HEIGHT / most.max(1);
            bar(page, n, next, top - next, outcome.as_str());
            top = next;
        }
    }
    end(page);
    page.raw("<ul class=\"legend\">");
    for outcome in SHOWN {
        page.raw("<li><svg aria-hidden=\"true\" viewBox=\"0 0 10 10\"><rect class=\"").raw(outcome.as_str());
        page.raw("\" width=\"10\" height=\"10\"/></svg>").raw(outcome.as_str()).raw(" ");
        page.text(Count(sum.outcomes[outcome as usize])).raw("</li>");
    }
    page.raw("</ul></figure>");
}

fn latency(page: &mut Page, hour: &[Minute], sum: &Minute) {
    let calls: u64 = sum.calls.iter().sum();
    page.raw("<figure><figcaption><b>Latency</b> of calls in each minute. ");
    match (sum.percentile(50), sum.percentile(95)) {
        (Some(half), Some(most)) => {
            page.text(Count(calls)).raw(" calls, ").text(Count(sum.lost)).raw(" of them lost; half took ");
            page.text(bound(half)).raw(", 95 % ").text(bound(most)).raw(".");
        }
        _ => drop(page.raw("There was no call.")),
    }
    page.raw("</figcaption>");
    begin(page, "How long half of the calls and 95 % of them took at most in each minute of the last hour");
    let levels = minutes::bounds().len() as u64 + 1;
    let height = |place: usize| (place as u64 + 1) * HEIGHT / levels;
    for seconds in [0.01, 0.1, 1.0, 10.0] {
        if let Some(place) = minutes::bounds().iter().position(|bound| *bound == seconds) {
            let y = HEIGHT - height(place);
            page.raw("<path class=\"line\" d=\"M0 ").text(y).raw("H").text(MINUTES * WIDTH).raw("\"/>");
        }
    }
    for (n, minute) in hour.iter().enumerate() {
        if let (Some(half), Some(most)) = (minute.percentile(50), minute.percentile(95)) {
            let (half, most) = (height(half), height(most));
            bar(page, n, HEIGHT - most, most - half, "most");
            bar(page, n, HEIGHT - half, half, "half");
        }
    }
    end(page);
    page.raw("<ul class=\"legend\">");
    for (class, text) in [("half", "half of the calls"), ("most", "95 % of the calls")] {
        page.raw("<li><svg aria-hidden=\"true\" viewBox=\"0 0 10 10\"><rect class=\"").raw(class);
        page.raw("\" width=\"10\" height=\"10\"/></svg>").raw(text).raw("</li>");
    }
    page.raw("<li>lines: 10 ms, 100 ms, 1 s, 10 s</li></ul></figure>");
}

/// Minutes in which something happened, the newest first.
fn table(page: &mut Page, hour: &[Minute]) {
    page.raw("<details><summary>The same as a table</summary>");
    page.table(
        "The last hour, minutes in which something happened",
        &[
            "Minutes ago",
            "deleted",
            "not_found",
            "rejected",
            "failed",
            "unknown",
            "skipped",
            "Calls",
            "Lost",
            "Half of the calls",
            "95 % of the calls",
        ],
    );
    for (ago, minute) in hour.iter().rev().enumerate() {
        let calls: u64 = minute.calls.iter().sum();
        if calls == 0 && SHOWN.iter().all(|outcome| minute.outcomes[*outcome as usize] == 0) {
            continue;
        }
        page.row().cell().text(ago);
        for outcome in SHOWN {
            page.cell().text(Count(minute.outcomes[outcome as usize]));
        }
        page.cell().text(Count(calls)).cell().text(Count(minute.lost));
        for percent in [50, 95] {
            page.cell().text(minute.percentile(percent).map_or_else(|| "–".to_owned(), bound));
        }
    }
    page.end_table().raw("</details>");
}

fn begin(page: &mut Page, what: &'static str) {
    page.raw("<svg class=\"chart\" role=\"img\" preserveAspectRatio=\"none\" aria-label=\"").raw(what);
    page.raw("\" viewBox=\"0 0 ").text(MINUTES * WIDTH).raw(" ").text(HEIGHT).raw("\">");
}

fn end(page: &mut Page) {
    page.raw("</svg><p class=\"axis\" aria-hidden=\"true\"><span>60 min ago</span><span>now</span></p>");
}

fn bar(page: &mut Page, minute: usize, y: u64, height: u64, class: &'static str) {
    if height > 0 {
        page.raw("<rect class=\"").raw(class).raw("\" x=\"").text(minute * WIDTH + 1).raw("\" y=\"").text(y);
        page.raw("\" width=\"").text(BAR).raw("\" height=\"").text(height).raw("\"/>");
    }
}

/// What a place among the bounds says, for people.
fn bound(place: usize) -> String {
    let bounds = minutes::bounds();
    match (bounds.get(place), bounds.last()) {
        (Some(bound), _) if *bound < 1.0 => format!("at most {} ms", bound * 1_000.0),
        (Some(bound), _) => format!("at most {bound} s"),
        (None, Some(last)) => format!("more than {last} s"),
        (None, None) => String::new(),
    }
}
