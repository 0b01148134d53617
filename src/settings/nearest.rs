//! "Did you mean …": the known word that is nearest to a wrong one.
//!
//! It only compares; what is known and what is said stands with the caller.

/// The nearest of the known words, if it is close enough to be what was meant.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A longer word is no typo; comparing it would only cost time.
    if word.len() > 64 {
        return None;
    }
    let best = known.into_iter().map(|known| (distance(&plain(word), &plain(known)), known)).min()?;
    let (distance, known) = best;
    let close = distance * 5 <= word.chars().count().max(known.len()) * 2;
    // `stream` for `stream_id`.
    let shortened = word.len() >= 3 && known.starts_with(&word.to_ascii_lowercase());
    (close || shortened).then_some(known)
}

/// The hint for it.
pub(crate) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    nearest(word, known).map(|known| format!("did you mean {known}?"))
}

/// Case and the choice of `-`, `_`, `.` are not what makes two words different.
fn plain(word: &str) -> Vec<char> {
    word.chars().map(|c| if matches!(c, '-' | '.' | ' ') { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let (mut before, mut last): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word() {
        let known = ["bas_ip", "kore_ai", "onlyoffice", "talkdesk", "wethod"];
        for (word, expected) in [
            ("kore", Some("kore_ai")),
            ("koreai", Some("kore_ai")),
            ("Kore-AI", Some("kore_ai")),
            ("only_office", Some("onlyoffice")),
            ("talkdsek", Some("talkdesk")),
            ("hubspot", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn distances_count_edits() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        for (a, b, edits) in [("", "", 0), ("a", "", 1), ("ab", "ba", 1), ("rate", "rte", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(&chars(a), &chars(b)), edits, "{a} {b}");
        }
    }
}
