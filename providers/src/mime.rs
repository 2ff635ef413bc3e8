//! What providers need to know of a message's content, and how it is changed where it must be.
//!
//! - [`fields`]: the one mapping from MIME to the fields of JSON APIs.
//! - [`readdress`]: the message for services that take the recipients from its header.
//! - [`signature`]: whether something in it is signed that such a mapping would break.

pub mod fields;
pub mod readdress;
pub mod signature;
