//! Access tokens (OAuth 2): fetched once for all who wait, kept while they last, renewed early.
//!
//! Where they come from is made by [`entra`] and [`google`]; what a provider sees is [`Tokens`], and
//! [`Tokens::call`] around a call to an API.
//!
//! - A token that has expired is never handed out.
//! - However many ask, one request is under way. It is nobody's own: a caller that gives up takes
//!   nothing from the others.
//! - A renewal that fails costs nothing while the old token lasts, even one that was refused: that may have
//!   been for one mailbox of many.
//! - Whatever is refused, nobody asks the token service about it over and over again.

pub mod entra;
pub mod google;
mod grant;
mod jwt;
mod kept;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::contract::{Diagnostic, Failure};
use crate::http::api::Part;
use grant::{Grant, Granted};

/// A token that is younger than this is refused for what it is, not for its age: another one would fare
/// no better.
const JUST_NOW: Duration = Duration::from_secs(60);

/// How long after a renewal that failed the next one is tried, while the old token lasts.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// For how long nobody asks again for a token that was refused: only a person can change that.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<str>);

/// Where tokens of one kind come from. Clones share them.
#[derive(Clone)]
pub struct Tokens(Arc<Shared>);

struct Shared {
    grant: Grant,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    held: Option<Held>,
    /// The request that is under way, for all who wait for it.
    flight: Option<Flight>,
    /// Why the token service gives none, and when it said so.
    refusal: Option<(Instant, Failure)>,
}

type Flight = watch::Receiver<Option<Result<Token, Failure>>>;

struct Held {
    token: Token,
    /// When it was the newest that could be had.
    fetched: Instant,
    /// A service did not accept it, so another one is wanted.
    is_refused: bool,
    renew_at: Instant,
    usable_until: Instant,
}

impl Token {
    /// The token's text, for `Authorization: Bearer` and XOAUTH2.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokens").field(&self.0.grant).finish()
    }
}

impl Cache {
    /// What those get who wait for a request that has brought no token.
    fn landed_without(&mut self, failure: Failure) -> Result<Token, Failure> {
        let now = Instant::now();
        let is_final = matches!(failure, Failure::Unauthorized(_) | Failure::SenderRefused(_));
        self.refusal = is_final.then(|| (now, failure.clone()));
        let Some(held) = self.held.as_mut().filter(|held| now < held.usable_until) else { return Err(failure) };
        tracing::warn!(why = %failure.diagnostic(), "an access token cannot be renewed; the old one is used while it lasts");
        held.renew_at = now + RENEW_AGAIN;
        if held.is_refused && is_final {
            return Err(failure);
        }
        if std::mem::take(&mut held.is_refused) {
            held.fetched = now;
        }
        Ok(held.token.clone())
    }
}

impl Held {
    fn new(granted: Granted, asked: Instant) -> Self {
        let lifetime = granted.lifetime;
        // It must outlive the call that it is handed out for, or the call is refused.
        let margin = (lifetime / 20).min(Duration::from_secs(30));
        Self {
            token: granted.token,
            fetched: asked,
            is_refused: false,
            renew_at: asked + lifetime / 10 * 9,
            usable_until: asked + (lifetime - margin),
        }
    }
}

impl Tokens {
    fn new(grant: Grant) -> Self {
        Self(Arc::new(Shared { grant, cache: Mutex::default() }))
    }

    /// A token that is valid now.
    ///
    /// # Errors
    /// `Unauthorized` when the credential is refused, with what to do; `Unavailable` or `Throttled` when
    /// none can be had now.
    pub async fn get(&self) -> Result<Token, Failure> {
        let mut flight = {
            let mut cache = self.0.cache.lock();
            let now = Instant::now();
            let held = cache.held.as_ref().filter(|held| now < held.usable_until && !held.is_refused);
            if let Some((token, renew_at)) = held.map(|held| (held.token.clone(), held.renew_at)) {
                if now >= renew_at {
                    // In the background: nobody has to wait for it.
                    self.flight(&mut cache);
                }
                return Ok(token);
            }
            if let Some((_, failure)) = cache.refusal.as_ref().filter(|(since, _)| since.elapsed() < REFUSED_FOR) {
                return Err(failure.clone());
            }
            self.flight(&mut cache)
        };
        let landed = flight.wait_for(Option::is_some).await.ok().and_then(|landed| landed.clone());
        landed.unwrap_or_else(|| Err(Failure::Unavailable(Diagnostic::during("token", "the request for a token was given up"))))
    }

    /// Has `refused`, which a service did not accept, replaced by another one if one is to be had. Says whether another one is worth a try: once,
    /// and not when it was renewed just now.
    pub fn refused(&self, refused: &Token) -> bool {
        let mut cache = self.0.cache.lock();
        match &mut cache.held {
            Some(held) if held.token == *refused => {
                held.is_refused |= held.fetched.elapsed() >= JUST_NOW;
                held.is_refused
            }
            // Somebody else was refused with it before, so another one is here or on its way.
            _ => true,
        }
    }

    /// Makes a call to an API with a token, and once more with another one if the API refuses the first
    /// with 401, which it does before it looks at the request.
    pub async fn call<C: Future<Output = Part>>(&self, deadline: Instant, call: impl Fn(Token) -> C) -> Part {
        let mut again = true;
        loop {
            let token = match tokio::time::timeout_at(deadline, self.get()).await {
                Ok(Ok(token)) => token,
                Ok(Err(failure)) => return Part::Failed(failure),
                Err(_) => {
                    return Part::Failed(Failure::Unavailable(Diagnostic::during("token", "no token within the time for the attempt")));
                }
            };
            let part = call(token.clone()).await;
            let Part::Failed(Failure::Unauthorized(diagnostic)) = &part else { return part };
            // A right that was granted since is in the next token only, so this one is replaced either way.
            let renewed = self.refused(&token);
            if !(again && renewed && diagnostic.code == Some(401)) {
                return part;
            }
            again = false;
        }
    }

    /// The request that is under way, or a new one.
    fn flight(&self, cache: &mut Cache) -> Flight {
        // One whose task is gone will not land any more.
        if let Some(flight) = cache.flight.as_ref().filter(|flight| flight.has_changed().is_ok()) {
            return flight.clone();
        }
        let (land, flight) = watch::channel(None);
        cache.flight = Some(flight.clone());
        let shared = self.0.clone();
        tokio::spawn(async move {
            let asked = Instant::now();
            let landed = shared.grant.request().await;
            let mut cache = shared.cache.lock();
            cache.flight = None;
            let landed = match landed {
                Ok(granted) => Ok(cache.held.insert(Held::new(granted, asked)).token.clone()),
                Err(failure) => cache.landed_without(failure),
            };
            land.send_replace(Some(landed));
        });
        flight
    }
}
