//! The parts of the harness that are programs of their own: those in each host language, and the models of single parts.

use crate::stage::{Context, Failure, Outcome, Stage};
use std::path::Path;
use std::process::Command;

/// Python programs.
pub(super) const PYTHON: Stage = Stage {
    name: "python",
    what: "Python: exit with writes in flight, fork in every state, signals in every call, threads",
    long: 10_000,
    run: |context| program(context, "python", "tests/crash/hosts/python_host.py"),
};

/// Lua programs, in every interpreter.
pub(super) const LUA: Stage = Stage {
    name: "lua",
    what: "Lua: garbage collection and errors in every callback, os.exit, hostile scripts",
    long: 10_000,
    run: |context| {
        let mut outcome = Outcome::default();
        for interpreter in ["lua5.4", "lua5.3", "lua5.1", "luajit"] {
            outcome.add(program(context, interpreter, "tests/crash/hosts/lua_host.lua")?);
        }
        Ok(outcome)
    },
};

/// Schedules and inputs of single parts of the core.
pub(super) const MODELS: Stage = Stage {
    name: "models",
    what: "every schedule of the commit queue, the cache and closing at preemption bound 3; fuzzing of patterns, values, updates, \
           rows and settings",
    long: 1_000_000,
    run: |context| program(context, "bash", "tests/crash/hosts/models.sh"),
};

/// Runs a program that ends with status 0 and a last line of counts, as JSON, when everything held.
fn program(context: &Context, interpreter: &str, path: &str) -> Result<Outcome, Failure> {
    let dir = context.dir.join(interpreter);
    std::fs::create_dir_all(&dir)?;
    // The paths under which the languages find what was built come from the project's own script.
    let command = format!("eval \"$(scripts/env.sh)\" && exec {interpreter} {path}");
    let output = Command::new("bash")
        .args(["-c", &command])
        .current_dir(&context.root)
        .env("CRASH_SIZE", context.size.to_string())
        .env("CRASH_SEED", context.seed.to_string())
        .env("CRASH_DIR", dir)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let failed = || {
        let name = Path::new(path).display();
        Failure::new(format!("{name} {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
    };
    if !output.status.success() {
        return Err(failed());
    }
    let counts: serde_json::Map<String, serde_json::Value> =
        text.lines().last().and_then(|line| serde_json::from_str(line).ok()).ok_or_else(failed)?;
    let mut outcome = Outcome::default();
    for (what, count) in counts {
        match count {
            serde_json::Value::String(why) => outcome.skipped.push(format!("{interpreter}, {what}: {why}")),
            count => outcome.count(&what, count.as_u64().ok_or_else(failed)?),
        }
    }
    Ok(outcome)
}
