//! Actions on one message, and on all that a filter means: counted, shown and confirmed before they are done.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::{Duration, SystemTime};

use postrider_providers::contract::MessageId;
use serde_json::json;

use super::super::api::{Gateway, Trouble};
use super::super::table::clean;
use super::super::{Exit, fail, print};
use super::{Command, show};
use crate::admin::wire::queue::{ActionDone, ActionName, ActionRequest, Job, JobAnswer, JobRequest};

/// How often a job is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Which messages, and whether to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Targets {
    /// Ids, or the terms of a filter, such as: state=deferred provider=ses.eu
    #[arg(value_name = "ID-OR-FILTER", required_unless_present = "all")]
    which: Vec<String>,
    /// All messages in the queue.
    #[arg(long, conflicts_with = "which")]
    all: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// Only say which messages it would be.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
}

impl Command {
    /// The action that this command asks for.
    pub(super) fn request(&self) -> ActionRequest {
        let none = ActionRequest { action: ActionName::Retry, reason: None, route: None, from: None, to: None };
        match self {
            Self::Hold(_) => ActionRequest { action: ActionName::Hold, ..none },
            Self::Release(_) => ActionRequest { action: ActionName::Release, ..none },
            Self::Remove(_) => ActionRequest { action: ActionName::Remove, ..none },
            Self::Bounce { reason, .. } => ActionRequest { action: ActionName::Bounce, reason: Some(reason.clone()), ..none },
            Self::Reroute { to, .. } => ActionRequest { action: ActionName::Reroute, route: Some(to.clone()), ..none },
            Self::Readdress { from, to, .. } => {
                ActionRequest { action: ActionName::Readdress, from: Some(from.clone()), to: Some(to.clone()), ..none }
            }
            _ => none,
        }
    }
}

pub(super) async fn run(gateway: &Gateway, json: bool, targets: &Targets, request: ActionRequest) -> Result<Exit, Trouble> {
    let ids = targets.which.iter().all(|which| which.parse::<MessageId>().is_ok());
    if ids && !targets.all && !targets.dry_run {
        return each(gateway, json, &targets.which, &request).await;
    }
    if ids && !targets.all {
        return Ok(fail(Exit::Usage, "--dry-run is for filters; `postrider queue show ID` shows one message"));
    }
    if let Some(odd) = targets.which.iter().find(|which| which.parse::<MessageId>().is_ok()) {
        return Ok(fail(Exit::Usage, &format!("{odd} is an id among the terms of a filter; give ids alone, or a filter alone")));
    }
    many(gateway, json, targets, request).await
}

/// One after the other; what cannot be done to one is no reason to leave out the others.
async fn each(gateway: &Gateway, json: bool, ids: &[String], request: &ActionRequest) -> Result<Exit, Trouble> {
    let mut exit = Exit::Ok;
    for id in ids {
        match gateway.post::<ActionDone>(&["queue", "messages", id, "actions"], request).await {
            Ok(done) => print(&if json { json!(done).to_string() } else { format!("{}: {}", done.id, past(done.action)) }),
            Err(trouble @ Trouble::Refused(_)) => exit = trouble.report(),
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(exit)
}

async fn many(gateway: &Gateway, json: bool, targets: &Targets, action: ActionRequest) -> Result<Exit, Trouble> {
    let name = action.action;
    let mut request = JobRequest { filter: super::filter_text(&targets.which), action, dry_run: true, expected_count: None };
    let preview: JobAnswer = gateway.post(&["queue", "jobs"], &request).await?;
    if targets.dry_run {
        print(&if json { json!(preview).to_string() } else { previewed(&preview, name) });
        return Ok(Exit::Ok);
    }
    if preview.count == 0 {
        print(&if json { json!(preview).to_string() } else { "no message is meant; nothing was done".to_owned() });
        return Ok(Exit::Ok);
    }
    if !targets.yes && !confirmed(&previewed(&preview, name)) {
        return Ok(fail(Exit::Usage, "nothing was done; --yes does it without asking"));
    }
    request.dry_run = false;
    request.expected_count = Some(preview.count);
    let started: JobAnswer = gateway.post(&["queue", "jobs"], &request).await?;
    let Some(mut job) = started.job else {
        return Ok(fail(Exit::Unavailable, "the job was started, and is not known any more; look at `postrider queue jobs`"));
    };
    let progress = std::io::stderr().is_terminal() && !json;
    while job.state == "running" {
        tokio::time::sleep(LOOK).await;
        job = gateway.get(&["queue", "jobs", &job.id.to_string()], &[]).await?;
        if progress {
            let _ = write!(std::io::stderr(), "\r{} of {} ", job.matched, job.expected.unwrap_or(preview.count));
        }
    }
    if progress {
        let _ = writeln!(std::io::stderr());
    }
    print(&if json { json!(job).to_string() } else { told(&job) });
    Ok(if job.state == "finished" && job.busy + job.refused == 0 { Exit::Ok } else { Exit::TempFail })
}

fn previewed(preview: &JobAnswer, name: ActionName) -> String {
    let examples = show::listed(&preview.examples, SystemTime::now());
    let more = preview.count.saturating_sub(preview.examples.len() as u64);
    let more = if more > 0 { format!("… and {more} more\n") } else { String::new() };
    format!("{}: {} messages\n\n{examples}{more}", name.name(), preview.count)
}

/// Whether a person says yes. Where nobody can, it is a no.
fn confirmed(what: &str) -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    let mut out = std::io::stderr();
    let _ = write!(out, "{what}\nDo it? [y/N] ");
    let _ = out.flush();
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// How a job went, in words.
pub(super) fn told(job: &Job) -> String {
    let mut text = format!("job {} {}: {} of {} done", job.id, job.state, job.done, job.matched);
    for (count, what) in [(job.busy, "being attempted"), (job.refused, "refused"), (job.gone, "gone meanwhile")] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    for why in [&job.first_refusal, &job.failure].into_iter().flatten() {
        text.push_str(&format!("\n{}", clean(why)));
    }
    text
}

fn past(action: ActionName) -> &'static str {
    match action {
        ActionName::Retry => "is tried now",
        ActionName::Hold => "held",
        ActionName::Release => "released",
        ActionName::Remove => "removed",
        ActionName::Bounce => "bounced",
        ActionName::Reroute => "rerouted",
        ActionName::Readdress => "readdressed",
    }
}
