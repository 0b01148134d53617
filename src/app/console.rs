//! The console as the settings have it: its token, and who reaches it how.
//!
//! What it shows is said in `console`.

use std::net::SocketAddr;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use crate::console::{Access, Configured, Console};
use crate::desk::Desk;
use crate::engine::driver::Engine;
use crate::settings::Settings;

/// The shortest token, in characters.
const SHORTEST_TOKEN: usize = 32;

/// Reads the token that opens the console; none, if none is set.
///
/// # Errors
/// One line: the setting leads nowhere, or to something that could be guessed.
pub fn token(settings: &Settings) -> Result<Option<SecretString>, String> {
    let token = settings.server.admin_token.read().map_err(|why| format!("server.admin_token: {why}"))?;
    let short = token.as_ref().is_some_and(|token| token.expose_secret().chars().count() < SHORTEST_TOKEN);
    match short {
        true => Err(format!("server.admin_token: leads to a secret of less than {SHORTEST_TOKEN} characters")),
        false => Ok(token),
    }
}

/// The console of an admin listener at this address.
pub(super) fn open(
    settings: &Settings,
    listen: SocketAddr,
    desk: &Arc<Desk>,
    engine: &Arc<Engine>,
    configured: Configured,
) -> Result<Console, String> {
    let token = token(settings)?;
    let token = token.as_ref().map(ExposeSecret::expose_secret);
    let secure = settings.server.behind_tls || (settings.server.tls.is_on() && settings.server.tls.admin);
    let access = Access { listen, token, secure };
    Ok(Console::new(Arc::clone(desk), Arc::clone(engine), &access, configured))
}
