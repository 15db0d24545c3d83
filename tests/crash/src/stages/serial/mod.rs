//! Serializability: threads and processes run random transactions over many keys, and record what they were told; there
//! must be one order, that of their commits, in which each one alone would have been told the same.

mod work;

use crate::check::crew::{self, Round};
use crate::check::serial::{self, Outcome as Ending};
use crate::{Context, Failure, Outcome, Stage};
use llmspell_state_persistence::SyncMode;

pub use work::work;

/// The stage.
pub const SERIAL: Stage = Stage {
    name: "serial",
    what: "random transactions from threads and processes, some of them killed: one order explains every answer",
    long: 10_000_000,
    run,
};

fn rounds(context: &Context) -> Vec<Round> {
    let shared = Round::shared(3, context.size.of(600, 5_000));
    let mut rounds = vec![
        shared.clone(),
        Round { exclusive: true, programs: vec![], threads: 6, ..shared.clone() },
        Round { cache_size_mb: 0, sync_mode: SyncMode::Normal, kills: context.size.of(3, 20), ..shared.clone() },
    ];
    if context.size == crate::Size::Middle {
        rounds.push(Round { threads: 1, programs: vec!["rust", "python", "luajit"], ..shared.clone() });
        rounds.push(Round { threads: 1, programs: vec!["python", "luajit"], cache_size_mb: 0, kills: 10, ..shared });
    }
    rounds
}

fn run(context: &Context) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    crew::each(context, &rounds(context), |round, part| {
        let (log, runs) = round.run(context, part, "serial", |_| Ok(()), work)?;
        serial::check(&log, &runs)?;
        outcome.count("transactions", runs.len() as u64);
        outcome.count("commits", log.newest() as u64);
        outcome.count("conflicts", runs.iter().filter(|run| run.outcome == Ending::Failed).count() as u64);
        outcome.count("kills", round.kills.into());
        Ok(())
    })?;
    Ok(outcome)
}
