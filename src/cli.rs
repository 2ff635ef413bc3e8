//! The command line: what `postrider` can be told to do, and the exit code of each outcome.

mod api;
mod check;
mod descriptors;
mod explain;
mod history;
mod operate;
mod password;
mod providers;
mod queue;
mod send;
mod serve;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::config::DEFAULT_PATH;

/// Exit codes of sysexits(3), which mail software has used for decades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It went well.
    Ok = 0,
    /// The command was used wrongly.
    Usage = 64,
    /// The input is not as it must be.
    Data = 65,
    /// Something that is needed cannot be had.
    Unavailable = 69,
    /// The program has a mistake.
    Software = 70,
    /// Try again later.
    TempFail = 75,
    /// Not for this person: a token is wrong or cannot be read.
    Permission = 77,
    /// The config file is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A hybrid cloud mail relay: takes mail by SMTP, makes it durable, and hands it to the first provider
/// of its route that can take it.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway until SIGTERM or SIGINT.
    Serve(ConfigArgument),
    /// Check a config file: print every error in it, or what would run.
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// Print JSON for machines.
        #[arg(long)]
        json: bool,
    },
    /// Explain what would become of a message, or what became of one: the rules, the way it takes, what it waits for.
    Explain(explain::Options),
    /// Look at the queue of a running gateway, and act on it.
    Queue(queue::Options),
    /// Find what became of messages, and who did what.
    History(history::Options),
    /// Look at the providers, ask each whether it would take mail now, and decide about them.
    #[command(subcommand)]
    Providers(providers::Command),
    /// Have a running gateway read its config again.
    Reload(operate::Options),
    /// Have a running gateway finish what is at hand, and end.
    Drain(operate::Options),
    /// Make the hash of a password, for `password` of an [app.NAME] table.
    Password(password::Options),
    /// Show the gateway at work, on loopback, without any account.
    Demo(crate::demo::Options),
    /// Submit one message to a running gateway (or any SMTP server) and report its reply.
    Send(send::Options),
}

/// Where the config file is.
#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// The config file.
    #[arg(long, short, value_name = "FILE", env = "POSTRIDER_CONFIG", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

/// Parses the arguments, runs the command, and gives its exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are errors to clap; a closed standard output is nobody's problem here.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
                _ => Exit::Usage,
            }
            .into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(Exit::Unavailable, &format!("the runtime cannot start: {error}")).into(),
    };
    let exit = match arguments.command {
        Command::Serve(config) => runtime.block_on(serve::run(&config.config)),
        Command::Check { config, json } => check::run(&config.config, json),
        Command::Explain(options) => runtime.block_on(explain::run(&options)),
        Command::Providers(command) => runtime.block_on(providers::run(&command)),
        Command::Queue(options) => runtime.block_on(queue::run(&options)),
        Command::History(options) => runtime.block_on(history::run(&options)),
        Command::Reload(options) => runtime.block_on(operate::reload(&options)),
        Command::Drain(options) => runtime.block_on(operate::drain(&options)),
        Command::Password(options) => password::run(&options),
        Command::Demo(options) if runtime.block_on(crate::demo::run(&options)) => Exit::Ok,
        Command::Demo(_) => Exit::Unavailable,
        Command::Send(options) => runtime.block_on(send::run(&options)),
    };
    // Blocking reads of the spool and of standard input must not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    exit.into()
}

/// Prints an error for a person, and passes the exit code on.
#[expect(clippy::print_stderr, reason = "the command line talks to people on standard error")]
fn fail(exit: Exit, message: &str) -> Exit {
    eprintln!("postrider: {message}");
    exit
}

/// Prints a result on standard output. A reader that left early, as `head` does, is no error.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}
