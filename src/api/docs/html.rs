//! A page of HTML, written from front to back. Whatever is not marked as raw is escaped.

/// A page that is being written.
pub(super) struct Page {
    text: String,
}

const LINKS: &[(&str, &str)] = &[
    ("/docs", "API"),
    ("/docs/problems", "Problems"),
    ("/docs/errors", "Error codes"),
    ("/openapi.json", "openapi.json"),
];

impl Page {
    /// A page with this title, and the links that all pages have.
    pub(super) fn new(title: &str) -> Self {
        let mut page = Self { text: String::with_capacity(64 << 10) };
        page.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
        page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
        page.raw("<meta name=\"color-scheme\" content=\"light dark\">");
        page.raw(&format!("<title>{} · onedelete</title>", escape(title)));
        page.raw("<link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"/docs/page.css\">");
        page.raw("<script src=\"/docs/page.js\" defer></script></head><body>");
        page.raw(
            "<a class=\"skip\" href=\"#main\">To the content</a><header><nav aria-label=\"Pages\"><b>onedelete</b>",
        );
        for (to, name) in LINKS {
            page.raw(&format!("<a href=\"{to}\">{name}</a>"));
        }
        page.raw("</nav></header><main id=\"main\">");
        page.prose("h1", title);
        page
    }

    /// HTML as it is.
    pub(super) fn raw(&mut self, html: &str) {
        self.text.push_str(html);
    }

    /// An element with text in it; what stands in backquotes is code.
    pub(super) fn prose(&mut self, element: &str, text: &str) {
        self.raw(&format!("<{element}>"));
        for (n, piece) in text.split('`').enumerate() {
            let piece = escape(piece);
            self.raw(&if n % 2 == 1 { format!("<code>{piece}</code>") } else { piece });
        }
        let name = element.split(' ').next().unwrap_or_default();
        self.raw(&format!("</{name}>"));
    }

    /// A block of code.
    pub(super) fn code(&mut self, text: &str) {
        // Whoever uses the keyboard must be able to scroll it.
        self.raw(&format!("<pre tabindex=\"0\"><code>{}</code></pre>", escape(text)));
    }

    /// The whole page.
    pub(super) fn end(mut self) -> String {
        self.raw("</main></body></html>\n");
        self.text
    }
}

/// Text as HTML, also between double quotes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_place() {
        let mut page = Page::new("<b>");
        page.prose("p", "a `<i>` & \"b\"");
        page.code("</code>");
        let text = page.end();
        assert!(text.contains("<title>&lt;b&gt; · "));
        assert!(text.contains("<p>a <code>&lt;i&gt;</code> &amp; &quot;b&quot;</p>"));
        assert!(text.contains("&lt;/code&gt;</code></pre>"));
    }
}
