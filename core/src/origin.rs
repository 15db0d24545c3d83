//! Who makes changes, and why.

use crate::error::shorten;
use crate::{Error, Result, Scope, limits};
use std::sync::Arc;

/// What the log tells of a change beside the change itself; made part of a handle by [`Scope::as_run`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Who: a name of the program's own, such as that of an agent. At most [`limits::ACTOR_BYTES`] bytes.
    pub actor: Option<String>,
    /// In the course of what: the name of a run, by which all its changes can be undone. At most [`limits::ACTOR_BYTES`] bytes.
    pub run: Option<String>,
    /// Why: a text for people. At most [`limits::REASON_BYTES`] bytes.
    pub reason: Option<String>,
}

impl Origin {
    /// Refuses parts that are empty or too long.
    pub(crate) fn check(&self) -> Result<()> {
        for (what, text, most) in [
            ("actor", &self.actor, limits::ACTOR_BYTES),
            ("run", &self.run, limits::ACTOR_BYTES),
            ("reason", &self.reason, limits::REASON_BYTES),
        ] {
            if let Some(text) = text
                && !(1..=most).contains(&text.len())
            {
                let len = text.len();
                return Err(Error::invalid(format!("{what} {} has {len} bytes; it takes 1 to {most}", shorten(text))));
            }
        }
        Ok(())
    }
}

impl Scope {
    /// The same scope, whose changes, and those of handles made from it, are told to be of this origin. What it leaves out stays
    /// as it is.
    ///
    /// ```
    /// # use llmspell_state_persistence::{Origin, State};
    /// # let state = State::in_memory()?;
    /// let run = state.as_run(Origin { actor: Some("planner".into()), run: Some("r1".into()), reason: None })?;
    /// run.set("plan", 1)?;
    /// assert_eq!(state.history("plan", None)?[0].origin.run.as_deref(), Some("r1"));
    /// # Ok::<(), llmspell_state_persistence::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` for a part that is empty or too long.
    pub fn as_run(&self, origin: Origin) -> Result<Scope> {
        self.store()?;
        origin.check()?;
        let outer = self.origin().map(|outer| (**outer).clone()).unwrap_or_default();
        let origin = Origin {
            actor: origin.actor.or(outer.actor),
            run: origin.run.or(outer.run),
            reason: origin.reason.or(outer.reason),
        };
        Ok(self.with_origin(Arc::new(origin)))
    }
}
