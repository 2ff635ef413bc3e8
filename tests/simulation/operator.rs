//! What a person does meanwhile.

use std::sync::Arc;

use postrider::dispatch::{Command, Subject};
use postrider::spool::action::{Action, Done};
use postrider::spool::filter::Filter;
use postrider_providers::contract::{Address, MessageId, ProviderName};
use tokio::time::Instant;

use super::world::World;

/// Who that is.
const WHO: &str = "operator";

/// The routes, and one of the providers of each.
const ROUTES: [(&str, &str); 4] = [("hold", "sim.first"), ("spill", "sim.limited"), ("keyed", "sim.keyed"), ("all", "sim.first")];

/// Something that was done to one message.
pub struct Deed {
    pub at: Instant,
    pub message: MessageId,
    pub action: Action,
}

impl World {
    /// Does something to some messages.
    pub async fn act(&mut self) {
        for _ in 0..=self.rng.below(6) {
            let waiting = self.queue.list(&Filter::default(), None, usize::MAX).await.expect("a store that works");
            // Notifications are nobody's business here.
            let of_clients = self.acknowledged.iter().filter(|message| waiting.iter().any(|listed| listed.id == message.id));
            let of_clients: Vec<_> = of_clients.map(Arc::clone).collect();
            if of_clients.is_empty() {
                return;
            }
            let message = Arc::clone(self.rng.pick(&of_clients));
            let action = match self.rng.below(8) {
                0 | 1 => Action::Retry,
                2 => Action::Hold,
                3 => Action::Release,
                4 => Action::Remove,
                5 => Action::Bounce("somebody gave it up".to_owned()),
                6 => Action::Reroute(self.rng.pick(&ROUTES).0.into()),
                _ => {
                    let from = self.rng.pick(&message.envelope.recipients).address.clone();
                    let to: Address = format!("instead{}@d9.example", self.deeds.len()).parse().expect("an address");
                    Action::Readdress { from, to }
                }
            };
            self.act_on(message.id, action).await;
        }
    }

    async fn act_on(&mut self, message: MessageId, action: Action) {
        let at = Instant::now();
        if let Ok(Done::Done) = self.queue.act(message, action.clone(), WHO).await {
            if let Action::Readdress { to, .. } = &action {
                self.readdressed.entry(message).or_default().push(to.to_string());
            }
            self.deeds.push(Deed { at, message, action });
        }
    }

    /// Decides something about a provider, a route or a sender.
    pub async fn command(&mut self) {
        let provider: ProviderName = self.rng.pick(&self.providers).name.clone();
        let (route, pinned) = *self.rng.pick(&ROUTES);
        let subject = match self.rng.below(3) {
            0 => Subject::Provider(provider.clone()),
            1 => Subject::Route(route.into()),
            _ => Subject::Domain("all.example".into()),
        };
        let command = match self.rng.below(7) {
            0 => Command::Trip(provider),
            1 => Command::Reset(provider),
            2 => Command::Drain(provider),
            3 => Command::Pause(subject),
            4 => Command::Resume(subject),
            5 => Command::Pin { route: route.into(), provider: pinned.into() },
            _ => Command::Unpin(route.into()),
        };
        // What is not configured at the moment, or a full disk, refuses it.
        let _ = self.dispatcher.control(command, WHO).await;
    }

    /// Ends everything that was stopped.
    pub async fn end_stops(&mut self) {
        let providers: Vec<_> = self.providers.iter().map(|provider| provider.name.clone()).collect();
        let mut commands: Vec<Command> = vec![Command::Resume(Subject::Domain("all.example".into()))];
        for name in providers {
            commands.extend([Command::Reset(name.clone()), Command::Resume(Subject::Provider(name))]);
        }
        for (route, _) in ROUTES {
            commands.extend([Command::Resume(Subject::Route(route.into())), Command::Unpin(route.into())]);
        }
        for command in commands {
            self.dispatcher.control(command, WHO).await.expect("everything is configured, and the disk has room");
        }
    }

    /// Lets everything go that is held.
    pub async fn release_all(&mut self) {
        let waiting = self.queue.list(&Filter::default(), None, usize::MAX).await.expect("a store that works");
        for message in waiting {
            self.act_on(message.id, Action::Release).await;
        }
    }
}
