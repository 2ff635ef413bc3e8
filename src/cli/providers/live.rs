//! The providers of a running gateway: how they are doing, and what a person decides about them.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::json;

use super::super::api::{Gateway, Reach, Trouble};
use super::super::table::{clean, drawn, row, table, when, when_if};
use super::super::{Exit, fail, print};
use crate::admin::wire::Decided;
use crate::admin::wire::providers::{ControlDone, ControlName, ControlRequest, Limit, Provider, ProviderList};

/// What is paused or resumed: a provider by its name, or one of the others.
#[derive(Debug, clap::Args)]
pub(crate) struct What {
    /// A provider, by its name in routes.
    #[arg(required_unless_present_any = ["route", "domain", "app"])]
    provider: Option<String>,
    /// A route, by name.
    #[arg(long, conflicts_with_all = ["provider", "domain", "app"])]
    route: Option<String>,
    /// A sending domain.
    #[arg(long, conflicts_with_all = ["provider", "app"])]
    domain: Option<String>,
    /// An application, by name.
    #[arg(long, conflicts_with = "provider")]
    app: Option<String>,
}

impl What {
    pub(super) fn request(&self, action: ControlName) -> ControlRequest {
        let Self { provider, route, domain, app } = self;
        ControlRequest { action, provider: provider.clone(), route: route.clone(), domain: domain.clone(), application: app.clone() }
    }
}

/// A decision about one provider.
pub(super) fn about(action: ControlName, provider: &str) -> ControlRequest {
    ControlRequest { action, provider: Some(provider.to_owned()), route: None, domain: None, application: None }
}

/// Has a decision followed.
pub(super) async fn control(reach: &Reach, request: &ControlRequest) -> Exit {
    let done = async {
        let done: ControlDone = Gateway::find(reach)?.post(&["control"], request).await?;
        print(&if reach.json { json!(done).to_string() } else { clean(&done.changed) });
        Ok(Exit::Ok)
    };
    done.await.unwrap_or_else(|trouble: Trouble| trouble.report())
}

/// The table of all providers; `None` if the gateway is not reached.
pub(super) async fn list(reach: &Reach) -> Result<String, Trouble> {
    let all: ProviderList = Gateway::find(reach)?.get(&["providers"], &[]).await?;
    if reach.json {
        return Ok(json!(all).to_string());
    }
    let now = SystemTime::now();
    let mut shown = table(&["PROVIDER", "CIRCUIT", "DECIDED", "IN FLIGHT", "LEFT", "LAST SUCCESS", "LAST ERROR"]);
    for provider in &all.providers {
        let circuit = match provider.circuit.until {
            Some(until) if provider.circuit.state != "closed" => format!("{}, {}", provider.circuit.state, when(until, now)),
            _ => provider.circuit.state.clone(),
        };
        let error = provider.last_errors.first().map(|error| format!("{}: {} {}", when(error.at, now), error.verdict, error.words));
        let in_flight = format!("{}/{}", provider.in_flight, provider.concurrency);
        let success = when_if(provider.last_success, now);
        row(
            &mut shown,
            [provider.name.clone(), circuit, decisions(provider).join(", "), in_flight, left(provider), success, error.unwrap_or_default()],
        );
    }
    let mut text = drawn(&shown);
    for pause in all.pauses.iter().filter(|pause| pause.what != "provider") {
        let _ = writeln!(text, "paused: {} {}, {}", pause.what, clean(&pause.name), by(&pause.decided, now));
    }
    for pin in &all.pins {
        let _ = writeln!(text, "pinned: route {} to {}, {}", clean(&pin.route), pin.provider, by(&pin.decided, now));
    }
    Ok(text)
}

/// One provider in full.
pub(super) async fn show(reach: &Reach, name: &str) -> Exit {
    let shown = async {
        let provider: Provider = Gateway::find(reach)?.get(&["providers", name], &[]).await?;
        print(&if reach.json { json!(provider).to_string() } else { in_full(&provider, SystemTime::now()) });
        Ok(Exit::Ok)
    };
    shown.await.unwrap_or_else(|trouble: Trouble| trouble.report())
}

/// A line for each provider that is not as usual.
pub(crate) fn troubles(all: &ProviderList, now: SystemTime) -> Vec<String> {
    let mut lines = Vec::new();
    for provider in &all.providers {
        let circuit = &provider.circuit;
        let mut said = decisions(provider);
        if circuit.state != "closed" {
            let until = circuit.until.map(|until| format!(", next probe {}", when(until, now))).unwrap_or_default();
            let why = if circuit.why.is_empty() { String::new() } else { format!(": {}", clean(&circuit.why)) };
            said.push(format!("circuit {}{until}{why}", circuit.state));
        }
        said.extend(
            provider
                .throttled_until
                .filter(|until| until.0 > now)
                .map(|until| format!("asks to be left alone, until {}", when(until, now))),
        );
        if !said.is_empty() {
            lines.push(format!("{}: {}", provider.name, said.join("; ")));
        }
    }
    let others = all.pauses.iter().filter(|pause| pause.what != "provider");
    lines.extend(others.map(|pause| format!("{} {}: paused {}", pause.what, clean(&pause.name), by(&pause.decided, now))));
    lines
}

fn decisions(provider: &Provider) -> Vec<String> {
    let all = [("tripped", &provider.tripped), ("drained", &provider.drained), ("paused", &provider.paused)];
    all.into_iter().filter_map(|(what, decided)| Some(format!("{what} by {}", clean(&decided.as_ref()?.by)))).collect()
}

fn by(decided: &Decided, now: SystemTime) -> String {
    format!("by {}, {}", clean(&decided.by), when(decided.at, now))
}

fn in_full(provider: &Provider, now: SystemTime) -> String {
    let circuit = &provider.circuit;
    let mut lines = vec![(
        "circuit",
        format!("{}{}", circuit.state, circuit.since.map(|since| format!(" since {}", when(since, now))).unwrap_or_default()),
    )];
    if !circuit.why.is_empty() {
        lines.push(("why", circuit.why.clone()));
    }
    lines.extend(circuit.until.filter(|_| circuit.state != "closed").map(|until| ("until", when(until, now))));
    for (what, decided) in [("tripped", &provider.tripped), ("drained", &provider.drained), ("paused", &provider.paused)] {
        lines.extend(decided.as_ref().map(|decided| (what, by(decided, now))));
    }
    lines.push(("in flight", format!("{} of {}", provider.in_flight, provider.concurrency)));
    lines.push(("last success", when_if(provider.last_success, now)));
    lines.push(("in doubt", provider.in_doubt.to_string()));
    lines.extend(provider.throttled_until.map(|until| ("left alone", format!("until {}", when(until, now)))));
    for limit in &provider.limits {
        lines.push(("limit", self::limit(limit, now)));
    }
    for error in &provider.last_errors {
        let advice = error.advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
        lines.push(("error", format!("{}: {}: {}{advice}", when(error.at, now), error.verdict, error.words)));
    }
    for refused in &provider.refused_senders {
        lines.push(("refuses", format!("{} until {}: {}", refused.sender, when(refused.until, now), refused.words)));
    }
    let lines = lines.into_iter().map(|(name, value)| format!("  {name:<13} {}\n", clean(&value)));
    format!("{}\n{}", provider.name, lines.collect::<String>()).trim_end().to_owned()
}

/// What is left of the limit that is nearest to its end.
fn left(provider: &Provider) -> String {
    // As whole numbers: a/b < c/d where a*d < c*b.
    let nearest = provider
        .limits
        .iter()
        .min_by(|one, other| (u128::from(one.left) * u128::from(other.burst)).cmp(&(u128::from(other.left) * u128::from(one.burst))));
    nearest.map(|limit| format!("{} of {}", limit.left, rate(limit))).unwrap_or_default()
}

/// A limit as it stands.
pub(in crate::cli) fn limit(limit: &Limit, now: SystemTime) -> String {
    let next = limit.next.map(|next| format!(", the next {}", when(next, now))).unwrap_or_default();
    format!("{}: {}, {} used, {} left{next}", limit.name, rate(limit), limit.used, limit.left)
}

/// A limit's setting as one would write it.
fn rate(limit: &Limit) -> String {
    let period = match limit.period_seconds {
        1 => "s".to_owned(),
        60 => "min".to_owned(),
        3600 => "hour".to_owned(),
        86_400 => "day".to_owned(),
        seconds => format!("{seconds} s"),
    };
    let counted = if limit.counted == "recipients" { " recipients" } else { "" };
    format!("{}{counted}/{period}", limit.count)
}

/// Says, where the list is the config's alone, that it is.
pub(super) fn not_reached(trouble: &Trouble) {
    if let Trouble::Unreachable(why) = trouble {
        let _ = fail(Exit::Ok, &format!("{why}; this is what the config says"));
    }
}
