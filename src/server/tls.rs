//! TLS on a listener: certificate, key and authorities from files, read again when they change. A set of files is taken
//! whole or not at all; with one that is no good, the last good one stays in use.
//!
//! It takes no early data (what comes in it can be played back), and asks nobody whether a certificate was revoked.

mod validity;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::{clock, telemetry};
use validity::Validity;

/// The files of a listener's TLS, and how it is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, then those that lead to its authority (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// The authorities (PEM) of callers' certificates; `None` asks callers for none.
    pub client_ca: Option<PathBuf>,
    /// Whether callers may ask for HTTP/2.
    pub http2: bool,
    /// Between two looks at the files; zero is never.
    pub poll: Duration,
}

/// What is wrong with one of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The setting that names the file.
    pub setting: &'static str,
    /// The file.
    pub file: PathBuf,
    /// The end of a sentence that begins with the file. Nothing that stands in the file is in it.
    pub message: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.file.display(), self.setting, self.message)
    }
}

const CERTIFICATE: &str = "server.tls.certificate";
const KEY: &str = "server.tls.key";
const CLIENT_CA: &str = "server.tls.client_ca";

/// No file of certificates is longer, in bytes: a wrong path must not fill the memory.
const LONGEST: u64 = 1 << 20;
/// What rustls keeps of an answer for a caller who does not read. More would hide from the gate that nobody reads.
const UNSENT: usize = 16 * 1_024;
/// From so long before its end, a certificate is warned of.
const NEAR_ITS_END: i64 = 14 * DAY_S as i64;
const DAY_S: u64 = 86_400;

/// TLS as the files have it.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    loaded: RwLock<Arc<Loaded>>,
    /// How the files looked when they were last read.
    read: Mutex<Looks>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    validity: Validity,
}

/// How files look from outside: when they were changed, how long they are, and which they are.
type Looks = Vec<Option<(SystemTime, u64, u64)>>;

/// Everything that is wrong with the files now, a certificate that is not valid at this time included. This blocks.
pub fn check(files: &TlsFiles) -> Vec<Mistake> {
    match load(files) {
        Ok(loaded) => untimely(files, &loaded).into_iter().collect(),
        Err(mistakes) => mistakes,
    }
}

impl Tls {
    /// Reads the files. A certificate that is not valid at this time is taken, with a warning: what was accepted must go
    /// on even then. This blocks.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, Vec<Mistake>> {
        let looks = look(&files);
        let loaded = Arc::new(load(&files)?);
        let tls = Arc::new(Self { files, loaded: RwLock::new(loaded), read: Mutex::new(looks) });
        tls.tell_when_it_ends();
        Ok(tls)
    }

    /// Reads the files again: from now on, connections are made with what stands there. Those that are open go on. This
    /// blocks.
    ///
    /// # Errors
    /// Everything that is wrong. Then nothing has changed.
    pub fn reload(&self) -> Result<(), Vec<Mistake>> {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = look(&self.files);
        let loaded = load(&self.files).and_then(|loaded| match untimely(&self.files, &loaded) {
            // One that is over as well is no reason to keep the old one.
            Some(mistake) if untimely(&self.files, &self.loaded()).is_none() => Err(vec![mistake]),
            _ => Ok(loaded),
        });
        match loaded {
            Ok(loaded) => {
                let expires = clock::rfc3339(loaded.validity.until_s.saturating_mul(1_000));
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                tracing::info!(expires, "the TLS files were read again, and are in use");
                self.tell_when_it_ends();
                Ok(())
            }
            Err(mistakes) => {
                let all: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
                tracing::error!(mistakes = all.join("; "), "the TLS files are not in use: the last good ones stay");
                Err(mistakes)
            }
        }
    }

    /// Reads the files again whenever they have changed and have then stayed as they are for one look: until then,
    /// somebody may be writing them.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let never = self.files.poll.is_zero();
        let poll = if never { Duration::from_secs(DAY_S) } else { self.files.poll };
        let mut before = None;
        let mut told = Instant::now();
        while stop.run_until_cancelled(tokio::time::sleep(poll)).await.is_some() {
            if told.elapsed() >= Duration::from_secs(DAY_S) {
                told = Instant::now();
                self.tell_when_it_ends();
            }
            if never {
                continue;
            }
            let tls = Arc::clone(&self);
            let last = before.take();
            let looked = tokio::task::spawn_blocking(move || {
                let looks = look(&tls.files);
                let is_new = *tls.read.lock().unwrap_or_else(PoisonError::into_inner) != looks;
                if is_new && last.as_ref() == Some(&looks) {
                    // It has said itself what is wrong.
                    let _ = tls.reload();
                }
                looks
            });
            before = looked.await.ok();
        }
    }

    /// The server's side of the handshake. How long it may take is for the caller to say.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.loaded().config));
        acceptor.accept_with(stream, |connection| connection.set_buffer_limit(Some(UNSENT))).await
    }

    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell_when_it_ends(&self) {
        let until_s = self.loaded().validity.until_s;
        telemetry::certificate_expires(until_s);
        let expires = clock::rfc3339(until_s.saturating_mul(1_000));
        match untimely(&self.files, &self.loaded()) {
            Some(mistake) => tracing::error!(expires, "{mistake}"),
            None if until_s - now_s() < NEAR_ITS_END => {
                tracing::warn!(expires, "{}: the certificate ends soon", self.files.certificate.display());
            }
            None => {}
        }
    }
}

fn now_s() -> i64 {
    clock::unix_ms().div_euclid(1_000)
}

/// What is wrong with the certificate today.
fn untimely(files: &TlsFiles, loaded: &Loaded) -> Option<Mistake> {
    let (now, Validity { from_s, until_s }) = (now_s(), loaded.validity);
    let moment = |s: i64| clock::rfc3339(s.saturating_mul(1_000));
    let message = if now > until_s {
        format!("a certificate in it is over since {}", moment(until_s))
    } else if now < from_s {
        format!("a certificate in it is not valid before {}", moment(from_s))
    } else {
        return None;
    };
    Some(Mistake { setting: CERTIFICATE, file: files.certificate.clone(), message })
}

fn look(files: &TlsFiles) -> Looks {
    use std::os::unix::fs::MetadataExt as _;
    let look = |file: &Path| {
        let about = fs::metadata(file).ok()?;
        Some((about.modified().ok()?, about.len(), about.ino()))
    };
    let files = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    files.into_iter().flatten().map(|file| look(file)).collect()
}

fn load(files: &TlsFiles) -> Result<Loaded, Vec<Mistake>> {
    let wrong =
        |setting, file: &Path, message: &str| Mistake { setting, file: file.to_owned(), message: message.into() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates(&files.certificate)
        .and_then(|chain| Ok((Validity::of_all(&chain)?, chain)))
        .map_err(|message| wrong(CERTIFICATE, &files.certificate, &message));
    let key = private_key(&files.key).and_then(|key| {
        let usable = provider.key_provider.load_private_key(key.clone_key()).is_ok();
        if usable { Ok(key) } else { Err("the private key is of a kind that cannot be used".to_owned()) }
    });
    let key = key.map_err(|message| wrong(KEY, &files.key, &message));
    let callers = files.client_ca.as_deref().map(|file| {
        let verifier = authorities(file).and_then(|roots| {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
            verifier.map_err(|_| "no certificate in it can be an authority's".to_owned())
        });
        verifier.map_err(|message| wrong(CLIENT_CA, file, &message))
    });
    let (chain, key, callers) = match (chain, key, callers.transpose()) {
        (Ok(chain), Ok(key), Ok(callers)) => (chain, key, callers),
        (chain, key, callers) => return Err([chain.err(), key.err(), callers.err()].into_iter().flatten().collect()),
    };
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    let unusable = |_| vec![wrong(CERTIFICATE, &files.certificate, "TLS 1.2 and 1.3 are not available")];
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions).map_err(unusable)?;
    let config = match callers {
        Some(verifier) => config.with_client_cert_verifier(verifier),
        None => config.with_no_client_auth(),
    };
    let (validity, chain) = chain;
    let mut config = config.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            vec![wrong(
                KEY,
                &files.key,
                "the private key is not that of the first certificate in server.tls.certificate",
            )]
        }
        _ => vec![wrong(CERTIFICATE, &files.certificate, "the first certificate in it cannot be used")],
    })?;
    config.alpn_protocols = if files.http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Loaded { config: Arc::new(config), validity })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err("there is no certificate (PEM) in it".to_owned()),
        Err(_) => Err("what stands in it is not proper PEM".to_owned()),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    use rustls::pki_types::pem::Error;
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|error| match error {
        Error::NoItemsFound => "there is no private key (PEM, not encrypted) in it".to_owned(),
        _ => "what stands in it is not proper PEM".to_owned(),
    })
}

fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|_| "a certificate in it cannot be an authority's".to_owned())?;
    }
    Ok(roots)
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read = fs::File::open(file).and_then(|open| open.take(LONGEST + 1).read_to_end(&mut text));
    match read {
        Err(error) => Err(format!("cannot be read: {}", error.kind())),
        Ok(length) if length as u64 > LONGEST => Err(format!("is longer than {LONGEST} bytes")),
        Ok(_) => Ok(text),
    }
}

#[cfg(test)]
mod tests;
