//! The commands about settings: `config check`, `config show` and `reload`.

use argh::FromArgs;

/// Check a file of settings, or show settings and where they come from.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "config", help_triggers("-h", "--help", "help"))]
pub(crate) struct Config {
    #[argh(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// What `config` does.
#[derive(Debug, FromArgs)]
#[argh(subcommand)]
pub(crate) enum ConfigCommand {
    Check(ConfigCheck),
    Show(ConfigShow),
}

/// Check a file of settings and list all that is wrong in it, in the files that a daemon reads with
/// it (node.toml, then node.d/*.toml) and in those of keys that they name. Options of a command
/// line, and so OPTIONS= of the packages, are not seen: `config show ROLE OPTIONS` checks these.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "check", help_triggers("-h", "--help", "help"))]
pub(crate) struct ConfigCheck {
    /// role that the file is for: native, indexer or node (default: by the name of the file or of
    /// its directory, as node.toml and node.d/site.toml; else all, and those are told that it
    /// suits)
    #[argh(option, arg_name = "role")]
    pub(crate) role: Option<String>,

    /// the file
    #[argh(positional, arg_name = "file")]
    pub(crate) file: String,
}

/// Show the settings of a daemon, and where each comes from: an option, a line of a file, or the
/// default.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "show", help_triggers("-h", "--help", "help"))]
pub(crate) struct ConfigShow {
    /// data directory of the daemon to ask (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// print JSON, one object on one line (default: text for a person)
    #[argh(switch)]
    pub(crate) json: bool,

    /// the same as --data-dir; or a role and its options: the settings that a daemon would have
    /// that is started with them
    #[argh(positional, greedy, arg_name = "dir-or-role-and-options")]
    pub(crate) line: Vec<String>,
}

/// Have a daemon read its files again: what can change while it runs is applied, and the rest is
/// named.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "reload", help_triggers("-h", "--help", "help"))]
pub(crate) struct Reload {
    /// data directory of the daemon (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// print JSON, one object on one line (default: text for a person)
    #[argh(switch)]
    pub(crate) json: bool,

    /// the same directory
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: Option<String>,
}
