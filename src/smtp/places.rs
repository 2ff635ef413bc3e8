//! Places: how many sessions there are, in total, of one client and of one application.
//!
//! Each count is one look into a map, whatever the number of sessions. A [`Place`] is taken before
//! anything is read, moves to the client's count when its address is known (at once, or from a PROXY
//! header), and to the application's when that is known (by network, or later by AUTH).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use super::reply::{self, Reply};
use crate::config::Application;

/// The sessions of all listeners.
#[derive(Debug, Default)]
pub struct Sessions {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    clients: HashMap<IpAddr, usize>,
    applications: HashMap<Arc<str>, usize>,
}

/// One session's place in the counts; given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// `None` for a session that is not counted.
    sessions: Option<Arc<Sessions>>,
    client: Option<IpAddr>,
    application: Option<Arc<str>>,
}

impl Sessions {
    /// Takes a place, if one of `max` is free.
    pub(super) fn enter(self: &Arc<Self>, max: usize) -> Result<Place, Reply> {
        let mut counts = self.counts.lock();
        if counts.total >= max {
            return Err(reply::TOO_MANY_CONNECTIONS);
        }
        counts.total += 1;
        Ok(Place { sessions: Some(Arc::clone(self)), client: None, application: None })
    }

    /// How many places are taken.
    #[must_use]
    pub fn count(&self) -> usize {
        self.counts.lock().total
    }
}

impl Place {
    /// The place of a session that nobody counts.
    pub(super) fn uncounted() -> Self {
        Self::default()
    }

    /// Counts the session as one of this client's, of which there may be `max`.
    pub(super) fn is_of_client(&mut self, address: IpAddr, max: usize) -> Result<(), Reply> {
        let Some(sessions) = &self.sessions else { return Ok(()) };
        let client = client(address);
        if self.client != Some(client) {
            let mut counts = sessions.counts.lock();
            if !take(&mut counts.clients, &client, max) {
                return Err(reply::TOO_MANY_CONNECTIONS_FROM_CLIENT);
            }
            if let Some(before) = self.client.replace(client) {
                give_back(&mut counts.clients, &before);
            }
        }
        Ok(())
    }

    /// Counts the session as one of this application's. Refused, it stays where it was.
    pub(super) fn is_of_application(&mut self, application: Option<&Application>) -> Result<(), Reply> {
        let Some(sessions) = &self.sessions else { return Ok(()) };
        if self.application.as_ref() != application.map(|application| &application.name) {
            let mut counts = sessions.counts.lock();
            if let Some(application) = application
                && !take(&mut counts.applications, &application.name, application.max_connections.unwrap_or(usize::MAX))
            {
                return Err(reply::TOO_MANY_CONNECTIONS_OF_APPLICATION);
            }
            let now = application.map(|application| Arc::clone(&application.name));
            if let Some(before) = std::mem::replace(&mut self.application, now) {
                give_back(&mut counts.applications, &before);
            }
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(sessions) = &self.sessions else { return };
        let mut counts = sessions.counts.lock();
        counts.total -= 1;
        if let Some(client) = &self.client {
            give_back(&mut counts.clients, client);
        }
        if let Some(application) = &self.application {
            give_back(&mut counts.applications, application);
        }
    }
}

/// Who counts as one client: an IPv4 address, or the /64 that an IPv6 host has to itself and takes
/// its addresses from (RFC 4291 section 2.5.1). All link-local hosts share theirs.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

fn take<K: Clone + Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K, max: usize) -> bool {
    let count = counts.get(key).copied().unwrap_or(0);
    if count >= max {
        return false;
    }
    counts.insert(key.clone(), count + 1);
    true
}

/// Nothing is kept of whom there are no sessions of, so that strangers cannot fill the map.
fn give_back<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(name: &str, max_connections: Option<usize>) -> Application {
        Application { max_connections, ..Application::named(name.into()) }
    }

    fn enter(sessions: &Arc<Sessions>, client: &str, max: usize) -> Result<Place, Reply> {
        let mut place = sessions.enter(3)?;
        place.is_of_client(client.parse().unwrap(), max)?;
        Ok(place)
    }

    #[test]
    fn places_are_limited_in_total_and_come_back_when_dropped() {
        let sessions = Arc::new(Sessions::default());
        let places: Vec<Place> = (0..3).map(|_| sessions.enter(3).unwrap()).collect();
        assert_eq!(sessions.enter(3).unwrap_err(), reply::TOO_MANY_CONNECTIONS);
        drop(places);
        assert_eq!(sessions.count(), 0);
        sessions.enter(3).unwrap();
    }

    #[test]
    fn one_client_is_limited_and_another_is_not() {
        let sessions = Arc::new(Sessions::default());
        let first = enter(&sessions, "192.0.2.1", 1).unwrap();
        assert_eq!(enter(&sessions, "::ffff:192.0.2.1", 1).unwrap_err(), reply::TOO_MANY_CONNECTIONS_FROM_CLIENT);
        assert_eq!(sessions.count(), 1, "who was refused has no place");
        let _second = enter(&sessions, "192.0.2.2", 1).unwrap();
        drop(first);
        enter(&sessions, "192.0.2.1", 1).unwrap();
    }

    #[test]
    fn an_ipv6_client_is_its_64_bit_network() {
        let sessions = Arc::new(Sessions::default());
        let _one = enter(&sessions, "2001:db8:1:2::1", 1).unwrap();
        assert!(enter(&sessions, "2001:db8:1:2:ffff::2", 1).is_err());
        let _other = enter(&sessions, "2001:db8:1:3::1", 1).unwrap();
        let _link_local = enter(&sessions, "fe80::1", 1).unwrap();
        assert_ne!(client("fe80::1".parse().unwrap()), client("fe80::2".parse().unwrap()));
    }

    #[test]
    fn a_session_moves_to_the_application_that_it_logs_in_as() {
        let sessions = Arc::new(Sessions::default());
        let (erp, crm) = (application("erp", Some(1)), application("crm", None));
        let mut first = sessions.enter(3).unwrap();
        let mut second = sessions.enter(3).unwrap();
        first.is_of_application(Some(&erp)).unwrap();
        first.is_of_application(Some(&erp)).unwrap();
        second.is_of_application(Some(&crm)).unwrap();
        assert_eq!(second.is_of_application(Some(&erp)).unwrap_err(), reply::TOO_MANY_CONNECTIONS_OF_APPLICATION);
        assert_eq!(sessions.counts.lock().applications.len(), 2, "refused, it is still of the other");
        first.is_of_application(None).unwrap();
        second.is_of_application(Some(&erp)).unwrap();
        drop((first, second));
        assert!(sessions.counts.lock().applications.is_empty());
    }

    #[test]
    fn a_session_that_is_not_counted_is_not_refused() {
        let mut place = Place::uncounted();
        place.is_of_client("192.0.2.1".parse().unwrap(), 0).unwrap();
        place.is_of_application(Some(&application("erp", Some(0)))).unwrap();
    }
}
