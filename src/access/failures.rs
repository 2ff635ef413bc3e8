//! Failed logins by address: each answer comes later than the one before, and then none is tried any
//! more for a time. Pure; the caller brings the clock.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
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

/// How many names are told apart of one address. Failures with further ones are only counted.
const MAX_NAMES: usize = 16;

/// The addresses that logins have failed from.
#[derive(Debug)]
pub(super) struct Failures {
    limit: u32,
    block: Duration,
    by_network: HashMap<IpNet, Record>,
    /// Names are kept as digests with a random key: they may be long, and are often passwords.
    digests: RandomState,
}

#[derive(Debug, Clone)]
struct Record {
    count: u32,
    last: Instant,
    /// How many of them were with which name.
    by_name: Vec<(u64, u32)>,
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
        Self { limit, block, by_network: HashMap::new(), digests: RandomState::new() }
    }

    /// How long no login is tried from this address; `None` if it is.
    pub(super) fn blocked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let record = self.by_network.get(&whole(address))?;
        let rest = (record.last + self.block).checked_duration_since(now).filter(|rest| !rest.is_zero())?;
        (record.count >= self.limit).then_some(rest)
    }

    /// Counts a failure. What is older than the time of a block is forgotten.
    pub(super) fn failed(&mut self, address: IpAddr, name: &str, now: Instant) -> Consequence {
        let (network, name) = (whole(address), self.digests.hash_one(name));
        if !self.by_network.contains_key(&network) && self.by_network.len() >= MAX_ADDRESSES {
            self.make_room(now);
        }
        let block = self.block;
        let record = self.by_network.entry(network).or_insert(Record { count: 0, last: now, by_name: Vec::new() });
        if now >= record.last + block {
            record.count = 0;
            record.by_name.clear();
        }
        record.count = record.count.saturating_add(1);
        record.last = now;
        if let Some((_, count)) = record.by_name.iter_mut().find(|(known, _)| *known == name) {
            *count = count.saturating_add(1);
        } else if record.by_name.len() < MAX_NAMES {
            record.by_name.push((name, 1));
        }
        let doubled = FIRST_DELAY.saturating_mul(1 << (record.count - 1).min(16));
        Consequence { count: record.count, delay: doubled.min(LONGEST_DELAY), blocks: record.count == self.limit }
    }

    /// A login with this name has succeeded: forgets its failures from that address, and no others.
    /// Whoever has one credential must not buy guesses at those of others with it.
    pub(super) fn succeeded(&mut self, address: IpAddr, name: &str) {
        let (network, name) = (whole(address), self.digests.hash_one(name));
        let Some(record) = self.by_network.get_mut(&network) else { return };
        if let Some(at) = record.by_name.iter().position(|(known, _)| *known == name) {
            record.count = record.count.saturating_sub(record.by_name.swap_remove(at).1);
        }
        if record.count == 0 {
            self.by_network.remove(&network);
        }
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
            let consequence = failures.failed(client, "erp", Instant::now());
            delays.push((consequence.delay.as_secs(), consequence.blocks));
        }
        assert_eq!(delays, [(1, false), (2, false), (4, false), (8, false), (8, false), (8, true)]);
        tokio::time::advance(5 * MINUTE).await;
        assert_eq!(failures.blocked(client, Instant::now()), Some(10 * MINUTE));
        assert_eq!(failures.blocked(other, Instant::now()), None);
        tokio::time::advance(10 * MINUTE).await;
        assert_eq!(failures.blocked(client, Instant::now()), None);
        assert_eq!(failures.failed(client, "erp", Instant::now()).count, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_is_a_new_beginning_and_a_late_failure_does_not_block_twice() {
        let mut failures = Failures::new(2, MINUTE);
        let client = address("192.0.2.1");
        failures.failed(client, "erp", Instant::now());
        failures.succeeded(client, "erp");
        assert_eq!(failures.failed(client, "erp", Instant::now()).count, 1);
        assert!(failures.failed(client, "erp", Instant::now()).blocks);
        assert!(!failures.failed(client, "erp", Instant::now()).blocks, "one that was under way is not announced again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_one_credential_does_not_buy_guesses_at_others_with_it() {
        let mut failures = Failures::new(3, MINUTE);
        let client = address("192.0.2.1");
        for count in 1..=3 {
            assert_eq!(failures.failed(client, "victim", Instant::now()).count, count);
            failures.succeeded(client, "own");
        }
        assert!(failures.blocked(client, Instant::now()).is_some());
        // However many names are guessed, each guess counts.
        let other = address("192.0.2.2");
        for number in 0..2 * MAX_NAMES {
            failures.failed(other, &number.to_string(), Instant::now());
            failures.succeeded(other, "own");
        }
        assert_eq!(failures.failed(other, "0", Instant::now()).count as usize, 2 * MAX_NAMES + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_cannot_escape_within_its_ipv6_network() {
        let mut failures = Failures::new(2, MINUTE);
        failures.failed(address("2001:db8:0:1::1"), "erp", Instant::now());
        failures.failed(address("2001:db8:0:1:ffff::2"), "erp", Instant::now());
        assert!(failures.blocked(address("2001:db8:0:1::3"), Instant::now()).is_some());
        assert!(failures.blocked(address("2001:db8:0:2::1"), Instant::now()).is_none());
        failures.failed(address("::ffff:192.0.2.1"), "erp", Instant::now());
        assert_eq!(failures.failed(address("192.0.2.1"), "erp", Instant::now()).count, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_the_worst_are_remembered() {
        let mut failures = Failures::new(3, MINUTE);
        let worst = address("192.0.2.1");
        for _ in 0..3 {
            failures.failed(worst, "erp", Instant::now());
        }
        for number in 0..u32::try_from(MAX_ADDRESSES).unwrap() + 50 {
            failures.failed(IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number)), "erp", Instant::now());
        }
        assert_eq!(failures.by_network.len(), MAX_ADDRESSES);
        assert!(failures.blocked(worst, Instant::now()).is_some());
        tokio::time::advance(MINUTE).await;
        failures.failed(address("198.51.100.1"), "erp", Instant::now());
        assert_eq!(failures.by_network.len(), 1);
    }
}
