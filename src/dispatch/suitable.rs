//! Whether a candidate can carry a message, as far as that is known without asking it.

use std::io;

use postrider_providers::contract::{BodyType, Capabilities, ContentForm, Diagnostic, EnhancedStatus, Failure, Message};
use postrider_providers::mime::signature::Signature;
use tokio::sync::OnceCell;

use crate::config::Route;
use crate::route::{Needs, Obstacle, obstacle};

/// One message, whose content is looked at when that first matters, and once.
pub(super) struct Examined<'m> {
    message: &'m Message,
    signature: OnceCell<Option<Signature>>,
    is_null_sent: bool,
}

impl<'m> Examined<'m> {
    /// `is_null_sent`: whether it has the null reverse-path, but for an address that stands in for that.
    pub(super) fn new(message: &'m Message, is_null_sent: bool) -> Self {
        Self { message, signature: OnceCell::new(), is_null_sent }
    }

    /// Whether a provider of `route` with these capabilities can carry the message.
    ///
    /// # Errors
    /// `Unsuitable` with the reason; `Unavailable` if the message cannot be read.
    pub(super) async fn can_be_carried(&self, capabilities: &Capabilities, route: &Route) -> Result<(), Failure> {
        let needs = Needs { size: self.message.body.len(), ..Needs::of(&self.message.envelope) }.on(route);
        if let Some(obstacle) = obstacle(capabilities, &needs) {
            return Err(unsuitable(&obstacle));
        }
        if !capabilities.eight_bit && self.is_eight_bit().await? {
            return Err(said((5, 6, 3), "the message is 8-bit (8BITMIME), and this provider carries ASCII alone".to_owned()));
        }
        if capabilities.content != ContentForm::Fields || route.break_signatures {
            return Ok(());
        }
        let needs = Needs { signature: self.signature().await?, ..needs };
        obstacle(capabilities, &needs).map_or(Ok(()), |obstacle| Err(unsuitable(&obstacle)))
    }

    /// Whether the content is declared as 8-bit and is so. A notification goes out as it is: refused, it
    /// would be lost.
    async fn is_eight_bit(&self) -> Result<bool, Failure> {
        if self.message.envelope.body_type == BodyType::SevenBit || self.is_null_sent {
            return Ok(false);
        }
        self.message.body.is_ascii().await.map(|is_ascii| !is_ascii).map_err(|error| unreadable(&error))
    }

    async fn signature(&self) -> Result<Option<Signature>, Failure> {
        let look = async || self.message.body.start(Signature::WITHIN).await.map(|start| Signature::of(&start));
        let found = self.signature.get_or_try_init(look).await;
        found.copied().map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::Unavailable(Diagnostic::local(format!("the message cannot be read from the spool: {error}")))
}

/// The failure that an obstacle is.
pub(super) fn unsuitable(obstacle: &Obstacle) -> Failure {
    let (status, text) = match obstacle {
        Obstacle::Size { size, max } => ((5, 3, 4), format!("the message has {size} octets, this provider takes {max}")),
        Obstacle::Smtputf8 => ((5, 6, 7), "this provider does not carry SMTPUTF8".to_owned()),
        Obstacle::NullSender | Obstacle::Combination => ((5, 1, 7), "this provider takes no message with the null reverse-path".to_owned()),
        Obstacle::RawOnly => ((5, 6, 2), "this provider takes no message as it is, which its route demands".to_owned()),
        Obstacle::Signature(signature) => {
            ((5, 6, 2), format!("the message is signed with {}, and this provider would break the signature", signature.name()))
        }
    };
    said(status, text)
}

fn said((class, subject, detail): (u8, u16, u16), text: String) -> Failure {
    Failure::Unsuitable(Diagnostic { status: Some(EnhancedStatus(class, subject, detail)), ..Diagnostic::local(text) })
}
