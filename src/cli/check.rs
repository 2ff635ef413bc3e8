//! `postrider check`: everything that is wrong with a config file, or what it would run.

use std::io::IsTerminal as _;
use std::path::Path;

use postrider_providers::registry::Context;

use super::{Exit, fail, print};
use crate::config::{Config, ConfigErrors, summary, summary_json};
use crate::gateway::cautions;

pub(super) fn run(path: &Path, json: bool) -> Exit {
    let (config, warnings) = match Config::load(path) {
        Ok(loaded) => loaded,
        Err(errors) => return report(&errors),
    };
    for warning in &warnings {
        draw(&warning.render(std::io::stderr().is_terminal()));
    }
    let context = match Context::new(&config.server.hostname) {
        Ok(context) => context,
        Err(error) => return fail(Exit::Unavailable, &format!("TLS cannot be set up: {error}")),
    };
    match config.connect(&context) {
        Ok(connected) => cautions(&config, &connected).iter().for_each(|caution| draw(&format!("warning: {caution}"))),
        Err(errors) => return report(&errors),
    }
    if json {
        print(&summary_json(&config).to_string());
    } else {
        print(&format!("{} is good. It would run:\n\n{}", path.display(), summary(&config)));
    }
    Exit::Ok
}

/// Draws the errors for a person.
pub(super) fn report(errors: &ConfigErrors) -> Exit {
    draw(&errors.render(std::io::stderr().is_terminal()));
    let count = errors.count();
    fail(Exit::Config, &format!("{count} error{} in the config; nothing was started", if count == 1 { "" } else { "s" }))
}

#[expect(clippy::print_stderr, reason = "the command line talks to people on standard error")]
fn draw(text: &str) {
    eprintln!("{text}\n");
}
