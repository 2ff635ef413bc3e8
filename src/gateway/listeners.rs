//! The listeners of a running gateway: what opens, what closes, and what is different behind the same
//! address.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Parts, StartError};
use crate::config::Listener;
use crate::smtp::{self, Door, Serving};
use crate::spool::Spool;
use crate::tls::CertificateStore;

/// The listeners that are open.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<Vec<Open>>);

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Open {
    /// As configured: what `bind` says there makes it the same listener or another one.
    bind: SocketAddr,
    address: SocketAddr,
    door: Arc<ArcSwap<Door>>,
    closed: CancellationToken,
    /// Nobody listens there any more.
    gone: CancellationToken,
}

/// What is to be open, bound and with its certificates read, so that nothing can go wrong any more.
pub(super) struct Opening(Vec<Next>);

enum Next {
    /// Opens.
    New { bind: SocketAddr, address: SocketAddr, socket: TcpListener, door: Arc<Door> },
    /// Stays open, and may look different.
    Kept { open: Open, door: Arc<Door> },
}

impl Opening {
    /// Binds what is not open yet, and reads certificates.
    ///
    /// # Errors
    /// When one cannot be bound or cannot encrypt. Nothing is different then.
    pub(super) fn prepare(open: &[Open], listeners: &[Listener], certificates: &CertificateStore) -> Result<Self, StartError> {
        let mut unclaimed = open.to_vec();
        let mut opening = Vec::new();
        for listener in listeners {
            let (bind, position) = (listener.bind, unclaimed.iter().position(|open| open.bind == listener.bind));
            let kept = position.map(|position| unclaimed.remove(position));
            let before = kept.as_ref().map(|open| open.door.load_full());
            let tls = match &before {
                // With it, its clients' sessions are resumed.
                Some(door) if door.listener.certificates == listener.certificates => door.tls.clone(),
                _ if listener.certificates.is_empty() => None,
                _ => Some(certificates.listener(&listener.certificates)?),
            };
            let door = match before {
                Some(door) if door.listener == *listener => door,
                _ => Arc::new(Door { listener: listener.clone(), tls }),
            };
            opening.push(match kept {
                Some(open) => Next::Kept { open, door },
                None => {
                    let failed = |source| StartError::Bind { address: bind, source };
                    let socket = smtp::bind(bind).map_err(failed)?;
                    let address = socket.local_addr().map_err(failed)?;
                    Next::New { bind, address, socket, door }
                }
            });
        }
        Ok(Self(opening))
    }

    /// Where they will listen.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let address = |next: &Next| match next {
            Next::New { address, .. } => *address,
            Next::Kept { open, .. } => open.address,
        };
        self.0.iter().map(address).collect()
    }
}

impl Listeners {
    /// Those that are open.
    pub(super) fn open(&self) -> Vec<Open> {
        self.0.lock().clone()
    }

    /// Where they listen, in the order of the config.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.lock().iter().map(|open| open.address).collect()
    }
}

impl<S: Spool> Parts<S> {
    /// Opens what is new, changes what stays, and closes the rest, whose sessions go on until their end. The
    /// addresses of those are free when the answer resolves.
    pub(super) fn take_listeners(&self, opening: Opening) -> impl Future<Output = ()> + use<S> {
        let mut doors = self.doors.lock();
        // Those that were closed, and have no more sessions.
        while doors.tasks.try_join_next().is_some() {}
        let mut next = Vec::new();
        for listener in opening.0 {
            next.push(match listener {
                Next::Kept { open, door } => {
                    open.door.store(door);
                    open
                }
                Next::New { bind, address, socket, door } => {
                    let open = Open {
                        bind,
                        address,
                        door: Arc::new(ArcSwap::new(door)),
                        closed: CancellationToken::new(),
                        gone: CancellationToken::new(),
                    };
                    let (door, front_end, sessions) = (Arc::clone(&open.door), Arc::clone(&self.front_end), Arc::clone(&self.sessions));
                    let serving = Serving { door, front_end, sessions, gone: open.gone.clone() };
                    let stop = doors.stop.clone();
                    doors.tasks.spawn(smtp::serve(socket, serving, open.closed.clone(), stop));
                    open
                }
            });
        }
        let before = std::mem::replace(&mut *self.listeners.0.lock(), next.clone());
        let closed = before.into_iter().filter(|open| !next.iter().any(|kept| Arc::ptr_eq(&kept.door, &open.door)));
        let gone: Vec<CancellationToken> = closed
            .map(|open| {
                open.closed.cancel();
                open.gone
            })
            .collect();
        async move {
            for gone in gone {
                gone.cancelled().await;
            }
        }
    }
}
