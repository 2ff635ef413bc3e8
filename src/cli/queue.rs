//! `postrider queue`: what waits and why, and what is done about it.

mod act;
mod show;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::api::{Gateway, Reach, Trouble, Watch};
use super::table::{clean, drawn, row, span, table, watch, when, when_if};
use super::{Exit, fail, print};
use crate::admin::wire::providers::ProviderList;
use crate::admin::wire::queue::{Job, JobList, MessageDetail, QueuePage, QueueSummary};
use crate::admin::wire::system::Status;

/// How many lanes a summary shows to people.
const LANES: usize = 15;

/// How many waiting messages are looked at for their reasons.
const SAMPLE: usize = 100;

/// What waits, and what is done about it.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// How much waits, where, why, and when the next try is.
    Summary {
        #[command(flatten)]
        watch: Watch,
    },
    /// The messages that a filter means, such as: state=deferred to=*@example.com older=1h provider=ses.eu
    #[command(after_help = filter_help())]
    List {
        /// Terms that must all hold; none: every message.
        filter: Vec<String>,
        /// At most so many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        limit: u64,
        #[command(flatten)]
        watch: Watch,
    },
    /// One message: where it stands, what was tried, what it waits for.
    Show {
        /// Its id.
        id: String,
        /// Its header, too.
        #[arg(long)]
        headers: bool,
        /// Its header and its content, up to 1 MiB.
        #[arg(long)]
        body: bool,
    },
    /// One message as it is, as a file (.eml).
    Export {
        /// Its id.
        id: String,
        /// Where to write it; standard output if absent.
        #[arg(long, short)]
        output: Option<PathBuf>,
    },
    /// Try now, whatever the schedule says. Held messages stay held.
    Retry(act::Targets),
    /// Keep from going until released. The time does not age them.
    Hold(act::Targets),
    /// End every hold, of dead letters as well: due at once.
    Release(act::Targets),
    /// Remove. Nobody is told.
    Remove(act::Targets),
    /// Give up: the sender is told.
    Bounce {
        #[command(flatten)]
        targets: act::Targets,
        /// Why, as the sender reads it.
        #[arg(long)]
        reason: String,
    },
    /// Send by another route, now and from now on. Held messages stay held.
    Reroute {
        #[command(flatten)]
        targets: act::Targets,
        /// The route, by its name.
        #[arg(long, value_name = "ROUTE")]
        to: String,
    },
    /// Send to another address.
    Readdress {
        #[command(flatten)]
        targets: act::Targets,
        /// The recipient as it is.
        #[arg(long, value_name = "ADDRESS")]
        from: String,
        /// Who gets it instead.
        #[arg(long, value_name = "ADDRESS")]
        to: String,
    },
    /// Actions on many messages: how far they are.
    Jobs {
        #[command(flatten)]
        watch: Watch,
        /// End this one before its time; what is done stays done.
        #[arg(long, value_name = "NUMBER")]
        cancel: Option<u64>,
    },
}

/// The terms of the filter language.
fn filter_help() -> String {
    let terms = crate::admin::FILTER_KEYS.iter().map(|key| format!("  {:<40} {}\n", key.example, key.help));
    format!("Terms of a filter:\n{}", terms.collect::<String>())
}

/// The filter that these arguments are. The shell has taken away the quotes of a value with blanks in it, so
/// they are put back; an argument that is several terms stays as it is.
fn filter_text(terms: &[String]) -> String {
    let quoted = |term: &String| match term.split_once('=') {
        Some((key, value)) if value.contains(' ') && !value.contains('"') && !value.contains(['=', '<', '>']) => {
            format!("{key}=\"{value}\"")
        }
        _ => term.clone(),
    };
    terms.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

pub(super) async fn run(Options { reach, command }: &Options) -> Exit {
    let done = async {
        let gateway = Gateway::find(reach)?;
        let command = command.as_ref().unwrap_or(&Command::Summary { watch: Watch { watch: None } });
        follow(&gateway, reach, command).await
    };
    done.await.unwrap_or_else(|trouble: Trouble| trouble.report())
}

async fn follow(gateway: &Gateway, reach: &Reach, command: &Command) -> Result<Exit, Trouble> {
    match command {
        Command::Summary { watch: again } => watch(again.watch, async || summary(gateway, reach.json).await).await?,
        Command::List { filter, limit, watch: again } => {
            watch(again.watch, async || list(gateway, &filter_text(filter), *limit, reach.json).await).await?;
        }
        Command::Show { id, headers, body } => {
            let detail: MessageDetail = gateway.get(&["queue", "messages", id], &[("body", body.to_string())]).await?;
            if reach.json {
                print(&json!(detail).to_string());
            } else {
                print(show::text(&detail, *headers || *body, SystemTime::now()).trim_end());
            }
        }
        Command::Export { id, output } => return export(gateway, id, output.as_deref()).await,
        Command::Jobs { cancel: Some(number), .. } => {
            let job: Job = gateway.post(&["queue", "jobs", &number.to_string(), "cancel"], &json!({})).await?;
            print(&if reach.json { json!(job).to_string() } else { act::told(&job) });
        }
        Command::Jobs { watch: again, .. } => watch(again.watch, async || jobs(gateway, reach.json).await).await?,
        Command::Retry(targets)
        | Command::Hold(targets)
        | Command::Release(targets)
        | Command::Remove(targets)
        | Command::Bounce { targets, .. }
        | Command::Reroute { targets, .. }
        | Command::Readdress { targets, .. } => return act::run(gateway, reach.json, targets, command.request()).await,
    }
    Ok(Exit::Ok)
}

async fn summary(gateway: &Gateway, json: bool) -> Result<String, Trouble> {
    let summary: QueueSummary = gateway.get(&["queue"], &[]).await?;
    if json {
        return Ok(json!(summary).to_string());
    }
    let providers: ProviderList = gateway.get(&["providers"], &[]).await?;
    let now = SystemTime::now();
    let states = summary.states.iter().filter(|(_, count)| **count > 0).map(|(state, count)| format!("{count} {state}"));
    let states: Vec<String> = states.collect();
    let mut text = match summary.messages {
        0 => "the queue is empty\n".to_owned(),
        messages => format!("{messages} messages: {}\n", states.join(", ")),
    };
    // Writing to a String does not fail.
    if let Some(oldest) = summary.oldest_seconds {
        let next = when_if(summary.next_due, now);
        let _ = writeln!(text, "oldest {}, next try {next}", span(Duration::from_secs(oldest)));
    }
    if summary.set_aside > 0 {
        let _ = writeln!(text, "{} records could not be read and were set aside; the log says why", summary.set_aside);
    }
    if !summary.lanes.is_empty() {
        let mut lanes = table(&["ROUTE", "PRIORITY", "FROM", "STATE", "MESSAGES", "OLDEST", "NEXT TRY"]);
        for lane in summary.lanes.iter().take(LANES) {
            let from = if lane.domain.is_empty() { "<>".to_owned() } else { lane.domain.clone() };
            let cells = [lane.route.clone(), lane.priority.clone(), from, lane.state.clone(), lane.messages.to_string()];
            row(&mut lanes, cells.into_iter().chain([when(lane.oldest, now), when_if(lane.next_due, now)]));
        }
        let _ = write!(text, "\n{}", drawn(&lanes));
        let more = summary.lanes.len().saturating_sub(LANES) as u64 + summary.lanes_left_out;
        if more > 0 {
            let _ = writeln!(text, "and {more} lanes more; `postrider queue summary --json` has the first 500");
        }
    }
    let troubles = super::providers::live::troubles(&providers, now);
    if !troubles.is_empty() {
        let _ = write!(text, "\nproviders\n{}", troubles.iter().map(|line| format!("  {line}\n")).collect::<String>());
    }
    let status: Status = gateway.get(&["status"], &[]).await?;
    if let Some(failure) = status.config.failure {
        let _ = write!(
            text,
            "\nconfig\n  the last reload ({}) failed, and the old one stays in use: {}\n",
            when(failure.at, now),
            clean(failure.why.lines().next().unwrap_or_default())
        );
    }
    let deferred =
        summary.states.get("deferred").copied().unwrap_or_default() + summary.states.get("in_doubt").copied().unwrap_or_default();
    if deferred > 0 {
        let _ = write!(text, "\n{}", reasons(gateway).await?);
    }
    Ok(text)
}

/// What the oldest deferred messages wait for, by how often it is said.
async fn reasons(gateway: &Gateway) -> Result<String, Trouble> {
    let query = [("filter", "state=deferred,in_doubt".to_owned()), ("limit", SAMPLE.to_string())];
    let page: QueuePage = gateway.get(&["queue", "messages"], &query).await?;
    let mut said: HashMap<String, usize> = HashMap::new();
    for recipient in page.messages.iter().flat_map(|message| &message.recipients) {
        if let Some(diagnostic) = &recipient.diagnostic {
            let provider = recipient.provider.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
            *said.entry(format!("{provider}{diagnostic}")).or_default() += 1;
        }
    }
    let mut said: Vec<_> = said.into_iter().collect();
    said.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    let lines = said.iter().take(3).map(|(reason, count)| format!("  {count} x {}\n", clean(reason)));
    Ok(format!("why, of the oldest {}\n{}", page.messages.len(), lines.collect::<String>()))
}

async fn list(gateway: &Gateway, filter: &str, limit: u64, json: bool) -> Result<String, Trouble> {
    let (mut messages, mut after, mut left) = (Vec::new(), None::<String>, limit);
    loop {
        let mut query = vec![("filter", filter.to_owned()), ("limit", left.min(500).to_string())];
        query.extend(after.take().map(|after| ("after", after)));
        let page: QueuePage = gateway.get(&["queue", "messages"], &query).await?;
        left = left.saturating_sub(page.messages.len() as u64);
        messages.extend(page.messages);
        after = page.next;
        if after.is_none() || left == 0 {
            break;
        }
    }
    if json {
        return Ok(json!({ "messages": messages, "next": after }).to_string());
    }
    if messages.is_empty() {
        return Ok(if filter.is_empty() {
            "the queue is empty".to_owned()
        } else {
            format!("no message in the queue is meant by: {filter}")
        });
    }
    let mut text = show::listed(&messages, SystemTime::now());
    if after.is_some() {
        let _ = writeln!(text, "there are more; --limit {} shows them", limit.saturating_mul(10));
    }
    Ok(text)
}

async fn jobs(gateway: &Gateway, json: bool) -> Result<String, Trouble> {
    let jobs: JobList = gateway.get(&["queue", "jobs"], &[]).await?;
    if json {
        return Ok(json!(jobs).to_string());
    }
    if jobs.jobs.is_empty() {
        return Ok("no job since the start".to_owned());
    }
    let now = SystemTime::now();
    let mut all = table(&["JOB", "STATE", "ACTION", "FILTER", "BY", "STARTED", "DONE", "OF", "NOT DONE"]);
    for job in jobs.jobs {
        let of = job.expected.map_or_else(|| "?".to_owned(), |expected| expected.to_string());
        let not_done = (job.busy + job.refused + job.gone).to_string();
        let started = when(job.started, now);
        row(&mut all, [job.id.to_string(), job.state, job.action, job.filter, job.by, started, job.done.to_string(), of, not_done]);
    }
    Ok(drawn(&all))
}

async fn export(gateway: &Gateway, id: &str, output: Option<&std::path::Path>) -> Result<Exit, Trouble> {
    let mut response = gateway.fetch(&["queue", "messages", id, "export"]).await?;
    let mut out: Box<dyn std::io::Write> = match output {
        None => Box::new(std::io::stdout()),
        // A message is nobody else's business, and nothing is overwritten by a slip.
        Some(path) => {
            use std::os::unix::fs::OpenOptionsExt as _;
            match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                Ok(file) => Box::new(file),
                Err(error) => return Ok(fail(Exit::Data, &format!("{} cannot be written: {error}", path.display()))),
            }
        }
    };
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                if let Err(error) = out.write_all(&chunk) {
                    return Ok(fail(Exit::Unavailable, &format!("the message cannot be written: {error}")));
                }
            }
            Ok(None) => {
                let flushed = out.flush();
                return Ok(
                    flushed.map_or_else(|error| fail(Exit::Unavailable, &format!("the message cannot be written: {error}")), |()| Exit::Ok)
                );
            }
            Err(error) => return Ok(fail(Exit::Unavailable, &format!("the message is not complete: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_blanks_is_one_value_and_several_terms_in_one_argument_are_several() {
        let text = |terms: &[&str]| filter_text(&terms.iter().map(|term| (*term).to_owned()).collect::<Vec<_>>());
        assert_eq!(text(&["reason=*mailbox full*", "older=1h"]), "reason=\"*mailbox full*\" older=1h");
        assert_eq!(text(&["state=held older=1h"]), "state=held older=1h");
        assert_eq!(text(&["reason=\"a b\""]), "reason=\"a b\"");
    }
}
