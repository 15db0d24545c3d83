//! Awaiting calls and watches. Of tokio only channels are used, so that it works on any runtime, and on none.

use crate::calls::Call;
use crate::watch::Waiter;
use crate::{Change, Error, ErrorKind, Result, Watch};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// The answer to a [`Call`] that was made by awaiting it, or by turning it into a future.
///
/// The call is made at that moment, not when it is polled first: futures that are gathered before they are awaited share commits.
/// Dropping the answer gives up waiting, and takes nothing back: a write is made all the same, wholly.
///
/// ```
/// # use llmspell_state_persistence::State;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), llmspell_state_persistence::Error> {
/// let state = State::in_memory()?;
/// let version = state.calls().set("a", 1)?.await?;
/// let entry = state.calls().entry("a")?.await?;
/// assert_eq!(entry.map(|entry| entry.version()), Some(version));
/// let count = state.call(|scope| scope.count("*")).await?;
/// assert_eq!(count, 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "the call was made; whether it succeeded is told to whoever awaits this"]
pub struct Answer<T>(oneshot::Receiver<Result<T>>);

impl<T: Send + 'static> IntoFuture for Call<T> {
    type Output = Result<T>;
    type IntoFuture = Answer<T>;

    fn into_future(self) -> Answer<T> {
        // Also for what is known at once: the channel lets a task that asks on and on make way for others.
        let (tell, told) = oneshot::channel();
        self.then(move |answer| {
            // Whoever gave up waiting is told nothing.
            let _ = tell.send(answer);
        });
        Answer(told)
    }
}

impl<T> Future for Answer<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        Pin::new(&mut self.0).poll(context).map(|told| told.unwrap_or_else(|_| Err(unanswered())))
    }
}

/// Nobody is left who could tell: a fault of this crate.
fn unanswered() -> Error {
    Error::new(
        ErrorKind::CommitUnknown,
        "a bug in llmspell_state, please report it: a call was not answered; read the keys again to know what is stored",
    )
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Watch {
    /// The next change, awaiting it as long as it takes; `None` once the watch is closed.
    ///
    /// Dropping the future loses no change, so it may stand in a `select!` or under a timeout.
    ///
    /// ```
    /// # use llmspell_state_persistence::State;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), llmspell_state_persistence::Error> {
    /// let state = State::in_memory()?;
    /// let watch = state.watch("user:*")?;
    /// state.calls().set("user:1", "Alice")?.await?;
    /// assert_eq!(watch.recv().await?.map(|change| change.key), Some("user:1".into()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub async fn recv(&self) -> Result<Option<Change>> {
        loop {
            self.check()?;
            if let Some(change) = self.pop() {
                return Ok(Some(change));
            }
            if self.is_closed() {
                return Ok(None);
            }
            let (tell, told) = oneshot::channel();
            let waiter = self.wait(move |outcome| {
                let _ = tell.send(outcome);
            });
            let waiting = Waiting { watch: self, waiter };
            let told = told.await;
            drop(waiting);
            told.unwrap_or_else(|_| Err(unanswered()))?;
        }
    }
}

/// A wait for a watch, taken back when its future is dropped: otherwise they would gather until the next change.
struct Waiting<'w> {
    watch: &'w Watch,
    waiter: Waiter,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.watch.forget(self.waiter);
    }
}
