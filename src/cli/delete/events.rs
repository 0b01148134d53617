//! Server-sent events: bytes, cut anywhere, to events. What a browser does with ids and waiting times is left out.

/// The longest event, in bytes. The gateway's have a few hundred.
const LONGEST: usize = 64 * 1024;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Empty if the stream gave none.
    pub(super) name: String,
    pub(super) data: String,
}

/// What has been read so far.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    returned: bool,
    begun: bool,
}

/// An event was too long, or not text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl Events {
    /// Takes in the next bytes and gives the events that they complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Unreadable> {
        let mut complete = Vec::new();
        for byte in bytes {
            let follows = std::mem::replace(&mut self.returned, *byte == b'\r');
            match byte {
                b'\n' if follows => {}
                b'\n' | b'\r' => complete.extend(self.end_of_line()?),
                byte if self.line.len() + self.event.data.len() < LONGEST => self.line.push(*byte),
                _ => return Err(Unreadable),
            }
        }
        Ok(complete)
    }

    fn end_of_line(&mut self) -> Result<Option<Event>, Unreadable> {
        let line = std::mem::take(&mut self.line);
        let line = str::from_utf8(&line).map_err(|_| Unreadable)?;
        let line = if std::mem::replace(&mut self.begun, true) { line } else { line.trim_start_matches('\u{feff}') };
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return Ok(std::mem::take(&mut self.has_data).then_some(event));
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => self.event.name = value.to_owned(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment (it has no name), or something that is of no use here.
            _ => {}
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{feff}: hello\n\nevent: progress\ndata: {\"a\":\ndata:1}\nid: 7\n\n:\r\nretry: 5\r\n\r\n\
                          event:finished\r\ndata: é\r\n\r\ndata\r\rdata: cut";

    fn expected() -> Vec<Event> {
        [("progress", "{\"a\":\n1}"), ("finished", "é"), ("", "")]
            .map(|(name, data)| Event { name: name.to_owned(), data: data.to_owned() })
            .into()
    }

    #[test]
    fn a_stream_may_be_cut_anywhere() {
        let bytes = STREAM.as_bytes();
        for first in 0..=bytes.len() {
            for second in [first, (first + 1).min(bytes.len()), bytes.len()] {
                let mut events = Events::default();
                let parts = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let found: Vec<_> = parts.iter().flat_map(|part| events.feed(part).unwrap()).collect();
                assert_eq!(found, expected(), "cut at {first} and {second}");
            }
        }
        let mut events = Events::default();
        let found: Vec<_> = bytes.chunks(1).flat_map(|byte| events.feed(byte).unwrap()).collect();
        assert_eq!(found, expected());
    }

    #[test]
    fn what_is_too_long_or_no_text_is_an_error() {
        assert_eq!(Events::default().feed(&vec![b'x'; LONGEST + 1]), Err(Unreadable));
        let many = "data: x\n".repeat(LONGEST);
        assert_eq!(Events::default().feed(many.as_bytes()), Err(Unreadable));
        assert_eq!(Events::default().feed(b"data: \xff\n"), Err(Unreadable));
    }
}
