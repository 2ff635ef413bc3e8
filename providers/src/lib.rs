//! The provider contract of Postrider, and every provider that it can hand mail to.
//!
//! A provider is one file (or folder) here and one line in the registry below; it knows nothing of the
//! gateway, and never imports another provider.
//!
//! - [`contract`]: the nouns of mail, the verdicts, and the trait [`Provider`](contract::Provider). Start
//!   with [`contract::Failure`] and the table in `contract/outcome.rs`: `Err` means that nothing was
//!   handed over, `Ok` has an outcome for each recipient, and *in doubt* is one of them.
//! - [`registry`]: how a `[provider.<kind>.<name>]` table becomes a provider. [`Providers`] is what the
//!   whole `[provider]` section deserialises to.
//! - [`settings`]: durations, sizes, rates and secrets as people write them.
//! - [`smtp`]: SMTP as a client, for every provider that is reached by it.
//! - [`http`]: the one TLS configuration and HTTP client, the watch over how far a request got, and the kind
//!   of provider that is described in the config.
//! - [`http`]: the one TLS configuration and HTTP client, the watch over how far a request got, and all
//!   else that HTTP APIs have in common.
//! - The kinds in the registry below: the providers.
//! - `conformance` (feature `conformance`): the behaviour suite that every provider must pass, and far
//!   sides that misbehave on command.
//!
//! How to write one, step by step: `docs/adding-a-provider.md`. Two outside this tree, running:
//! `examples/http_provider.rs` and `examples/custom_provider.rs`.

pub mod azure;
pub mod brevo;
pub mod capture;
pub mod cloudflare;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod contract;
pub mod exchange;
pub mod generic;
pub mod gmail;
pub mod graph;
pub mod http;
pub mod mailersend;
pub mod mailgun;
pub mod mailjet;
pub mod mime;
pub mod oauth;
pub mod office365;
pub mod office365_connector;
pub mod postmark;
pub mod registry;
pub mod resend;
pub mod scaleway;
pub mod sendgrid;
#[cfg(feature = "ses")]
pub mod ses;
pub mod settings;
pub mod smarthost;
pub mod smtp;
pub mod sparkpost;
pub mod workspace;

// Every provider this build can speak to.
registry::registry! {
    azure,
    brevo,
    capture,
    cloudflare,
    gmail,
    graph,
    generic as http,
    mailersend,
    mailgun,
    mailjet,
    office365,
    office365_connector,
    postmark,
    resend,
    scaleway,
    sendgrid,
    #[cfg(feature = "ses")]
    ses,
    smarthost,
    sparkpost,
    workspace,
}
