//! The options of `network` and its commands, and of `revoke`.

use argh::FromArgs;

/// Prepare a closed network: its key, grants for its devices, and a list of those that are out.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "network", help_triggers("-h", "--help", "help"))]
pub(crate) struct Network {
    #[argh(subcommand)]
    pub(crate) what: NetworkAction,
}

/// What is done with a network's key.
#[derive(Debug, FromArgs)]
#[argh(subcommand)]
pub(crate) enum NetworkAction {
    New(New),
    Grant(Grant),
    Show(ShowGrant),
    Revoke(Revoke),
}

/// Make the key of a new network, network.key, which only its owner can read, and print the
/// network's id. Keep the key off line: who has it decides who belongs to the network.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "new", help_triggers("-h", "--help", "help"))]
pub(crate) struct New {
    /// directory for the key; it is made if needed
    #[argh(positional, arg_name = "dir")]
    pub(crate) dir: String,
}

/// Print a grant for each device: a line of text that the network's key has signed, for the file
/// grant in the device's data directory.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "grant", help_triggers("-h", "--help", "help"))]
pub(crate) struct Grant {
    /// the network's key
    #[argh(option, arg_name = "file")]
    pub(crate) key: String,

    /// what the device may be, native, indexer or node; may be given several times
    #[argh(option, arg_name = "role")]
    pub(crate) role: Vec<String>,

    /// a name that the device alone may have as a node, or *.ENDING for all names with that ending;
    /// may be given up to 4 times (default: any name that no grant names)
    #[argh(option, arg_name = "name")]
    pub(crate) name: Vec<String>,

    /// last day of the grant, YYYY-MM-DD, UTC (default: it has no end)
    #[argh(option, arg_name = "date")]
    pub(crate) until: Option<String>,

    /// print JSON, one object on a line for each grant (default: the grants alone)
    #[argh(switch)]
    pub(crate) json: bool,

    /// peer ids of the devices, or - for ids from stdin, one on a line
    #[argh(positional, arg_name = "peer-id")]
    pub(crate) peers: Vec<String>,
}

/// Show what a grant or a revocation list says, if its signature verifies.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "show", help_triggers("-h", "--help", "help"))]
pub(crate) struct ShowGrant {
    /// print JSON, one object on one line (default: text for a person)
    #[argh(switch)]
    pub(crate) json: bool,

    /// the line of text, a file with it, the list beside the key, or - for stdin
    #[argh(positional, arg_name = "grant")]
    pub(crate) grant: String,
}

/// Add devices to the list of those that belong to the network no more, which is beside its key,
/// and print the signed list. Without a device: print it as it is.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "revoke", help_triggers("-h", "--help", "help"))]
pub(crate) struct Revoke {
    /// the network's key
    #[argh(option, arg_name = "file")]
    pub(crate) key: String,

    /// print JSON, one object on one line (default: the list alone)
    #[argh(switch)]
    pub(crate) json: bool,

    /// peer ids of the devices, or - for ids from stdin, one on a line
    #[argh(positional, arg_name = "peer-id")]
    pub(crate) peers: Vec<String>,
}

/// Give a running daemon the revocation list of its closed network, which it passes on to all
/// members.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "revoke", help_triggers("-h", "--help", "help"))]
pub(crate) struct GiveList {
    /// data directory of the daemon (default: that of the only daemon that runs)
    #[argh(option, arg_name = "dir")]
    pub(crate) data_dir: Option<String>,

    /// print JSON, one object on one line (default: text for a person)
    #[argh(switch)]
    pub(crate) json: bool,

    /// the file with the line that network revoke has printed, or - for stdin
    #[argh(positional, arg_name = "file")]
    pub(crate) file: String,
}
