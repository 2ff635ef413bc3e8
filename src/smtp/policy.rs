//! Who may relay. Pure: a decision is a function of what is known about the client.

use std::net::IpAddr;

use ipnet::IpNet;

/// The access rules of the front end.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Networks whose hosts may relay without authentication.
    pub trusted_networks: Vec<IpNet>,
}

impl Policy {
    /// Whether a client at this address may relay. An IPv4 address that arrived over an IPv6 socket
    /// (`::ffff:192.0.2.1`) counts as the IPv4 address that it is.
    #[must_use]
    pub fn may_relay(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.trusted_networks.iter().any(|network| network.contains(&client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_networks_may_relay() {
        let policy = Policy { trusted_networks: vec!["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()] };
        for (client, expected) in
            [("10.1.2.3", true), ("10.2.0.1", false), ("::1", true), ("::2", false), ("::ffff:10.1.2.3", true), ("::ffff:1.1.1.1", false)]
        {
            assert_eq!(policy.may_relay(client.parse().unwrap()), expected, "{client}");
        }
        assert!(!Policy::default().may_relay("127.0.0.1".parse().unwrap()));
    }
}
