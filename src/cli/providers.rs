//! `postrider providers`: which are configured, and whether each of them would take mail now.

pub(super) mod live;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use postrider_providers::contract::{Allowance, Capabilities, Connected, ContentForm, Diagnostic, Failure, Probed};
use postrider_providers::registry::Context;
use postrider_providers::settings::Size;
use serde_json::{Value, json};

use super::api::{Reach, Trouble, Watch};
use super::table::watch;
use super::{ConfigArgument, Exit, fail, print};
use crate::admin::wire::providers::{ControlName, ControlRequest};
use crate::config::{Config, ProviderConfig, nearest};

/// So many are probed at the same time.
const AT_ONCE: usize = 8;

/// A provider that has not answered by then is taken to be down. Its own time-outs end before, unless
/// they were set to more.
const PATIENCE: Duration = Duration::from_secs(90);

/// What to do with the providers.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// How the providers of a running gateway are doing; without one, what each of the config's can carry.
    List {
        #[command(flatten)]
        reach: Reach,
        #[command(flatten)]
        watch: Watch,
    },
    /// Ask each provider whether it would take mail now: endpoint, TLS, credential, account. Sends none.
    Probe {
        #[command(flatten)]
        config: ConfigArgument,
        /// The providers to ask, by their names in routes [default: all].
        names: Vec<String>,
        /// Print JSON for machines.
        #[arg(long)]
        json: bool,
    },
    /// One provider of a running gateway: circuit, errors, what was decided about it.
    Show(Named),
    /// Open the circuit of a provider until it is reset: its mail goes to the next one, or waits.
    Trip(Named),
    /// Close the circuit of a provider, and forget what was remembered against it.
    Reset(Named),
    /// Give a provider no new mail until it is resumed.
    Drain(Named),
    /// Keep the mail of a provider, a route, a sending domain or an application from going.
    Pause {
        #[command(flatten)]
        what: live::What,
        #[command(flatten)]
        reach: Reach,
    },
    /// End a pause, or a drain.
    Resume {
        #[command(flatten)]
        what: live::What,
        #[command(flatten)]
        reach: Reach,
    },
    /// Let a route ask one of its providers only.
    Pin {
        /// The route, by name.
        route: String,
        /// The provider, by its name in routes.
        provider: String,
        #[command(flatten)]
        reach: Reach,
    },
    /// Let a route ask all its providers again.
    Unpin {
        /// The route, by name.
        route: String,
        #[command(flatten)]
        reach: Reach,
    },
}

/// One provider.
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The provider, by its name in routes.
    name: String,
    #[command(flatten)]
    reach: Reach,
}

/// A provider that was asked.
struct Asked {
    provider: ProviderConfig,
    answer: Result<Probed, Failure>,
}

pub(super) async fn run(command: &Command) -> Exit {
    match command {
        Command::List { reach, watch } => listed(reach, *watch).await,
        Command::Probe { config, names, json } => of_config(&config.config, Some(names), *json).await,
        Command::Show(Named { name, reach }) => live::show(reach, name).await,
        Command::Trip(Named { name, reach }) => live::control(reach, &live::about(ControlName::Trip, name)).await,
        Command::Reset(Named { name, reach }) => live::control(reach, &live::about(ControlName::Reset, name)).await,
        Command::Drain(Named { name, reach }) => live::control(reach, &live::about(ControlName::Drain, name)).await,
        Command::Pause { what, reach } => live::control(reach, &what.request(ControlName::Pause)).await,
        Command::Resume { what, reach } => live::control(reach, &what.request(ControlName::Resume)).await,
        Command::Pin { route, provider, reach } => {
            let request = ControlRequest { route: Some(route.clone()), ..live::about(ControlName::Pin, provider) };
            live::control(reach, &request).await
        }
        Command::Unpin { route, reach } => {
            let request = ControlRequest { route: Some(route.clone()), provider: None, ..live::about(ControlName::Unpin, "") };
            live::control(reach, &request).await
        }
    }
}

/// What the running gateway says; if there is none, what the config says.
async fn listed(reach: &Reach, again: Watch) -> Exit {
    match watch(again.watch, async || live::list(reach).await).await {
        Ok(()) => Exit::Ok,
        Err(trouble @ Trouble::Refused(_)) => trouble.report(),
        Err(trouble) if reach.names_server() => trouble.report(),
        Err(trouble) => {
            live::not_reached(&trouble);
            of_config(&reach.config, None, reach.json).await
        }
    }
}

/// Lists the providers of a config, or probes those with these `names`.
async fn of_config(path: &Path, names: Option<&[String]>, json: bool) -> Exit {
    let config = match Config::load(path) {
        Ok((config, _)) => config,
        Err(errors) => return super::check::report(&errors),
    };
    let (probing, names) = (names.is_some(), names.unwrap_or_default());
    if let Err(unknown) = all_known(&config, names) {
        return fail(Exit::Usage, &unknown);
    }
    let context = match Context::new(&config.server.hostname) {
        // A gateway has been at work: what it keeps is newer than the config. Nothing is made before it.
        Ok(context) if config.server.data_dir.is_dir() => context.with_state(config.server.data_dir.join("providers")),
        Ok(context) => context,
        Err(error) => return fail(Exit::Unavailable, &format!("TLS cannot be set up: {error}")),
    };
    let connected = match config.connect(&context) {
        Ok(connected) => connected,
        Err(errors) => return super::check::report(&errors),
    };
    let wanted = |provider: &&ProviderConfig| names.is_empty() || names.iter().any(|name| name == provider.name.as_str());
    let chosen: Vec<(&ProviderConfig, &Connected)> = config
        .providers
        .iter()
        .filter(wanted)
        .filter_map(|provider| Some((provider, connected.iter().find(|connected| connected.name == provider.name)?)))
        .collect();
    if probing { probe(&chosen, json).await } else { list(&chosen, json) }
}

/// Names that the config does not have are slips, and each is told with what was likely meant.
fn all_known(config: &Config, names: &[String]) -> Result<(), String> {
    let known: Vec<&str> = config.providers.iter().map(|provider| provider.name.as_str()).collect();
    let unknown = names.iter().filter(|name| !known.contains(&name.as_str())).map(|name| {
        // The name without its kind is the likeliest slip.
        let by_key = known.iter().copied().find(|known| known.split_once('.').is_some_and(|(_, key)| key == name));
        match by_key.or_else(|| nearest(name, known.iter().copied())) {
            Some(near) => format!("this config has no provider {name}; did you mean {near}?"),
            None => format!("this config has no provider {name}, only {}", known.join(", ")),
        }
    });
    let unknown: Vec<String> = unknown.collect();
    if unknown.is_empty() { Ok(()) } else { Err(unknown.join("\n")) }
}

fn list(chosen: &[(&ProviderConfig, &Connected)], json: bool) -> Exit {
    let all = chosen.iter().map(|(provider, connected)| (*provider, connected.provider.capabilities()));
    if json {
        let all: Vec<Value> = all.map(|(provider, capabilities)| described(provider, &capabilities)).collect();
        print(&json!({ "providers": all }).to_string());
        return Exit::Ok;
    }
    let blocks: Vec<String> = all
        .map(|(provider, capabilities)| format!("{}: {}\n{}", provider.name, provider.destination, indented(&carries(&capabilities))))
        .collect();
    print(blocks.join("\n").trim_end());
    Exit::Ok
}

async fn probe(chosen: &[(&ProviderConfig, &Connected)], json: bool) -> Exit {
    let ask = |(provider, connected): (&ProviderConfig, &Connected)| {
        let (provider, asked) = (provider.clone(), Arc::clone(&connected.provider));
        async move {
            let answer = tokio::time::timeout(PATIENCE, asked.probe()).await;
            let silent = |_| Err(Failure::Unavailable(Diagnostic::local(format!("no answer within {} seconds", PATIENCE.as_secs()))));
            Asked { provider, answer: answer.unwrap_or_else(silent) }
        }
    };
    let probes: Vec<_> = chosen.iter().copied().map(ask).collect();
    let asked: Vec<Asked> = stream::iter(probes).buffered(AT_ONCE).collect().await;
    let failed = asked.iter().filter(|asked| asked.answer.is_err()).count();
    if json {
        print(&json!({ "ok": failed == 0, "providers": asked.iter().map(Asked::json).collect::<Vec<_>>() }).to_string());
    } else {
        print(asked.iter().map(Asked::text).collect::<Vec<_>>().join("\n").trim_end());
    }
    if failed == 0 { Exit::Ok } else { Exit::Unavailable }
}

impl Asked {
    fn text(&self) -> String {
        let Self { provider, answer } = self;
        let mut lines = Vec::new();
        let verdict = match answer {
            Ok(found) => {
                lines.extend(found.facts.iter().cloned());
                lines.extend(found.warnings.iter().map(|warning| format!("warning: {warning}")));
                lines.extend(found.allowance.as_ref().and_then(allowed));
                "ok".to_owned()
            }
            Err(failure) => {
                lines.push(failure.diagnostic().to_string());
                lines.extend(failure.diagnostic().advice.map(|advice| format!("what to do: {advice}")));
                format!("FAILED: {}", in_words(failure))
            }
        };
        format!("{}: {verdict}\n{}", provider.name, indented(&[vec![provider.destination.clone()], lines].concat()))
    }

    fn json(&self) -> Value {
        let Self { provider, answer } = self;
        let mut all = json!({ "name": provider.name.as_str(), "destination": provider.destination, "ok": answer.is_ok() });
        match answer {
            Ok(found) => {
                all["facts"] = json!(found.facts);
                all["warnings"] = json!(found.warnings);
                all["allowance"] = json!(found.allowance.map(|allowance| json!({
                    "per_second": allowance.per_second,
                    "per_day": allowance.per_day,
                    "used_today": allowance.used_today,
                })));
            }
            Err(failure) => {
                let said = failure.diagnostic();
                all["failure"] = json!({ "kind": failure.name(), "reason": said.to_string(), "code": said.code, "advice": said.advice });
            }
        }
        all
    }
}

fn in_words(failure: &Failure) -> &'static str {
    match failure {
        Failure::Unavailable(_) => "it cannot be reached",
        Failure::Throttled { .. } => "it asks to be left alone for now",
        Failure::Unauthorized(_) => "it refuses the credential",
        Failure::SenderRefused(_) => "it refuses the sender",
        Failure::Unsuitable(_) => "it cannot do what is asked",
        Failure::Rejected(_) => "it refuses the request",
    }
}

/// What an account allows, in a line.
fn allowed(allowance: &Allowance) -> Option<String> {
    let per_second = allowance.per_second.map(|number| format!("{number} recipients a second"));
    let per_day = allowance.per_day.map(|number| match allowance.used_today {
        Some(used) => format!("{number} recipients in 24 hours, of which {used} are used"),
        None => format!("{number} recipients in 24 hours"),
    });
    let all: Vec<String> = per_second.into_iter().chain(per_day).collect();
    (!all.is_empty()).then(|| format!("allows {}", all.join(", ")))
}

/// What a provider can carry, in lines.
fn carries(capabilities: &Capabilities) -> Vec<String> {
    let content = match capabilities.content {
        ContentForm::Raw => "takes messages as they are",
        ContentForm::RawMostly => "takes messages as they are, and replaces some header fields",
        ContentForm::Fields => "takes subject, texts and attachments by themselves; signed mail would break",
    };
    let mut sizes = String::new();
    // Writing to a String does not fail.
    let _ = match capabilities.max_message_size() {
        Some(octets) => write!(sizes, "messages up to {}", Size(octets)),
        None => write!(sizes, "messages of any size, as far as is known"),
    };
    if let Some(recipients) = capabilities.max_recipients {
        let _ = write!(sizes, ", {recipients} recipients in a call");
    }
    let mut not = Vec::new();
    not.extend((!capabilities.eight_bit).then_some("8-bit content"));
    not.extend((!capabilities.smtputf8).then_some("addresses outside ASCII"));
    not.extend((!capabilities.null_sender).then_some("notifications (the null sender)"));
    not.extend((!capabilities.reverse_path).then_some("the envelope sender as it is"));
    let mut lines = vec![content.to_owned(), sizes];
    if !not.is_empty() {
        lines.push(format!("does not carry {}", not.join(", ")));
    }
    lines
}

fn described(provider: &ProviderConfig, capabilities: &Capabilities) -> Value {
    json!({
        "name": provider.name.as_str(),
        "destination": provider.destination,
        "content": match capabilities.content { ContentForm::Raw => "raw", ContentForm::RawMostly => "raw_mostly", ContentForm::Fields => "fields" },
        "max_message_size": capabilities.max_message_size(),
        "max_recipients": capabilities.max_recipients,
        "eight_bit": capabilities.eight_bit,
        "smtputf8": capabilities.smtputf8,
        "null_sender": capabilities.null_sender,
        "reverse_path": capabilities.reverse_path,
        "sender_identity": capabilities.sender_identity,
        "idempotency_seconds": capabilities.idempotency.map(|window| window.as_secs()),
    })
}

fn indented(lines: &[String]) -> String {
    lines.iter().flat_map(|line| line.lines()).map(|line| format!("  {line}\n")).collect()
}
