//! What the gateway and every provider agree on: the nouns of mail, the verdicts, and the trait.
//!
//! The gateway hands a provider an [`Attempt`]; the provider answers with a [`Delivery`]. The type
//! says when trying elsewhere is safe: `Err` means that nothing was handed over, `Ok` means that the
//! provider was reached and each recipient has an outcome of its own.

mod address;
mod attempt;
mod body;
mod capabilities;
mod envelope;
mod message;
mod notification;
mod outcome;
mod probe;
mod provider;
mod status;
pub mod xtext;

pub use address::{Address, AddressError};
pub use attempt::Attempt;
pub use body::{Body, BodyReader};
pub use capabilities::{Capabilities, ContentForm, CountedSize, EnvelopeForm, SizeLimit};
pub use envelope::{BodyType, Envelope, Recipient, RecipientIndex, ReversePath};
pub use message::{Message, MessageId, Origin, ParseMessageIdError, Priority};
pub use notification::{Notify, OriginalRecipient, OriginalRecipientError, Returned};
pub use outcome::{BreakerSignal, Delivery, Failure, Outcome, Receipt, Report, Throttled};
pub use probe::{Allowance, Probed};
pub use provider::{Connected, DynProvider, Provider, ProviderName};
pub use status::{Diagnostic, EnhancedStatus};
