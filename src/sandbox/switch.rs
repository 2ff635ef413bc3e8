//! A mode that is set from outside and takes effect inside a task: setting it returns when it has.

use tokio::sync::watch;

/// What the task should do now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order<M> {
    pub(super) mode: M,
    generation: u64,
}

/// The outer end.
#[derive(Debug)]
pub(super) struct Switch<M> {
    orders: watch::Sender<Order<M>>,
    applied: watch::Receiver<u64>,
}

/// The task's end.
#[derive(Debug)]
pub(super) struct Switched<M> {
    orders: watch::Receiver<Order<M>>,
    applied: watch::Sender<u64>,
}

impl<M: Copy> Switch<M> {
    /// Both ends of a switch that begins in `mode`.
    pub(super) fn new(mode: M) -> (Self, Switched<M>) {
        let (orders, ordered) = watch::channel(Order { mode, generation: 0 });
        let (applied, is_applied) = watch::channel(0);
        (Self { orders, applied: is_applied }, Switched { orders: ordered, applied })
    }

    /// Sets the mode, and waits until it is in effect or overruled by a later one.
    pub(super) async fn set(&self, mode: M) {
        let mut mine = 0;
        self.orders.send_modify(|order| {
            order.mode = mode;
            order.generation += 1;
            mine = order.generation;
        });
        // An error means that the task has ended; then there is nothing to wait for.
        let _ = self.applied.clone().wait_for(|&applied| applied >= mine).await;
    }

    pub(super) fn mode(&self) -> M {
        self.orders.borrow().mode
    }
}

impl<M: Copy> Switched<M> {
    /// The present order; [`Self::changed`] then waits for the next one.
    pub(super) fn order(&mut self) -> Order<M> {
        *self.orders.borrow_and_update()
    }

    /// Says that `order` is in effect.
    pub(super) fn applied(&self, order: Order<M>) {
        self.applied.send_replace(order.generation);
    }

    /// Waits for another order; `false` when there will be none.
    pub(super) async fn changed(&mut self) -> bool {
        self.orders.changed().await.is_ok()
    }

    /// A view of the mode for somebody else.
    pub(super) fn watch(&self) -> watch::Receiver<Order<M>> {
        self.orders.clone()
    }
}
