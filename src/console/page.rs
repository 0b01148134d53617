//! A page of HTML, written from front to back. Text is always escaped: what is written raw is part of the program.
//!
//! It knows nothing of what it shows.

use std::fmt::{self, Display, Write};

use super::door::Visitor;
use crate::clock;

/// A page that is being written.
pub(super) struct Page {
    text: String,
    columns: &'static [&'static str],
    column: usize,
}

/// Where a page stands in the links that all pages have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Deletions,
    Elsewhere,
}

impl Page {
    /// A page with this title. `every` is after how many seconds its live parts are fetched again; none, if 0.
    pub(super) fn new(title: impl Display, place: Place, visitor: Option<&Visitor>, every: u32) -> Self {
        let mut page = Self { text: String::with_capacity(16 << 10), columns: &[], column: 0 };
        page.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
        page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
        page.raw("<meta name=\"color-scheme\" content=\"light dark\"><title>").text(&title);
        page.raw(" · onedelete console</title><link rel=\"icon\" href=\"data:,\">");
        page.raw("<link rel=\"stylesheet\" href=\"/console/page.css\">");
        page.raw("<script src=\"/console/page.js\" defer></script></head><body>");
        page.raw("<a class=\"skip\" href=\"#main\">To the content</a><header><nav aria-label=\"Pages\">");
        page.raw("<b>onedelete</b>");
        if let Some(visitor) = visitor {
            for (to, name, own) in
                [("/console", "Overview", Place::Overview), ("/console/deletions", "Deletions", Place::Deletions)]
            {
                page.raw("<a href=\"").raw(to).raw("\"");
                page.raw(if own == place { " aria-current=\"page\">" } else { ">" }).raw(name).raw("</a>");
            }
            if visitor.signed_in {
                page.form("/console/sign-out", visitor).raw("<button class=\"plain\">Sign out</button></form>");
            }
        }
        page.raw("</nav></header><main id=\"main\" tabindex=\"-1\"");
        if every > 0 {
            page.raw(" data-every=\"").text(every).raw("\"");
        }
        page.raw("><h1>").text(title).raw("</h1>");
        page
    }

    /// HTML as it is.
    pub(super) fn raw(&mut self, html: &'static str) -> &mut Self {
        self.text.push_str(html);
        self
    }

    /// Text, also between double quotes.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a string does not fail.
        let _ = write!(Escaped(&mut self.text), "{text}");
        self
    }

    /// Text, in which what stands in backquotes is code.
    pub(super) fn prose(&mut self, text: &str) -> &mut Self {
        for (n, piece) in text.split('`').enumerate() {
            if n % 2 == 1 {
                self.raw("<code>").text(piece).raw("</code>");
            } else {
                self.text(piece);
            }
        }
        self
    }

    /// A part of a path or a query, between double quotes.
    pub(super) fn part(&mut self, text: &str) -> &mut Self {
        self.text.extend(form_urlencoded::byte_serialize(text.as_bytes()));
        self
    }

    /// A moment, in milliseconds since 1970-01-01 UTC, and how long ago that is.
    pub(super) fn moment(&mut self, unix_ms: i64) -> &mut Self {
        let (written, ago_ms) = (clock::rfc3339(unix_ms), (clock::unix_ms() - unix_ms).max(0));
        self.raw("<time datetime=\"").text(&written).raw("\">").text(written.replace('T', " ").replace('Z', " UTC"));
        self.raw("</time> (").text(Span(ago_ms as u64)).raw(" ago)")
    }

    /// Begins a form that changes something.
    pub(super) fn form(&mut self, to: impl Display, visitor: &Visitor) -> &mut Self {
        self.raw("<form method=\"post\" action=\"").text(to).raw("\"><input type=\"hidden\" name=\"token\" value=\"");
        self.text(&visitor.form_token).raw("\">")
    }

    /// A term and, up to the next one, what is said of it.
    pub(super) fn term(&mut self, term: &'static str) -> &mut Self {
        self.raw("<dt>").raw(term).raw("<dd>")
    }

    /// Begins a table. On a phone its rows become cards, so the roles are said once more.
    pub(super) fn table(&mut self, caption: impl Display, columns: &'static [&'static str]) -> &mut Self {
        (self.columns, self.column) = (columns, 0);
        self.raw("<table role=\"table\"><caption>")
            .text(caption)
            .raw("</caption><thead role=\"rowgroup\"><tr role=\"row\">");
        for column in columns {
            self.raw("<th scope=\"col\" role=\"columnheader\">").raw(column).raw("</th>");
        }
        self.raw("</tr></thead><tbody role=\"rowgroup\">")
    }

    /// Begins a row.
    pub(super) fn row(&mut self) -> &mut Self {
        self.column = 0;
        self.raw("<tr role=\"row\">")
    }

    /// Begins a row's next cell; the first one is its head.
    pub(super) fn cell(&mut self) -> &mut Self {
        let column = self.columns.get(self.column).copied().unwrap_or_default();
        let begin = if self.column == 0 { "<th scope=\"row\" role=\"rowheader\"" } else { "<td role=\"cell\"" };
        self.column += 1;
        self.raw(begin).raw(" data-label=\"").raw(column).raw("\">")
    }

    /// Ends a table.
    pub(super) fn end_table(&mut self) -> &mut Self {
        self.raw("</tbody></table>")
    }

    /// The whole page.
    pub(super) fn end(mut self) -> String {
        self.raw("</main></body></html>\n");
        self.text
    }
}

/// Escapes whatever is written.
struct Escaped<'t>(&'t mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            match char {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                char => self.0.push(char),
            }
        }
        Ok(())
    }
}

/// So many milliseconds, for people.
pub(super) struct Span(pub(super) u64);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000;
        match seconds {
            0 => write!(f, "{} ms", self.0),
            1..60 => write!(f, "{seconds} s"),
            60..3_600 => write!(f, "{} min", seconds / 60),
            3_600..172_800 => write!(f, "{} h", seconds / 3_600),
            _ => write!(f, "{} days", seconds / 86_400),
        }
    }
}

/// So many of something.
pub(super) struct Many(pub(super) u64, pub(super) &'static str);

impl Display for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", Count(self.0), self.1, if self.0 == 1 { "" } else { "s" })
    }
}

/// A number with commas between its thousands.
pub(super) struct Count(pub(super) u64);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (n, digit) in digits.chars().enumerate() {
            if n > 0 && (digits.len() - n).is_multiple_of(3) {
                f.write_char(',')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_place() {
        let mut page = Page::new("<b>", Place::Elsewhere, None, 0);
        page.text("</main> & \"a\" 'b'").prose("x `<i>` y").raw("<a href=\"?q=").part("\"><script>&é").raw("\">");
        let text = page.end();
        assert!(text.contains("<title>&lt;b&gt; · ") && text.contains("<h1>&lt;b&gt;</h1>"), "{text}");
        assert!(text.contains("&lt;/main&gt; &amp; &quot;a&quot; &#39;b&#39;x <code>&lt;i&gt;</code> y"), "{text}");
        assert!(text.contains("<a href=\"?q=%22%3E%3Cscript%3E%26%C3%A9\">"), "{text}");
    }

    #[test]
    fn numbers_and_times_are_for_people() {
        let count = |number| Count(number).to_string();
        assert_eq!([count(0), count(999), count(1_000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        let spans = [999, 59_999, 60_000, 3_600_000, 172_800_000].map(|ms| Span(ms).to_string());
        assert_eq!(spans, ["999 ms", "59 s", "1 min", "1 h", "2 days"]);
    }
}
