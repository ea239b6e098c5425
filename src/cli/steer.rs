//! The verbs that talk to a running gateway.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Subcommand};
use clap_complete::Shell;

use super::Cli;
use crate::config::{Faults, Listen, Reach, value};

/// `upsplice sessions`
#[derive(Args, Clone, Debug)]
pub struct SessionsVerb {
    /// What to do with them.
    #[command(subcommand)]
    pub action: SessionsAction,
}

/// What can be done with live sessions.
#[derive(Clone, Debug, Subcommand)]
pub enum SessionsAction {
    /// List those that fit.
    List {
        /// Which ones.
        #[command(flatten)]
        chosen: Chosen,
        /// Stop after so many.
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Where to ask.
        #[command(flatten)]
        reaching: Reaching,
    },
    /// Show all that is known of one.
    Show {
        /// Its id, as in the access log.
        id: String,
        /// Where to ask.
        #[command(flatten)]
        reaching: Reaching,
    },
    /// Watch what passes in one, as it passes.
    Tap {
        /// Its id, as in the access log.
        id: String,
        /// Show so many bytes of each message, 1024 at most; only of sessions inspected in depth payload.
        #[arg(long, value_name = "BYTES")]
        preview: Option<u16>,
        /// Hide what this regular expression matches; may be repeated.
        #[arg(long, value_name = "REGEX")]
        redact: Vec<String>,
        /// Where to ask.
        #[command(flatten)]
        reaching: Reaching,
    },
    /// End one, or all that fit; inspected ones get a Close with code 1001.
    Kill {
        /// Its id, as in the access log.
        #[arg(required_unless_present_any = CHOOSING, conflicts_with_all = CHOOSING)]
        id: Option<String>,
        /// Which ones.
        #[command(flatten)]
        chosen: Chosen,
        /// All sessions.
        #[arg(long)]
        all: bool,
        /// How many per second [default: 1000/s].
        #[arg(long, value_name = "N/s", conflicts_with = "id")]
        rate: Option<String>,
        /// Put each off by a random time up to this.
        #[arg(long, value_name = "TIME", conflicts_with = "id")]
        jitter: Option<String>,
        /// Where to ask.
        #[command(flatten)]
        reaching: Reaching,
    },
}

/// What chooses sessions; one of them must be there to kill many.
const CHOOSING: [&str; 8] =
    ["route", "endpoint", "client", "mode", "engine", "min_age", "min_bytes", "all"];

/// Which sessions are meant: those to which all of this applies.
#[derive(Args, Clone, Debug, Default)]
pub struct Chosen {
    /// Of this route.
    #[arg(long, value_name = "NAME")]
    pub route: Option<String>,
    /// With this endpoint, as in the configuration.
    #[arg(long, value_name = "ADDR")]
    pub endpoint: Option<String>,
    /// From this address or network.
    #[arg(long, value_name = "ADDR")]
    pub client: Option<String>,
    /// In this mode: zero-copy or inspect.
    #[arg(long, value_name = "MODE")]
    pub mode: Option<String>,
    /// Carried by this engine in one direction at least: splice, copy or uring.
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,
    /// At least so old: 30, 5m, 1h.
    #[arg(long, value_name = "TIME")]
    pub min_age: Option<String>,
    /// With at least so many bytes of both directions: 1000, 64KiB, 1GiB.
    #[arg(long, value_name = "BYTES")]
    pub min_bytes: Option<String>,
}

impl Chosen {
    /// As parameters of a request.
    pub fn parameters(self) -> Vec<(&'static str, Option<String>)> {
        let Chosen { route, endpoint, client, mode, engine, min_age, min_bytes } = self;
        let values = [route, endpoint, client, mode, engine, min_age, min_bytes];
        CHOOSING.into_iter().zip(values).collect()
    }
}

/// Where the gateway is, and how its answers are shown.
#[derive(Args, Clone, Debug)]
pub struct Reaching {
    /// Where it answers.
    #[arg(help = "Where the gateway answers: unix:PATH or IP:PORT [default: the file's, or \
        unix:/run/upsplice/admin.sock]")]
    #[arg(long, value_name = "ADDR", env = "UPSPLICE_ADMIN", value_parser = value::listen)]
    pub admin: Option<Listen>,
    /// File with the secret that it wants over TCP.
    #[arg(long, value_name = "FILE", env = "UPSPLICE_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Configuration file that says where it answers.
    #[arg(long, value_name = "FILE", env = "UPSPLICE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

impl Reaching {
    /// Where to connect.
    ///
    /// # Errors
    ///
    /// What is wrong with the file or the token.
    pub fn find(&self) -> Result<Reach, Faults> {
        let token = self.admin_token_file.as_deref();
        Reach::find(self.admin.clone(), token, self.config.as_deref())
    }
}

/// `upsplice routes`
#[derive(Args, Clone, Debug)]
pub struct Routes {
    /// Where to ask.
    #[command(flatten)]
    pub reaching: Reaching,
}

/// `upsplice reload`
#[derive(Args, Clone, Debug)]
pub struct Reload {
    /// Where to ask.
    #[command(flatten)]
    pub reaching: Reaching,
}

/// `upsplice completions`
#[derive(Args, Clone, Debug)]
pub struct Completions {
    /// Which shell.
    pub shell: Shell,
}

impl Completions {
    /// The text to be sourced.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "upsplice", &mut text);
        text
    }
}

/// The manual page upsplice(1), with the pages of its verbs behind it.
///
/// # Errors
///
/// Nothing but memory is written to.
pub fn manual() -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        clap_mangen::Man::new(verb.clone()).render(&mut text)?;
    }
    Ok(text)
}
