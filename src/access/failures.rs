//! Failed logins by address: each answer comes later than the one before, and then none is tried any
//! more for a time. Pure; the caller brings the clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::time::Instant;

/// The wait for the answer to the first failure; it doubles with each that follows.
pub(super) const FIRST_DELAY: Duration = Duration::from_secs(1);

/// The longest wait for an answer.
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// How many addresses are remembered. Past it, the one with the fewest failures is forgotten.
const MAX_ADDRESSES: usize = 10_000;

/// The addresses that logins have failed from.
#[derive(Debug)]
pub(super) struct Failures {
    limit: u32,
    block: Duration,
    by_network: HashMap<IpNet, Record>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    count: u32,
    last: Instant,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Consequence {
    /// The failures from there so far.
    pub(super) count: u32,
    /// How long the answer has to wait, from the moment of the question.
    pub(super) delay: Duration,
    /// Whether no login is tried from there any more.
    pub(super) blocks: bool,
}

impl Failures {
    /// After `limit` failures an address is blocked for `block`, counted from the last one.
    pub(super) fn new(limit: u32, block: Duration) -> Self {
        Self { limit, block, by_network: HashMap::new() }
    }

    /// How long no login is tried from this address; `None` if it is.
    pub(super) fn blocked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let record = self.by_network.get(&whole(address))?;
        let rest = (record.last + self.block).checked_duration_since(now).filter(|rest| !rest.is_zero())?;
        (record.count >= self.limit).then_some(rest)
    }

    /// Counts a failure. What is older than the time of a block is forgotten.
    pub(super) fn failed(&mut self, address: IpAddr, now: Instant) -> Consequence {
        let network = whole(address);
        if !self.by_network.contains_key(&network) && self.by_network.len() >= MAX_ADDRESSES {
            self.make_room(now);
        }
        let block = self.block;
        let record = self.by_network.entry(network).or_insert(Record { count: 0, last: now });
        if now >= record.last + block {
            record.count = 0;
        }
        *record = Record { count: record.count.saturating_add(1), last: now };
        let doubled = FIRST_DELAY.saturating_mul(1 << (record.count - 1).min(16));
        Consequence { count: record.count, delay: doubled.min(LONGEST_DELAY), blocks: record.count == self.limit }
    }

    /// Forgets the failures of an address from which a login has succeeded.
    pub(super) fn succeeded(&mut self, address: IpAddr) {
        self.by_network.remove(&whole(address));
    }

    fn make_room(&mut self, now: Instant) {
        let block = self.block;
        self.by_network.retain(|_, record| now < record.last + block);
        if self.by_network.len() >= MAX_ADDRESSES
            && let Some(network) = self.by_network.iter().min_by_key(|(_, record)| (record.count, record.last)).map(|(network, _)| *network)
        {
            self.by_network.remove(&network);
        }
    }
}

/// All that one host can easily connect from: its IPv4 address, or the /64 that it has to itself.
fn whole(address: IpAddr) -> IpNet {
    match address.to_canonical() {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::from(address)),
        IpAddr::V6(address) => Ipv6Net::new(address, 64).map_or(IpNet::V6(Ipv6Net::from(address)), |net| IpNet::V6(net.trunc())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_waits_longer_until_the_address_is_blocked_and_then_it_may_try_again() {
        let mut failures = Failures::new(6, 15 * MINUTE);
        let (client, other) = (address("192.0.2.1"), address("192.0.2.2"));
        let mut delays = Vec::new();
        for _ in 0..6 {
            assert_eq!(failures.blocked(client, Instant::now()), None);
            let consequence = failures.failed(client, Instant::now());
            delays.push((consequence.delay.as_secs(), consequence.blocks));
        }
        assert_eq!(delays, [(1, false), (2, false), (4, false), (8, false), (8, false), (8, true)]);
        tokio::time::advance(5 * MINUTE).await;
        assert_eq!(failures.blocked(client, Instant::now()), Some(10 * MINUTE));
        assert_eq!(failures.blocked(other, Instant::now()), None);
        tokio::time::advance(10 * MINUTE).await;
        assert_eq!(failures.blocked(client, Instant::now()), None);
        assert_eq!(failures.failed(client, Instant::now()).count, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_is_a_new_beginning_and_a_late_failure_does_not_block_twice() {
        let mut failures = Failures::new(2, MINUTE);
        let client = address("192.0.2.1");
        failures.failed(client, Instant::now());
        failures.succeeded(client);
        assert_eq!(failures.failed(client, Instant::now()).count, 1);
        assert!(failures.failed(client, Instant::now()).blocks);
        assert!(!failures.failed(client, Instant::now()).blocks, "one that was under way is not announced again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_cannot_escape_within_its_ipv6_network() {
        let mut failures = Failures::new(2, MINUTE);
        failures.failed(address("2001:db8:0:1::1"), Instant::now());
        failures.failed(address("2001:db8:0:1:ffff::2"), Instant::now());
        assert!(failures.blocked(address("2001:db8:0:1::3"), Instant::now()).is_some());
        assert!(failures.blocked(address("2001:db8:0:2::1"), Instant::now()).is_none());
        failures.failed(address("::ffff:192.0.2.1"), Instant::now());
        assert_eq!(failures.failed(address("192.0.2.1"), Instant::now()).count, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_the_worst_are_remembered() {
        let mut failures = Failures::new(3, MINUTE);
        let worst = address("192.0.2.1");
        for _ in 0..3 {
            failures.failed(worst, Instant::now());
        }
        for number in 0..u32::try_from(MAX_ADDRESSES).unwrap() + 50 {
            failures.failed(IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number)), Instant::now());
        }
        assert_eq!(failures.by_network.len(), MAX_ADDRESSES);
        assert!(failures.blocked(worst, Instant::now()).is_some());
        tokio::time::advance(MINUTE).await;
        failures.failed(address("198.51.100.1"), Instant::now());
        assert_eq!(failures.by_network.len(), 1);
    }
}
