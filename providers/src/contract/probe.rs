//! What a provider tells about itself and the account, without being sent mail.

/// What was found at a provider that answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probed {
    /// What is in order, each in a few words: `"sending is enabled"`.
    pub facts: Vec<String>,
    /// What works and will not for long, or only in part, each with what to do about it.
    pub warnings: Vec<String>,
    /// What the account allows, if the provider says so.
    pub allowance: Option<Allowance>,
}

/// What an account allows, and how much of it is used. Recipients count, as with all that tell.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Allowance {
    /// Recipients each second.
    pub per_second: Option<f64>,
    /// Recipients in any 24 hours.
    pub per_day: Option<u64>,
    /// How many of those of the last 24 hours are used.
    pub used_today: Option<u64>,
}

impl Probed {
    /// Something in order.
    #[must_use]
    pub fn fact(mut self, text: impl Into<String>) -> Self {
        self.facts.push(text.into());
        self
    }

    /// Something to look after.
    #[must_use]
    pub fn warning(mut self, text: impl Into<String>) -> Self {
        self.warnings.push(text.into());
        self
    }
}
