//! The files of secrets that a configuration names: the key of the network, and the token of HTTP.

use std::path::Path;

use libp2p::pnet::PreSharedKey;

use super::Error;
use crate::net::transport;

/// Reads the key of the network. Warns if it can be guessed.
///
/// # Errors
/// If the file cannot be read, or is none of a key.
pub(super) fn read_psk(path: Option<&Path>) -> Result<Option<PreSharedKey>, Error> {
    let Some(path) = path else {
        return Ok(None);
    };
    let psk = transport::psk_from_file(path).map_err(Error::new)?;
    if psk.is_weak {
        log::warn!("{}", weak(path));
    }
    Ok(Some(psk.key))
}

/// The sentence about a key that was not drawn at random.
fn weak(path: &Path) -> String {
    format!(
        "key file {}: this key is not random, so that others can guess it and join: make another with the command in \
         the README, and give it to all devices",
        path.display()
    )
}

/// What is wrong with a file that a setting names.
#[cfg(feature = "program")]
pub(crate) struct Fault {
    /// The setting.
    pub(crate) key: &'static str,
    pub(crate) sentence: String,
    /// A process does not start with it.
    pub(crate) is_refused: bool,
}

/// What is wrong with the files that a configuration names.
#[cfg(feature = "program")]
pub(crate) fn examine(config: &crate::config::Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut say = |key, sentence, is_refused| {
        faults.push(Fault {
            key,
            sentence,
            is_refused,
        });
    };
    if let Some(path) = &config.psk {
        match transport::psk_from_file(path) {
            Err(error) => say("psk", error.to_string(), true),
            Ok(psk) if psk.is_weak => say("psk", weak(path), false),
            Ok(_) => {}
        }
        if let Some(open) = super::mistakes::open_key(path) {
            say("psk", format!("{}; {}", open.what, open.hint), false);
        }
    }
    #[cfg(feature = "http")]
    if let Some(path) = &config.http_token {
        if let Err(error) = super::http::token(path) {
            say("http-token", error.to_string(), true);
        }
        if let Some(open) = super::http::open_token(path) {
            say("http-token", open, false);
        }
    }
    let secrets = [
        ("psk", config.psk.as_deref()),
        #[cfg(feature = "http")]
        ("http-token", config.http_token.as_deref()),
    ];
    for (key, path) in secrets {
        if let Some(path) = path.filter(|path| path.is_relative()) {
            let path = path.display();
            let sentence = format!(
                "{path} is looked for where the process is started: give the whole path, from / on"
            );
            say(key, sentence, false);
        }
    }
    faults
}
