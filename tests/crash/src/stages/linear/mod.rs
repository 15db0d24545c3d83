//! Linearizability: many threads and processes call single keys of one store and record what they were told; every call
//! must have had a moment between its start and its end.

mod work;

use crate::check::crew::{self, Round};
use crate::check::single;
use crate::{Context, Failure, Outcome, Stage};
use llmspell_state_persistence::SyncMode;

pub use work::work;

/// The stage.
pub const LINEAR: Stage = Stage {
    name: "linear",
    what: "calls on single keys from threads and processes, some of them killed: every call has its moment",
    long: 1_000_000_000,
    run,
};

/// The rounds of a run. `calls` is what each worker of most of them makes.
fn rounds(context: &Context) -> Vec<Round> {
    let shared = Round::shared(4, context.size.of(4_500, 40_000));
    let alone = Round { exclusive: true, programs: vec![], threads: 6, ..shared.clone() };
    let mut rounds = vec![
        shared.clone(),
        Round { cache_size_mb: 0, threads: 2, sync_mode: SyncMode::Normal, ..shared.clone() },
        Round { cache_size_mb: 1, kills: context.size.of(4, 25), ..shared.clone() },
        Round { cache_size_mb: 1, ..alone.clone() },
        Round { cache_size_mb: 0, sync_mode: SyncMode::Normal, ..alone.clone() },
        // Four such values are more than the cache holds, and while one is read, others write it.
        Round { cache_size_mb: 1, padding: 300_000, calls: context.size.of(300, 2_000), ..alone },
    ];
    if context.size == crate::Size::Middle {
        let scripts = vec!["rust", "python", "luajit"];
        rounds.push(Round { threads: 2, programs: scripts.clone(), ..shared.clone() });
        rounds.push(Round { threads: 1, programs: scripts, kills: 15, cache_size_mb: 0, ..shared });
    }
    rounds
}

fn run(context: &Context) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    crew::each(context, &rounds(context), |round, part| {
        let (log, calls) = round.run(context, part, "linear", work::prepare, work)?;
        single::check(&log, work::NAMES, &calls)?;
        outcome.count("calls", calls.len() as u64);
        outcome.count("commits", log.newest() as u64);
        outcome.count("kills", round.kills.into());
        Ok(())
    })?;
    Ok(outcome)
}
