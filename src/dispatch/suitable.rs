//! Whether a candidate can carry a message, as far as that is known without asking it.

use postrider_providers::contract::{Capabilities, ContentForm, Diagnostic, EnhancedStatus, Failure, Message};
use postrider_providers::mime::signature::Signature;
use tokio::sync::OnceCell;

use crate::config::Route;
use crate::route::{Needs, Obstacle, obstacle};

/// One message, whose content is looked at when that first matters, and once.
pub(super) struct Examined<'m> {
    message: &'m Message,
    signature: OnceCell<Option<Signature>>,
}

impl<'m> Examined<'m> {
    pub(super) fn new(message: &'m Message) -> Self {
        Self { message, signature: OnceCell::new() }
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
        if capabilities.content != ContentForm::Fields || route.break_signatures {
            return Ok(());
        }
        let needs = Needs { signature: self.signature().await?, ..needs };
        obstacle(capabilities, &needs).map_or(Ok(()), |obstacle| Err(unsuitable(&obstacle)))
    }

    async fn signature(&self) -> Result<Option<Signature>, Failure> {
        let look = async || self.message.body.start(Signature::WITHIN).await.map(|start| Signature::of(&start));
        let found = self.signature.get_or_try_init(look).await;
        found
            .copied()
            .map_err(|error| Failure::Unavailable(Diagnostic::local(format!("the message cannot be read from the spool: {error}"))))
    }
}

fn unsuitable(obstacle: &Obstacle) -> Failure {
    let (status, text) = match obstacle {
        Obstacle::Size { size, max } => ((5, 3, 4), format!("the message has {size} octets, this provider takes {max}")),
        Obstacle::Smtputf8 => ((5, 6, 7), "this provider does not carry SMTPUTF8".to_owned()),
        Obstacle::NullSender | Obstacle::Combination => ((5, 1, 7), "this provider takes no message with the null reverse-path".to_owned()),
        Obstacle::RawOnly => ((5, 6, 2), "this provider takes no message as it is, which its route demands".to_owned()),
        Obstacle::Signature(signature) => {
            ((5, 6, 2), format!("the message is signed with {}, and this provider would break the signature", signature.name()))
        }
    };
    let (class, subject, detail) = status;
    Failure::Unsuitable(Diagnostic { status: Some(EnhancedStatus(class, subject, detail)), ..Diagnostic::local(text) })
}
