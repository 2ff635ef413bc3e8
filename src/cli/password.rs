//! `postrider password`: makes the hash of a password for the config, or verifies one.

use std::io::{IsTerminal as _, Read as _};

use super::{Exit, fail, print};
use crate::config::{PasswordHash, PasswordHashError};

/// Fewer characters than this can be tried out.
const SHORT: usize = 12;

/// The longest password that AUTH PLAIN must carry (RFC 4616 section 2), in octets.
const LONGEST: usize = 255;

/// Arguments of `postrider password`.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// Say whether the password fits this hash, by the exit code (0 or 65). Put it in single quotes:
    /// the shell takes `$` for a variable.
    #[arg(long, value_name = "HASH")]
    verify: Option<String>,
}

pub(super) fn run(options: &Options) -> Exit {
    let hash = match options.verify.as_deref().map(PasswordHash::parse).transpose() {
        Ok(hash) => hash,
        Err(error) => {
            let hint = if error == PasswordHashError::PlainText { "; was it in single quotes?" } else { "" };
            return fail(Exit::Usage, &format!("the hash cannot be used: {error}{hint}"));
        }
    };
    let password = match read(hash.is_none()) {
        Ok(password) => password,
        Err(error) => return fail(Exit::Data, &error),
    };
    if let Some(hash) = hash {
        return if hash.verify(password.as_bytes()) { Exit::Ok } else { fail(Exit::Data, "the password does not fit the hash") };
    }
    if password.chars().count() < SHORT {
        warn(&format!("the password has fewer than {SHORT} characters; nobody types it often, so let it be long and random"));
    }
    match PasswordHash::make(&password) {
        Ok(hash) => {
            print(hash.as_str());
            if std::io::stdout().is_terminal() {
                warn("write it into the table of the application, as in\n\n[app.erp]\npassword = \"…\"\n");
            }
            Exit::Ok
        }
        Err(error) => fail(Exit::Unavailable, &format!("the hash cannot be made: {error}")),
    }
}

/// From the terminal without showing it, twice if it is a new one; else all of standard input, without
/// its last line end.
fn read(is_new: bool) -> Result<String, String> {
    let password = if std::io::stdin().is_terminal() {
        let ask = |prompt: &str| rpassword::prompt_password(prompt).map_err(|error| format!("the password cannot be read: {error}"));
        let password = ask("Password: ")?;
        if is_new && ask("Again: ")? != password {
            return Err("the two are not the same; nothing was made".to_owned());
        }
        password
    } else {
        let mut text = String::new();
        let mut input = std::io::stdin().take(64 << 10);
        input.read_to_string(&mut text).map_err(|error| format!("the password cannot be read: {error}"))?;
        text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(&text).to_owned()
    };
    if password.is_empty() {
        return Err("the password is empty".to_owned());
    }
    if password.len() > LONGEST {
        return Err(format!("the password is longer than {LONGEST} octets, which not every client can send"));
    }
    if password.contains(['\0', '\r', '\n']) {
        return Err("the password has a line end or a NUL in it; expected a single line".to_owned());
    }
    Ok(password)
}

#[expect(clippy::print_stderr, reason = "the command line talks to people on standard error")]
fn warn(text: &str) {
    eprintln!("postrider: {text}");
}
