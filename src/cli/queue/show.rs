//! Messages of the queue, as text for people.

use std::fmt::Write as _;
use std::time::SystemTime;

use postrider_providers::settings::Size;

use super::super::table::{clean, drawn, row, table, when, when_if};
use crate::admin::wire::queue::{MessageDetail, QueuedMessage};

/// How wide a reason may be in a list.
const REASON: usize = 60;

/// One line for each message.
pub(super) fn listed(messages: &[QueuedMessage], now: SystemTime) -> String {
    let mut all = table(&["ID", "STATE", "AGE", "NEXT TRY", "TRIES", "ROUTE", "FROM", "TO", "WHY"]);
    for message in messages {
        let open = message.recipients.iter().find(|recipient| !matches!(recipient.state.as_str(), "relayed" | "bounced" | "expired"));
        let first = open.or(message.recipients.first());
        let mut to = first.map(|recipient| recipient.address.clone()).unwrap_or_default();
        if message.recipient_count > 1 {
            let _ = write!(to, " and {}", message.recipient_count - 1);
        }
        let why: String = first.and_then(|recipient| recipient.diagnostic.as_deref()).unwrap_or("-").chars().take(REASON).collect();
        let from = if message.sender.is_empty() { "<>".to_owned() } else { message.sender.clone() };
        let age = when(message.received, now);
        let route = message.rerouted.clone().unwrap_or_else(|| message.route.clone());
        let cells = [message.id.clone(), message.state.clone(), age.trim_end_matches(" ago").to_owned()];
        row(&mut all, cells.into_iter().chain([when_if(message.due, now), message.attempts.to_string(), route, from, to, why]));
    }
    drawn(&all)
}

/// All that is known of one message.
pub(super) fn text(detail: &MessageDetail, content: bool, now: SystemTime) -> String {
    let message = &detail.message;
    let mut lines = vec![
        ("id", message.id.clone()),
        ("state", message.state.clone()),
        ("from", format!("<{}>", message.sender)),
        ("size", Size(message.size).to_string()),
        ("accepted", format!("{} ({})", message.received.to_text(), when(message.received, now))),
        ("route", message.route.clone()),
        ("priority", message.priority.clone()),
        ("attempts", message.attempts.to_string()),
    ];
    lines.extend(message.rerouted.clone().map(|route| ("rerouted", format!("to {route}, by a person"))));
    lines.extend(message.due.map(|due| ("next try", format!("{} ({})", when(due, now), due.to_text()))));
    lines.extend(message.held_at.map(|held| ("held", format!("since {}, by a person", when(held, now)))));
    lines.extend(detail.waits_for.clone().map(|reason| ("waits for", reason)));
    lines.extend(message.application.clone().map(|name| ("application", name)));
    lines.extend(message.client.clone().map(|client| ("client", client)));
    lines.extend(message.message_id.clone().map(|id| ("message-id", format!("<{id}>"))));
    let mut text = String::new();
    for (name, value) in lines {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name:<12} {}", clean(&value));
    }
    text.push('\n');
    let mut recipients = table(&["TO", "STATE", "PROVIDER", "WHAT WAS SAID"]);
    for recipient in &message.recipients {
        let said = recipient.diagnostic.clone().unwrap_or_else(|| "-".to_owned());
        let provider = recipient.provider.clone().unwrap_or_else(|| "-".to_owned());
        row(&mut recipients, [recipient.address.clone(), recipient.state.clone(), provider, said]);
    }
    text.push_str(&drawn(&recipients));
    if content {
        let _ = write!(text, "\n{}", clean(&detail.header.replace("\r\n", "\n")));
        if let Some(body) = &detail.body {
            let _ = write!(text, "\n{}", clean(&body.replace("\r\n", "\n")));
        }
        if detail.cut {
            text.push_str("\n(cut here; `postrider queue export` gives all of it)\n");
        }
    }
    text
}
