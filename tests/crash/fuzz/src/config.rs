//! Settings by name, as a script may give them.

use crate::Target;
use crate::value::read;
use llmspell_state_persistence::inside::check;
use llmspell_state_persistence::{ErrorKind, StateConfig};
use serde_json::Value;

/// A JSON object.
pub const TARGET: Target = Target {
    name: "config",
    run,
    words: &[
        "{",
        "}",
        ",",
        ":",
        "\"persistence_path\"",
        "\"enable_wal\"",
        "\"sync_mode\"",
        "\"FULL\"",
        "\"normal\"",
        "\"Off\"",
        "\"cache_size_mb\"",
        "\"enable_compression\"",
        "\"exclusive\"",
        "\"create\"",
        "\"create_dirs\"",
        "\"max_value_bytes\"",
        "\"busy_timeout_ms\"",
        "true",
        "false",
        "null",
        "64.0",
        "1e300",
        "18446744073709551615",
        "-1",
        "[]",
    ],
};

/// The longest that a message about a setting may be, whatever it is about.
const LONGEST_MESSAGE: usize = 800;

fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(Value::Object(options)) = read(&text) else { return };
    let known = serde_json::to_value(StateConfig::default()).expect("settings have a JSON form");
    let names = known.as_object().expect("settings have names");
    match StateConfig::from_options(options.clone()) {
        Ok(config) => {
            assert!(options.keys().all(|name| names.contains_key(name)), "an unknown setting was taken: {text}");
            let Ok(Value::Object(all)) = serde_json::to_value(&config) else { panic!("settings have a JSON form") };
            for (name, default) in names.iter().filter(|(name, _)| !options.contains_key(*name)) {
                assert_eq!(all.get(name), Some(default), "nobody has set {name}");
            }
            assert_eq!(StateConfig::from_options(all).expect("settings can be given again"), config);
            if let Err(error) = check(&config) {
                told(&error);
            }
        }
        Err(error) => told(&error),
    }
}

fn told(error: &llmspell_state_persistence::Error) {
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let message = error.to_string();
    assert!(message.len() <= LONGEST_MESSAGE, "{} bytes: {message}", message.len());
    assert!(!message.contains(char::is_control), "{message:?}");
}
