//! The options of `identity` and its commands.

use argh::FromArgs;

/// Save, restore or remove the identity of a daemon: its private key, which is its peer id.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "identity", help_triggers("-h", "--help", "help"))]
pub(crate) struct Identity {
    #[argh(subcommand)]
    pub(crate) what: Action,
}

/// What is done with the identity.
#[derive(Debug, FromArgs)]
#[argh(subcommand)]
pub(crate) enum Action {
    Export(Export),
    Import(Import),
    Reset(Reset),
}

/// Write the private key into a new file, which only its owner can read. The daemon may run.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "export", help_triggers("-h", "--help", "help"))]
pub(crate) struct Export {
    /// data directory of the daemon
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: String,

    /// the file to make, or - for stdout
    #[argh(positional, arg_name = "file")]
    pub(crate) file: String,
}

/// Give a data directory without an identity the one of an exported file. No daemon may run on it.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "import", help_triggers("-h", "--help", "help"))]
pub(crate) struct Import {
    /// data directory of the daemon; it is made if needed
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: String,

    /// the file, or - for stdin
    #[argh(positional, arg_name = "file")]
    pub(crate) file: String,
}

/// Remove the identity and what the daemon remembers, so that its next start makes a new identity:
/// before a disk is copied to other devices. No daemon may run on it.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "reset", help_triggers("-h", "--help", "help"))]
pub(crate) struct Reset {
    /// data directories of daemons
    #[argh(positional, arg_name = "dir")]
    pub(crate) dirs: Vec<String>,
}
