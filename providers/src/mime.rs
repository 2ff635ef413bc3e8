//! What providers need to know of a message's content, and how it is changed where it must be.
//!
//! - [`block`]: the header's fields as they stand.
//! - [`fields`]: the one mapping from MIME to the fields of JSON APIs.
//! - [`narrow`]: what stands for what a narrower API cannot take.
//! - [`readdress`]: the message for services that take the recipients from its header.
//! - [`signature`]: whether something in it is signed that such a mapping would break.

pub mod block;
pub mod fields;
pub mod narrow;
pub mod readdress;
pub mod signature;
