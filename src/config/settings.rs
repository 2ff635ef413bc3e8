//! The settings of each part of the gateway, validated: what `smtp`, `queue` and `dispatch` are given.

mod door;
mod operation;
mod routing;

pub use door::*;
pub use operation::*;
pub use routing::*;
