//! TLS on the listeners as the settings have it.
//!
//! What the files must be is said in `server::tls`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::server::tls::{self, Mistake, Tls, TlsFiles};
use crate::settings::{ClientCertificates, ConfigError, Settings};

/// Everything that is wrong with the files of TLS now, file by file; nothing, where there is no TLS. This blocks.
pub fn check(settings: &Settings) -> Vec<ConfigError> {
    files(settings).map(|files| tls::check(&files)).unwrap_or_default().into_iter().map(shown).collect()
}

/// Reads the files of TLS; `None`, where there is none.
pub(super) async fn open(settings: &Settings) -> Result<Option<Arc<Tls>>, Vec<ConfigError>> {
    let Some(files) = files(settings) else { return Ok(None) };
    let path = files.certificate.clone();
    match tokio::task::spawn_blocking(move || Tls::open(files)).await {
        Ok(Ok(tls)) => Ok(Some(tls)),
        Ok(Err(mistakes)) => Err(mistakes.into_iter().map(shown).collect()),
        Err(_) => Err(vec![ConfigError::new(path, "", "could not be read", None)]),
    }
}

fn files(settings: &Settings) -> Option<TlsFiles> {
    let server = &settings.server;
    server.tls.is_on().then(|| TlsFiles {
        certificate: server.tls.certificate.clone(),
        key: server.tls.key.clone(),
        client_ca: client_ca(settings),
        http2: server.http2,
        poll: Duration::from_millis(server.tls.poll_ms),
    })
}

fn client_ca(settings: &Settings) -> Option<PathBuf> {
    match settings.server.tls.client_certificates {
        ClientCertificates::None => None,
        ClientCertificates::Required => Some(settings.server.tls.client_ca.clone()),
    }
}

fn shown(Mistake { setting, file, message }: Mistake) -> ConfigError {
    ConfigError::new(file, setting, message, None)
}
