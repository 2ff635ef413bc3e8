//! Tasks without which the gateway only looks alive: when one ends, the gateway says so and ends as well.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::Task;
use crate::queue::Queue;
use crate::spool::Spool;

/// How long the spool has to say that a task ended because of it.
const BLAME: Duration = Duration::from_secs(1);

impl Task {
    /// A task that runs `work` until `stop` says that it may end. If it ends before that, the queue is told
    /// that it has failed.
    pub(super) fn vital<S: Spool, W>(queue: &Queue<S>, name: &'static str, work: impl FnOnce(CancellationToken) -> W) -> Self
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let mut task = Self::new();
        let (queue, stop, work) = (queue.clone(), task.stop.clone(), work(task.stop.clone()));
        task.tasks.spawn(async move {
            let ended = AssertUnwindSafe(work).catch_unwind().await;
            if !stop.is_cancelled() {
                let why = match &ended {
                    Err(_) => format!("{name} panicked"),
                    // Where the spool is gone, work ends in order.
                    Ok(()) => tokio::time::timeout(BLAME, queue.spool().failure()).await.unwrap_or_else(|_| format!("{name} has ended")),
                };
                queue.fail(why);
            }
            if let Err(panic) = ended {
                resume_unwind(panic);
            }
        });
        task
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::queue::Settings;
    use crate::spool::memory::MemorySpool;

    fn queue() -> Queue<MemorySpool> {
        Queue::new(MemorySpool::new(), Settings::default(), Clock::system())
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_or_ends_by_itself_is_a_failure_of_all_and_one_that_is_stopped_is_not() {
        let panicking = queue();
        let mut task = Task::vital(&panicking, "the dispatcher", |_| async { panic!("as asked") });
        assert_eq!(panicking.failed().await, "the dispatcher panicked");
        assert_eq!(panicking.stands_still().as_deref(), Some("the dispatcher panicked"));
        task.join().await;

        let ending = queue();
        let _task = Task::vital(&ending, "the dispatcher", |_| async {});
        assert_eq!(ending.failed().await, "the dispatcher has ended");

        let stopped = queue();
        let mut task = Task::vital(&stopped, "the dispatcher", |stop| async move { stop.cancelled().await });
        task.stop.cancel();
        task.join().await;
        assert_eq!(stopped.failure(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_feeder_is_a_failure_of_all() {
        let queue = queue();
        queue.spool().panic_when_read();
        let fed = queue.clone();
        let _task = Task::vital(&queue, "the feeder of the queue", |stop| async move { fed.run(stop).await });
        assert_eq!(queue.failed().await, "the feeder of the queue panicked");
    }
}
