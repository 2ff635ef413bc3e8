//! The part of a notification that people read: what happened, in plain words first.

use postrider_providers::contract::{Diagnostic, ReversePath};

use super::report::{Lines, Report, date, one_line};
use super::returned::Returned;
use super::{Event, Notice, Who};

impl Report<'_> {
    pub(super) fn subject(&self) -> String {
        if self.reader.who != Who::Sender {
            let whose = self.application().map_or_else(String::new, |name| format!(" of application {name}"));
            return format!("Undelivered mail{whose}: {}", count(self.notices.len(), "recipient"));
        }
        let is = |what: fn(&Event) -> bool| self.notices.iter().any(|notice| what(&notice.event));
        if is(|event| matches!(event, Event::Failed { .. })) {
            "Undelivered mail returned to sender".to_owned()
        } else if is(|event| matches!(event, Event::Delayed { .. })) {
            "Mail is delayed: it is tried further".to_owned()
        } else {
            "Mail handed over: delivery will not be confirmed".to_owned()
        }
    }

    /// The application's name, if a header can carry it as it stands.
    fn application(&self) -> Option<&str> {
        self.message.origin.application.as_deref().filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()))
    }

    pub(super) fn for_people(&self, lines: &mut Lines, returned: &Returned) {
        lines.add(format_args!("\r\n--{}\r\nContent-Type: text/plain; charset=utf-8", self.boundary()));
        lines.add(format_args!("Content-Transfer-Encoding: 8bit\r\n"));
        lines.add(format_args!("This is the mail relay at {}.", self.relay.hostname));
        if self.reader.who == Who::Sender {
            self.for_the_sender(lines);
        } else {
            self.for_others(lines);
        }
        if let Some(why) = returned.shortened {
            lines.add(format_args!("Only its header is returned, because {why}."));
        }
    }

    fn for_the_sender(&self, lines: &mut Lines) {
        self.list(lines, "Your message could not be delivered to:", |event| match event {
            Event::Failed { diagnostic, expired } => Some(failure(diagnostic, *expired)),
            Event::Delayed { .. } | Event::Relayed(_) => None,
        });
        let mut until = None;
        self.list(lines, "Your message has not been delivered yet to:", |event| match event {
            Event::Delayed { diagnostic, until: given_up, .. } => {
                until = Some(*given_up);
                Some(format!("so far: {}", one_line(&diagnostic.to_string())))
            }
            Event::Failed { .. } | Event::Relayed(_) => None,
        });
        if let Some(until) = until {
            lines.add(format_args!("\r\nIt is tried further until {}. You need not send it again,", date(until)));
            lines.add(format_args!("and will be told if it cannot be delivered."));
        }
        let relayed = self.list(lines, "Your message was handed over to the next mail system for:", |event| match event {
            Event::Relayed(receipt) => Some(format!("answered: {}", one_line(&receipt.reply))),
            Event::Failed { .. } | Event::Delayed { .. } => None,
        });
        if relayed {
            lines.add(format_args!("\r\nThat system does not confirm delivery. Unless delivery fails there, this is the last"));
            lines.add(format_args!("you will hear of it."));
        }
        lines.add(format_args!("\r\nIts id at this relay is {}.", self.message.id));
    }

    /// For those who answer for the mail: what was lost, and what can be done.
    fn for_others(&self, lines: &mut Lines) {
        let message = self.message;
        match (self.reader.who, message.origin.application.as_deref()) {
            (Who::Owner, Some(name)) => lines.add(format_args!("You are the owner of the application \"{name}\".")),
            _ => lines.add(format_args!("You are its operator.")),
        }
        self.list(lines, "A message could not be delivered to:", |event| match event {
            Event::Failed { diagnostic, expired } => {
                let advice = diagnostic.advice.map_or_else(String::new, |advice| format!("\r\n    what to do: {advice}"));
                Some(failure(diagnostic, *expired) + &advice)
            }
            Event::Delayed { .. } | Event::Relayed(_) => None,
        });
        lines.add(format_args!(""));
        if let Some(name) = message.origin.application.as_deref() {
            lines.add(format_args!("Application: {name}"));
        }
        if let Some(client) = message.origin.client {
            lines.add(format_args!("Client:      {client}"));
        }
        match &message.envelope.reverse_path {
            ReversePath::Mailbox(sender) => lines.add(format_args!("Sender:      <{sender}>")),
            ReversePath::Null => lines.add(format_args!("Sender:      none (the null reverse-path)")),
        }
        if let Some(id) = message.origin.message_id.as_deref() {
            lines.add(format_args!("Message-ID:  <{}>", one_line(id)));
        }
        lines.add(format_args!("Accepted:    {}", date(message.received)));
        lines.add(format_args!("Id here:     {}", message.id));
        let told = if self.reader.sender_is_told { "The sender is told, too." } else { "The sender is not told." };
        lines.add(format_args!("\r\n{told} What was tried: postrider history {}", message.id));
    }

    /// The recipients about whom `say` has something, under a heading. Whether there were any.
    fn list(&self, lines: &mut Lines, heading: &str, mut say: impl FnMut(&Event) -> Option<String>) -> bool {
        let mut any = false;
        for Notice { recipient, event } in self.notices {
            let Some(words) = say(event) else { continue };
            if !any {
                lines.add(format_args!("\r\n{heading}\r\n"));
            }
            any = true;
            lines.add(format_args!("  <{}>\r\n    {words}", recipient.address));
        }
        any
    }
}

fn failure(diagnostic: &Diagnostic, expired: bool) -> String {
    let why = if expired { "gave up after trying for too long; the last answer was" } else { "refused" };
    format!("{why}: {}", one_line(&diagnostic.to_string()))
}

/// As in `2 recipients`.
pub(super) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
