//! The natives of `llmspell_state.aio`: a method converts its arguments in the loop's thread, posts the call and answers a
//! future of the running loop.

mod completions;
mod give;
mod listing;
mod merge;
mod notes;
mod queue;
mod retry;
mod scope;
mod state;
mod transaction;
mod turn;
mod verbs;
mod view;
mod wake;
mod watch;

pub(crate) use completions::Completions;
pub(crate) use listing::{AsyncDifferences, AsyncItems, AsyncKeys, AsyncValues};
pub(crate) use merge::AsyncMerge;
pub(crate) use retry::Retry;
pub(crate) use scope::AsyncScope;
pub(crate) use state::AsyncState;
pub(crate) use transaction::AsyncTransaction;
pub(crate) use view::AsyncView;
pub(crate) use watch::AsyncWatch;
