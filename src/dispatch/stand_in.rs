//! In whose name notifications go out where nobody takes the null reverse-path.
//!
//! Stored, a notification has the null reverse-path, whatever it is handed over with. So it causes no
//! other one here, however it ends.

use std::sync::Arc;

use postrider_providers::contract::{Message, ProviderName, ReversePath};

use super::{Dispatcher, Rules};
use crate::bounce::guard;
use crate::spool::Spool;

/// The message as these candidates are asked to take it: a notification of this gateway gets
/// `bounce.sender` as its reverse-path if there is one, and if none of them takes the null one.
pub(super) fn shown<S: Spool>(
    dispatcher: &Dispatcher<S>,
    rules: &Rules,
    message: &Arc<Message>,
    candidates: &[ProviderName],
) -> Arc<Message> {
    let takes_null = |name: &ProviderName| rules.transports.get(name).is_some_and(|guarded| guarded.capabilities().null_sender);
    match dispatcher.queue.notification_sender() {
        Some(stand_in) if guard::is_own(message) && !candidates.iter().any(takes_null) => {
            let mut shown = Message::clone(message);
            shown.envelope.reverse_path = ReversePath::Mailbox(stand_in);
            Arc::new(shown)
        }
        _ => Arc::clone(message),
    }
}
