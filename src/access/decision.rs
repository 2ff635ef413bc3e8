//! What a client may do with one sender and one recipient.

use postrider_providers::contract::{Address, ReversePath};

use super::{Access, Client, Standing};
use crate::config::Listener;

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// Where it connected.
    pub listener: &'a Listener,
    /// What is known about it.
    pub client: &'a Client,
    /// Who it was recognised as.
    pub standing: &'a Standing,
    /// The reverse-path of MAIL.
    pub from: &'a ReversePath,
    /// The recipient; `None` while only MAIL was said.
    pub to: Option<&'a Address>,
}

/// Why it is refused. Each is one rule, and has one reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It is neither an application nor on a trusted network.
    RelayDenied,
}

impl Access {
    /// Decides; the first rule that refuses is the one that is named.
    ///
    /// # Errors
    /// The rule that refuses.
    pub fn decide(&self, submission: &Submission<'_>) -> Result<(), Refusal> {
        match (submission.to, submission.standing.recognised) {
            (Some(_), None) => Err(Refusal::RelayDenied),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(trusted: &[&str]) -> Access {
        let trusted_networks = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let settings = crate::config::Access { trusted_networks, ..Default::default() };
        Access::new(settings, Vec::new())
    }

    #[test]
    fn only_trusted_networks_may_relay() {
        let listener = Listener::plain("127.0.0.1:25".parse().unwrap());
        let may_relay = |access: &Access, address: &str| {
            let client = Client::at(address.parse().unwrap());
            let standing = access.recognise(&listener, &client);
            let to = "a@x.example".parse().unwrap();
            let from = ReversePath::Null;
            access.decide(&Submission { listener: &listener, client: &client, standing: &standing, from: &from, to: Some(&to) }).is_ok()
        };
        let access_of_two = access(&["10.1.0.0/16", "::1/128"]);
        for (client, expected) in
            [("10.1.2.3", true), ("10.2.0.1", false), ("::1", true), ("::2", false), ("::ffff:10.1.2.3", true), ("::ffff:1.1.1.1", false)]
        {
            assert_eq!(may_relay(&access_of_two, client), expected, "{client}");
        }
        assert!(!may_relay(&access(&[]), "127.0.0.1"));
    }
}
