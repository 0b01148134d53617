//! A body in chunks, read strictly and written again in the plainest form: without extensions and trailers, which
//! nobody here reads.
//!
//! It does not know how long a body may be; whoever reads it counts.

use bytes::BytesMut;

use super::head::{Flaw, is_token};

/// The chunks are not as RFC 9112, section 7.1, has them.
const CHUNKS: Flaw = Flaw { code: "chunks", message: "the body is not in proper chunks" };

/// The longest line with a chunk's size, its extensions included.
const LONGEST_SIZE_LINE: usize = 256;
/// Bytes of all extensions of a body together.
const MOST_EXTENSIONS: usize = 16_384;
/// Bytes of all trailer lines together.
const MOST_TRAILERS: usize = 4_096;
/// Hexadecimal digits of a chunk's size: no number of so many overflows.
const MOST_DIGITS: usize = 15;

/// Where in its chunks a body is.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    place: Place,
    extensions: usize,
    trailers: usize,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Size,
    Data(u64),
    AfterData,
    Trailers,
}

impl Chunks {
    /// Moves what is sound from `raw` to `sound`, and says whether the body ended there.
    pub(super) fn read(&mut self, raw: &mut BytesMut, sound: &mut BytesMut) -> Result<bool, Flaw> {
        loop {
            match &mut self.place {
                Place::Size => {
                    let Some(line) = line(raw, LONGEST_SIZE_LINE)? else { return Ok(false) };
                    let (size, extensions) = size(&line)?;
                    self.extensions += extensions;
                    if self.extensions > MOST_EXTENSIONS {
                        return Err(CHUNKS);
                    }
                    self.place = if size == 0 { Place::Trailers } else { Place::Data(size) };
                }
                Place::Data(left) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let data = raw.split_to(raw.len().min(most));
                    if data.is_empty() {
                        return Ok(false);
                    }
                    sound.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                    sound.extend_from_slice(&data);
                    sound.extend_from_slice(b"\r\n");
                    *left -= data.len() as u64;
                    if *left > 0 {
                        return Ok(false);
                    }
                    self.place = Place::AfterData;
                }
                Place::AfterData => match line(raw, 0)? {
                    Some(_) => self.place = Place::Size,
                    None => return Ok(false),
                },
                Place::Trailers => {
                    let Some(line) = line(raw, MOST_TRAILERS - self.trailers)? else { return Ok(false) };
                    self.trailers += line.len();
                    if line.is_empty() {
                        sound.extend_from_slice(b"0\r\n\r\n");
                        return Ok(true);
                    }
                    let name = line[..].split(|byte| *byte == b':').next().unwrap_or_default();
                    let named = name.len() < line.len() && !name.is_empty() && name.iter().all(is_token);
                    if !named || !line.iter().all(is_text) {
                        return Err(CHUNKS);
                    }
                }
            }
        }
    }
}

fn is_text(byte: &u8) -> bool {
    *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)
}

/// The next line without its end, once it is all there.
fn line(raw: &mut BytesMut, longest: usize) -> Result<Option<BytesMut>, Flaw> {
    for (at, byte) in raw.iter().enumerate() {
        let after_cr = at > 0 && raw[at - 1] == b'\r';
        if after_cr != (*byte == b'\n') {
            return Err(CHUNKS);
        }
        if after_cr {
            let mut line = raw.split_to(at + 1);
            line.truncate(at - 1);
            return Ok(Some(line));
        }
        if at >= longest && *byte != b'\r' {
            return Err(CHUNKS);
        }
    }
    Ok(None)
}

/// A chunk's size, and how long its extensions are.
fn size(line: &[u8]) -> Result<(u64, usize), Flaw> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at(digits);
    let blank = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
    let extended = rest.is_empty() || (rest.get(blank) == Some(&b';') && rest.iter().all(is_text));
    let number = std::str::from_utf8(number).ok().and_then(|number| u64::from_str_radix(number, 16).ok());
    match number {
        Some(number) if digits <= MOST_DIGITS && extended => Ok((number, rest.len())),
        _ => Err(CHUNKS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a body, and of what came behind it; the same in any pieces.
    fn read(text: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Flaw> {
        let in_pieces = |size: usize| {
            let (mut chunks, mut raw, mut sound) = (Chunks::default(), BytesMut::new(), BytesMut::new());
            let mut came = 0;
            for piece in text.chunks(size) {
                raw.extend_from_slice(piece);
                came += piece.len();
                if chunks.read(&mut raw, &mut sound)? {
                    return Ok(Some((data(&sound), text.len() - came + raw.len())));
                }
            }
            Ok(None)
        };
        let whole = in_pieces(text.len().max(1));
        for size in 1..=5 {
            assert_eq!(in_pieces(size), whole, "{text:?} in pieces of {size}");
        }
        whole
    }

    /// The data of chunks in the plainest form.
    fn data(mut sound: &[u8]) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            let end = sound.iter().position(|byte| *byte == b'\r').unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&sound[..end]).unwrap(), 16).unwrap();
            sound = &sound[end + 2..];
            data.extend_from_slice(&sound[..size]);
            assert!(sound[size..].starts_with(b"\r\n"));
            sound = &sound[size + 2..];
            if size == 0 {
                assert!(sound.is_empty());
                return data;
            }
        }
    }

    #[test]
    fn what_is_sound_comes_through_without_extensions_and_trailers() {
        for (text, expected, behind) in [
            ("0\r\n\r\n", "", 0),
            ("3\r\nabc\r\n0\r\n\r\nGET", "abc", 3),
            ("003;x=\"y\"\r\nabc\r\nA ;z\r\n0123456789\r\n00\r\n\r\n", "abc0123456789", 0),
            ("1\r\n\r\r\n0\r\nTransfer-Encoding: chunked\r\nX:\r\n\r\n", "\r", 0),
        ] {
            assert_eq!(read(text.as_bytes()), Ok(Some((expected.into(), behind))), "{text:?}");
        }
        for text in ["", "3", "3\r\n", "3\r\nab", "3\r\nabc", "3\r\nabc\r\n", "3\r\nabc\r\n0\r\n", "0\r\nA: b\r\n"] {
            assert_eq!(read(text.as_bytes()), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_is_refused() {
        for text in [
            "\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1 \r\na\r\n",
            " 1\r\na\r\n",
            "g\r\n",
            "1\na\n0\n\n",
            "1\ra",
            "1;\n\r\n",
            "1;\u{0}\r\n",
            "1\r\nab\r\n",
            "1\r\na0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "0\r\n\n",
            "0\r\nA b: c\r\n\r\n",
            "0\r\n: c\r\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA: \u{0}\r\n\r\n",
            "0000000000000001\r\na\r\n",
            "ffffffffffffffff\r\n",
            "10000000000000000\r\n",
        ] {
            assert_eq!(read(text.as_bytes()), Err(CHUNKS), "{text:?}");
        }
        assert_eq!(read(format!("1;{}", "x".repeat(300)).as_bytes()), Err(CHUNKS));
        let extended = format!("1;{}\r\na\r\n", "x".repeat(200));
        assert_eq!(read(extended.repeat(100).as_bytes()), Err(CHUNKS));
        assert_eq!(read(format!("0\r\n{}", "A: b\r\n".repeat(2_000)).as_bytes()), Err(CHUNKS));
    }
}
