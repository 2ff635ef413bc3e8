//! What the routes can carry, asked at EHLO, MAIL, RCPT and DATA: what no provider would take is refused
//! here, with the reason, and does not bounce later.

use std::sync::Arc;

use postrider_providers::contract::{Address, Envelope, Origin};
use postrider_providers::mime::signature::Signature;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::info;

use super::command::MailCommand;
use super::reply::{self, Reply};
use super::session::Session;
use crate::config::{ListenerTls, Route};
use crate::route::{Carriage, Known, Needs, Obstacle, Room, Router};
use crate::spool::Spool;

/// More routes than these are not named in a reply.
const MOST_NAMED: usize = 3;

impl<T: AsyncRead + AsyncWrite + Unpin, S: Spool> Session<T, S> {
    /// Who hands in the mail of this session.
    pub(super) fn origin(&self) -> Origin {
        let application = self.standing.application.as_ref().map(|application| application.name.clone());
        Origin { application, client: Some(self.client.address), ..Origin::default() }
    }

    /// What can be carried of all the mail that this client might hand in.
    pub(super) fn carriage(&self) -> Carriage {
        let listener = &self.door.listener;
        let takes_logins = listener.tls != ListenerTls::Off || listener.auth_without_tls;
        let may_log_in = takes_logins && self.client.login.is_none();
        self.front_end.router.carriage_for(&Known { origin: &self.origin(), may_log_in, from: None, to: None })
    }

    /// Refuses what no route for this sender has a provider for.
    pub(super) fn can_begin(&self, mail: &MailCommand) -> Result<(), Reply> {
        let needs = Needs { size: mail.size.unwrap_or(0), smtputf8: mail.smtputf8, ..Needs::default() };
        begin(
            &self.front_end.router,
            &Known { origin: &self.origin(), may_log_in: false, from: Some(&mail.reverse_path), to: None },
            &needs,
        )
        .inspect_err(|refusal| info!(client = %self.client.address, from = %mail.reverse_path, reply = %refusal, "refused"))
    }
}

/// Whether any route that is still open has a provider for what needs this.
///
/// # Errors
/// What the client hears, with the need that no provider meets.
pub fn begin(router: &Router, known: &Known<'_>, needs: &Needs) -> Result<(), Reply> {
    router.carriage_for(known).check(needs).map_err(|obstacle| {
        let names: Vec<String> = router.reachable(known).map(|route| format!("\"{}\"", route.name)).collect();
        let whose = match names.as_slice() {
            [only] => format!("route {only}"),
            few if few.len() <= MOST_NAMED => format!("the routes {}", few.join(", ")),
            _ => "any route for this sender".to_owned(),
        };
        refusal(&obstacle, &whose, None)
    })
}

/// Refuses a recipient whose route does not exist, or has no provider for the message, as far as the
/// envelope and the declared size tell.
///
/// # Errors
/// What the client hears.
pub fn admit(router: &Router, origin: &Origin, envelope: &Envelope, size: Option<u64>, to: &Address) -> Result<(), Reply> {
    let Some(route) = router.route(&envelope.reverse_path, to, origin) else {
        info!(client = client(origin), from = %envelope.reverse_path, %to, "recipient refused: no route matches");
        return Err(Reply::with_text(550, (5, 4, 4), format!("<{to}>: no route matches this sender and recipient")));
    };
    let needs = Needs::of(envelope);
    let needs = Needs { size: size.unwrap_or(0), smtputf8: needs.smtputf8 || !to.is_ascii(), ..needs };
    router.carriage(route).check(&needs).map_err(|obstacle| {
        let refusal = refusal(&obstacle, &format!("route \"{}\"", route.name), Some(to));
        info!(client = client(origin), from = %envelope.reverse_path, %to, route = %route.name, reply = %refusal, "recipient refused: no provider can carry this");
        refusal
    })
}

/// Refuses a signed message that no provider of some recipient's route would keep as it is.
///
/// # Errors
/// What the client hears.
pub fn keep(router: &Router, origin: &Origin, envelope: &Envelope, size: u64, signature: Signature) -> Result<(), Reply> {
    let mut seen: Vec<&Arc<Route>> = Vec::new();
    for recipient in &envelope.recipients {
        let Some(route) = router.route(&envelope.reverse_path, &recipient.address, origin) else { continue };
        if seen.iter().any(|known| Arc::ptr_eq(known, route)) {
            continue;
        }
        seen.push(route);
        let needs = Needs { size, signature: Some(signature), ..Needs::of(envelope) }.on(route);
        let whose = format!("route \"{}\"", route.name);
        router.carriage(route).check(&needs).map_err(|obstacle| {
            // Those that would carry the rest of it break the signature.
            let obstacle = if obstacle == Obstacle::Combination { Obstacle::Signature(signature) } else { obstacle };
            refusal(&obstacle, &whose, Some(&recipient.address))
        })?;
    }
    Ok(())
}

fn client(origin: &Origin) -> Option<impl tracing::Value> {
    origin.client.map(tracing::field::display)
}

/// What a client hears; `whose` says which providers were asked about.
fn refusal(obstacle: &Obstacle, whose: &str, to: Option<&Address>) -> Reply {
    let to_whom = to.map_or_else(String::new, |to| format!("<{to}>: "));
    let (code, status, text) = match obstacle {
        Obstacle::Size { size, max } => {
            (552, (5, 3, 4), format!("the message has {size} octets; no provider of {whose} takes more than {max}"))
        }
        Obstacle::Smtputf8 => {
            // RFC 6531 section 3.5: 553 where the recipient's address is at fault.
            let code = if to.is_some_and(|to| !to.is_ascii()) { 553 } else { 550 };
            (code, (5, 6, 7), format!("no provider of {whose} carries SMTPUTF8"))
        }
        Obstacle::NullSender => (550, (5, 7, 1), format!("no provider of {whose} takes mail with the null reverse-path <>")),
        Obstacle::RawOnly => (554, (5, 6, 2), format!("no provider of {whose} takes messages as they are")),
        Obstacle::Signature(signature) => {
            let name = signature.name();
            (
                554,
                (5, 6, 2),
                format!(
                    "the message is signed with {name}, and every provider of {whose} would break that; break_signatures = true would allow it"
                ),
            )
        }
        Obstacle::Combination => {
            (554, (5, 3, 3), format!("no single provider of {whose} takes a message with this size, SMTPUTF8 and reverse-path together"))
        }
    };
    Reply::with_text(code, status, format!("{to_whom}{text}"))
}

/// The reply to a message that turned out too large for some recipient.
pub(super) fn too_large(room: &Room) -> Reply {
    let Room { octets, route, recipient } = room;
    Reply::with_text(
        reply::TOO_LARGE.code(),
        (5, 3, 4),
        format!("<{recipient}>: the message is too large; no provider of route \"{route}\" takes more than {octets} octets"),
    )
}
