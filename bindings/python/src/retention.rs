//! Retention policies between `llmspell_state.RetentionPolicy`, or mappings with the same names, and the core's.

use crate::error::{invalid, to_py, wrong_type};
use crate::{ttl, value};
use llmspell_state_persistence::RetentionPolicy;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyFloat;
use serde_json::{Map, Value};

/// The parts that are times, and so may be told by a `timedelta`.
const TIMES: [&str; 2] = ["max_age", "cleanup_interval"];

/// The argument of `set_retention`.
pub(crate) struct Policy(RetentionPolicy);

impl FromPyObject<'_, '_> for Policy {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        RetentionPolicy::from_options(parts(&object)?).map(Self).map_err(to_py)
    }
}

/// The core's policy, where there is one.
pub(crate) fn told(policy: Option<Policy>) -> Option<RetentionPolicy> {
    policy.map(|policy| policy.0)
}

/// A policy's parts by name.
pub(crate) fn parts(policy: &Bound<'_, PyAny>) -> PyResult<Map<String, Value>> {
    let py = policy.py();
    let class = py.import("llmspell_state.retention")?.getattr("RetentionPolicy")?;
    let parts = if policy.is_instance(&class)? {
        py.import("dataclasses")?.call_method1("asdict", (policy,))?
    } else if value::is_mapping(policy)? {
        policy.clone()
    } else {
        return Err(wrong_type("retention", "a RetentionPolicy or a mapping of its parts", policy));
    };
    value::pairs(&parts)?.iter().map(|(name, part)| part_of(name, part)).collect()
}

fn part_of(name: &Bound<'_, PyAny>, part: &Bound<'_, PyAny>) -> PyResult<(String, Value)> {
    let name: String = name.extract().map_err(|_| wrong_type("a part of retention", "a str as its name", name))?;
    if TIMES.contains(&&*name)
        && let Some(seconds) = ttl::seconds_of(part)?
    {
        return Ok((name, seconds.into()));
    }
    // JSON would make null of what is not finite, and so no bound.
    if part.is_instance_of::<PyFloat>() && !part.extract::<f64>()?.is_finite() {
        return Err(invalid(format!(
            "retention: {name} is {part}; it takes a finite number, or None where no bound will do"
        )));
    }
    let part = pythonize::depythonize(part).map_err(|e| invalid(format!("retention: {name}: {e}")))?;
    Ok((name, part))
}

/// What `RetentionPolicy` is made of.
#[allow(clippy::needless_pass_by_value)] // as every answer of a call
pub(crate) fn fields(py: Python<'_>, policy: RetentionPolicy) -> PyResult<Bound<'_, PyAny>> {
    let most = (policy.max_versions != usize::MAX).then_some(policy.max_versions);
    let (age, interval) = (policy.max_age.map(|age| age.as_secs_f64()), policy.cleanup_interval.as_secs_f64());
    (age, most, policy.max_bytes, policy.trim_watched, interval).into_bound_py_any(py)
}
