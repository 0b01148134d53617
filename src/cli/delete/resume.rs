//! The note beside a file that is being sent, `FILE.onedelete`: under which idempotency key, so that the same command goes
//! on with the same deletion after whatever ended it.
//!
//! It holds no identifier and no gateway key, but a digest of the contacts; it is readable by its owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock;

const VERSION: u32 = 1;

/// No note is longer, in bytes.
const LONGEST: u64 = 16 * 1024;

/// What stands in the note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    version: u32,
    /// The gateway.
    pub(super) url: String,
    pub(super) idempotency_key: String,
    /// Of the contacts and the options, as [`super::input::Survey`] has it.
    pub(super) digest: String,
    /// When the deletion was first sent, RFC 3339.
    pub(super) started: String,
    /// The deletion's id, once the gateway has accepted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deletion: Option<String>,
}

/// A note on the disk.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    entry: Entry,
    /// Whether an earlier run wrote it: then that run may have sent the deletion.
    pub(super) found: bool,
}

/// What looking for a note, or writing one, came to.
#[derive(Debug)]
pub(super) enum NoteError {
    /// It is that of another deletion, or cannot be read; the text says what to do.
    Unfit(String),
    /// It cannot be written.
    Unwritable(String),
}

impl Note {
    /// The note beside `file` that an earlier run left, if it is for this gateway and these contacts.
    pub(super) fn find(file: &Path, url: &str, digest: &str) -> Result<Option<Self>, NoteError> {
        let path = path(file);
        let unfit = |text: &str| {
            NoteError::Unfit(format!(
                "{} {text}. Delete it to begin a new deletion, or say which one is meant with --idempotency-key",
                path.display()
            ))
        };
        let read = File::open(&path).and_then(|note| {
            let mut text = String::new();
            note.take(LONGEST).read_to_string(&mut text).map(|_| text)
        });
        let text = match read {
            Ok(text) => text,
            // With a name that is too long for a note there is none; writing one will fail and say so.
            Err(err) if matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => {
                return Ok(None);
            }
            Err(err) => return Err(unfit(&format!("cannot be read: {err}"))),
        };
        let entry: Entry = match serde_json::from_str(&text) {
            Ok(entry) => entry,
            Err(_) => return Err(unfit("is not a note of this program, or of another version, or was cut")),
        };
        if entry.version != VERSION {
            return Err(unfit("is of another version"));
        }
        if entry.url != url {
            return Err(unfit(&format!("belongs to a deletion at {}", entry.url)));
        }
        if entry.digest != digest {
            return Err(unfit(
                "belongs to other contacts or options: the file was changed since, or --connection, \
                              --reason or --reference are others",
            ));
        }
        Ok(Some(Self { path, entry, found: true }))
    }

    /// Writes a note beside `file`; if another run was faster, takes its one.
    pub(super) fn write(file: &Path, url: &str, digest: &str, key: &str) -> Result<Self, NoteError> {
        let path = path(file);
        let entry = Entry {
            version: VERSION,
            url: url.to_owned(),
            idempotency_key: key.to_owned(),
            digest: digest.to_owned(),
            started: clock::rfc3339(clock::unix_ms()),
            deletion: None,
        };
        match entry.write_to(&path) {
            Ok(()) => Ok(Self { path, entry, found: false }),
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                let gone = || NoteError::Unwritable(format!("{} came and went", path.display()));
                Self::find(file, url, digest)?.ok_or_else(gone)
            }
            Err(err) => Err(NoteError::Unwritable(format!("{}: {err}", path.display()))),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Puts down the deletion's id. Without it the next run only has to send the contacts again.
    pub(super) fn accepted(&mut self, deletion: &str) {
        if self.entry.deletion.as_deref() == Some(deletion) {
            return;
        }
        self.entry.deletion = Some(deletion.to_owned());
        let mut beside = self.path.clone().into_os_string();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        if self.entry.write_to(&beside).and_then(|()| fs::rename(&beside, &self.path)).is_err() {
            let _ = fs::remove_file(&beside);
        }
    }

    /// Takes the note away: there is nothing to go on with.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

impl Entry {
    /// Writes a new file, and has it on the disk before anything is sent.
    fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        if let Err(err) = written {
            let _ = fs::remove_file(path);
            return Err(err);
        }
        // Not every file system has folders that can be synchronised.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

fn path(file: &Path) -> PathBuf {
    let mut path = file.to_path_buf().into_os_string();
    path.push(".onedelete");
    path.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_note_is_found_again_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ids.csv");
        assert!(Note::find(&file, "http://g", "d1").unwrap().is_none());
        let mut note = Note::write(&file, "http://g", "d1", "k-1").unwrap();
        assert!(!note.found && note.path().ends_with("ids.csv.onedelete"));
        assert_eq!(fs::metadata(note.path()).unwrap().permissions().mode() & 0o777, 0o600);
        note.accepted("del_1");
        let again = Note::find(&file, "http://g", "d1").unwrap().unwrap();
        assert!(again.found);
        assert_eq!((&again.entry, again.entry.deletion.as_deref()), (&note.entry, Some("del_1")));
        assert_eq!(fs::metadata(again.path()).unwrap().permissions().mode() & 0o777, 0o600);
        // Whoever comes second takes the first one's key.
        let second = Note::write(&file, "http://g", "d1", "k-2").unwrap();
        assert_eq!((second.found, &*second.entry.idempotency_key), (true, "k-1"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
        note.remove().unwrap();
        assert!(Note::find(&file, "http://g", "d1").unwrap().is_none());
    }

    #[test]
    fn a_note_that_does_not_fit_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ids.csv");
        Note::write(&file, "http://g", "d1", "k-1").unwrap();
        let refused = |url: &str, digest: &str| match Note::find(&file, url, digest) {
            Err(NoteError::Unfit(text)) => text,
            other => panic!("{other:?}"),
        };
        let texts = [refused("http://other", "d1"), refused("http://g", "d2")];
        let path = path(&file);
        let entry = fs::read_to_string(&path).unwrap();
        fs::write(&path, entry.replace("\"version\": 1", "\"version\": 2")).unwrap();
        let version = refused("http://g", "d1");
        fs::write(&path, &entry[..20]).unwrap();
        let cut = refused("http://g", "d1");
        for text in texts.iter().chain([&version, &cut]) {
            assert!(text.contains("ids.csv.onedelete") && text.contains("Delete it"), "{text}");
            assert!(text.contains("--idempotency-key") && !text.contains("k-1"), "{text}");
        }
    }

    #[test]
    fn where_nothing_can_be_written_it_says_so() {
        let missing = Path::new("/no/such/folder/ids.csv");
        assert!(matches!(Note::write(missing, "http://g", "d1", "k-1"), Err(NoteError::Unwritable(_))));
        assert!(Note::find(missing, "http://g", "d1").unwrap().is_none());
    }
}
