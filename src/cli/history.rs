//! `postrider history`: what became of messages, and who did what.

use std::fmt::Write as _;
use std::time::SystemTime;

use postrider_providers::settings::Span;
use serde_json::json;

use super::api::{Gateway, Reach, Trouble};
use super::table::{clean, drawn, row, table, when, when_if};
use super::{Exit, print};
use crate::admin::wire::Moment;
use crate::admin::wire::history::{ActionLog, HistoryPage, MessageTrace, PastEvent, PastMessage};

/// What became of messages.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    reach: Reach,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find messages, the newest first. All that is given must hold.
    Search(Box<Search>),
    /// All that happened to one message, and where it stands.
    Trace {
        /// Its id, as in the 250 and in the log.
        id: String,
    },
    /// What people did to the gateway itself: providers, routes, its config.
    Actions,
}

#[derive(Debug, clap::Args)]
struct Search {
    /// The reverse-path; `*` at either end stands for anything.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// A recipient; `*` at either end stands for anything.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// The Message-ID.
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// A provider's id for the message.
    #[arg(long, value_name = "ID")]
    remote_id: Option<String>,
    /// The provider that was asked last.
    #[arg(long)]
    provider: Option<String>,
    /// The route by which that was.
    #[arg(long)]
    route: Option<String>,
    /// The application that handed it in.
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// The client that handed it in.
    #[arg(long, value_name = "IP")]
    client: Option<String>,
    /// Where it stands: dead, `in_doubt`, queued, bounced, expired, removed, relayed.
    #[arg(long)]
    state: Option<String>,
    /// Accepted since then: `2h` ago, or a time as 2026-03-01T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Accepted before then.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// At most so many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
}

/// A time as people say it.
fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(span) = text.parse::<Span>() {
        return SystemTime::now().checked_sub(span.0).map(Moment).ok_or_else(|| "that is too long ago".to_owned());
    }
    serde_json::from_value(json!(text)).map_err(|_| "expected a duration such as 2h, or a time such as 2026-03-01T12:00:00Z".to_owned())
}

pub(super) async fn run(Options { reach, command }: &Options) -> Exit {
    let done = async {
        let gateway = Gateway::find(reach)?;
        match command {
            Command::Search(search) => print(found(&gateway, search, reach.json).await?.trim_end()),
            Command::Trace { id } => {
                let trace: MessageTrace = gateway.get(&["messages", id, "trace"], &[]).await?;
                print(&if reach.json { json!(trace).to_string() } else { traced(&trace, SystemTime::now()) });
            }
            Command::Actions => {
                let log: ActionLog = gateway.get(&["history", "actions"], &[]).await?;
                print(&if reach.json { json!(log).to_string() } else { log.events.iter().map(event).collect::<Vec<_>>().join("\n") });
            }
        }
        Ok(Exit::Ok)
    };
    done.await.unwrap_or_else(|trouble: Trouble| trouble.report())
}

async fn found(gateway: &Gateway, search: &Search, json: bool) -> Result<String, Trouble> {
    let mut query: Vec<(&str, String)> = Vec::new();
    for (name, value) in [
        ("sender", &search.from),
        ("recipient", &search.to),
        ("message_id", &search.message_id),
        ("remote_id", &search.remote_id),
        ("provider", &search.provider),
        ("route", &search.route),
        ("application", &search.app),
        ("client", &search.client),
        ("state", &search.state),
    ] {
        query.extend(value.clone().map(|value| (name, value)));
    }
    query.extend(search.since.map(|moment| ("since", moment.to_text())));
    query.extend(search.until.map(|moment| ("until", moment.to_text())));
    let (mut messages, mut before, mut left) = (Vec::new(), None::<String>, search.limit);
    loop {
        let mut part = query.clone();
        part.push(("limit", left.min(500).to_string()));
        part.extend(before.take().map(|before| ("before", before)));
        let page: HistoryPage = gateway.get(&["history"], &part).await?;
        left = left.saturating_sub(page.messages.len() as u64);
        messages.extend(page.messages);
        before = page.next;
        if before.is_none() || left == 0 {
            break;
        }
    }
    if json {
        return Ok(json!({ "messages": messages, "next": before }).to_string());
    }
    if messages.is_empty() {
        return Ok("nothing was found; the history follows by a second or two, and forgets after history.keep".to_owned());
    }
    let mut text = listed(&messages, SystemTime::now());
    if before.is_some() {
        let _ = writeln!(text, "there are more; --limit {} shows them", search.limit.saturating_mul(10));
    }
    Ok(text)
}

fn listed(messages: &[PastMessage], now: SystemTime) -> String {
    let mut all = table(&["ID", "ACCEPTED", "STATE", "FROM", "TO", "PROVIDER", "WHAT WAS SAID LAST"]);
    for message in messages {
        // Whoever is worst off stands for all.
        let first = message.recipients.iter().find(|recipient| recipient.state == message.state).or(message.recipients.first());
        let mut to = first.map(|recipient| recipient.address.clone()).unwrap_or_default();
        if message.recipient_count > 1 {
            let _ = write!(to, " and {}", message.recipient_count - 1);
        }
        let from = if message.sender.is_empty() { "<>".to_owned() } else { message.sender.clone() };
        let provider = first.and_then(|recipient| recipient.provider.clone()).unwrap_or_else(|| "-".to_owned());
        let words: String = first.map(|recipient| recipient.words.chars().take(60).collect()).unwrap_or_default();
        row(&mut all, [message.id.clone(), when(message.received, now), message.state.clone(), from, to, provider, words]);
    }
    drawn(&all)
}

fn traced(trace: &MessageTrace, now: SystemTime) -> String {
    let mut lines = Vec::new();
    if let Some(past) = &trace.past {
        lines.push(format!(
            "{} from <{}> to {} recipients, accepted {}",
            past.id,
            past.sender,
            past.recipient_count,
            past.received.to_text()
        ));
    }
    lines.extend(trace.events.iter().map(event));
    match (&trace.queued, &trace.past) {
        (Some(queued), _) => {
            let due = if queued.due.is_some() { format!(", next try {}", when_if(queued.due, now)) } else { String::new() };
            let waits = trace.waits_for.as_ref().map(|reason| format!(", waits for {reason}")).unwrap_or_default();
            lines.push(format!("now: {} in the queue{due}{waits}", queued.state));
        }
        (None, Some(past)) => lines.push(format!("now: {}, not in the queue", past.state)),
        (None, None) => {}
    }
    clean(&lines.join("\n"))
}

/// One line for one event.
pub(super) fn event(event: &PastEvent) -> String {
    let at = event.at.map(Moment::to_text).unwrap_or_default();
    let mut line = format!("{at} {}", event.what);
    let facts = [
        ("", event.action.clone()),
        ("#", event.attempt.map(|number| number.to_string())),
        ("at ", event.provider.clone()),
        ("", event.verdict.clone()),
        ("for ", (!event.recipients.is_empty()).then(|| event.recipients.iter().take(5).cloned().collect::<Vec<_>>().join(", "))),
        ("its id ", event.remote_id.clone()),
        ("", event.told.clone()),
        ("next try ", event.due.map(Moment::to_text)),
        ("by ", event.by.clone()),
        ("in ms: ", event.elapsed_ms.map(|elapsed| elapsed.to_string())),
    ];
    for (before, fact) in facts {
        if let Some(fact) = fact {
            let _ = write!(line, " {before}{fact}");
        }
    }
    if !event.words.is_empty() {
        let _ = write!(line, ": {}", event.words);
    }
    clean(&line.replace('\n', " "))
}
